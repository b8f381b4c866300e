"""Faust's transport with a consumer that gives whole polls, and commits what the lane has applied.

See README.md of this folder for what is overridden and why.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from aiokafka.errors import KafkaConnectionError, KafkaError
from faust.transport.consumer import RecordMap, ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.transports import ConsumerT, ProducerT

from stream_app.lane.fence import Lease
from stream_app.lane.intake import Intake, Poll

if TYPE_CHECKING:
    import aiokafka

FETCH_MAX_WAIT_MS = 10
"""How long the broker may hold a fetch that finds nothing.

A partition whose records were just used up waits for the fetch in flight before it is fetched
again, so this bounds a stall under load; and the embedded broker looks for new records only at
half of this time. Faust asks for 1,500 ms.
"""

FETCH_INTERVAL_S = 0.01
"""From one fetch of a broker to the next at least: what comes meanwhile comes together.

A broker answers as soon as it has one record, and a poll costs the worker more than a record does.
"""

BUSY_FETCH_INTERVAL_S = 0.03
"""The same while batches are on their way: what comes meanwhile waits for their end, see flight.py.

A worker that is behind has a megabyte of each topic partition from a fetch.
"""

FETCH_LOOK_S = 0.005
"""From one look to the next whether a fetch is due."""

POLL_S = 0.2
POLL_WHILE_PAUSED_S = 0.02
"""A poll cannot be told that a partition was resumed meanwhile, so it has to be short."""

HIGHWATER_TIMEOUT_S = 5.0
"""How long the first fetch of a partition is waited for."""

CHANGELOG_POLLS = 8
"""Polls of changelogs that may wait for Faust's recovery; no more is read meanwhile.

A poll is up to FETCH_BYTES of one partition, so this bounds memory.
"""

CHANGELOG_WAIT_S = 0.005
"""Between two looks whether another poll of a changelog may be read."""

COMMIT_TIMEOUT_S = 2.0
"""How long the last commit of an assignment is waited for."""


class LaneHooks(Protocol):
    """What the consumer asks of the lane, and tells it."""

    intake: Intake
    lease: Lease

    @property
    def is_busy(self) -> bool:
        """Whether a batch is on its way."""
        ...

    def is_input(self, topic: str) -> bool:
        """Whether the topic is one of the lane's."""
        ...

    def accept(self, tp: TP, poll: Poll) -> None:
        """Take one poll of an input topic's partition in."""
        ...

    def recovers_from(self, tp: TP, offset: int) -> None:
        """A changelog is read from this offset, or from its first record behind it."""
        ...

    def committable(self) -> Mapping[TP, int]:
        """Per topic partition, the offset after the last record that is wholly applied."""
        ...

    def before_commit(self, offsets: Mapping[TP, int]) -> None:
        """Offsets are about to be committed."""
        ...

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Offsets were committed."""
        ...

    async def finish(self) -> None:
        """End or abandon the batches in flight, and begin no other."""
        ...

    def revoked(self) -> None:
        """The assignment has ended: forget all that belongs to it."""
        ...


class LaneConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with fetches that return soon, and heartbeats that renew a lease.

    asked_under   the assignment for which the poll in flight was asked
    """

    asked_under: Any = None

    async def on_start(self) -> None:
        """Start the consumer, and follow its heartbeats."""
        await super().on_start()
        coordinator = self._ensure_consumer()._coordinator
        heartbeat = coordinator._do_heartbeat
        lease = cast(LaneHooks, self.app.lane).lease  # type: ignore[attr-defined]

        async def renewing() -> bool:
            sent_at = time.monotonic()
            is_member = bool(await heartbeat())
            # While the group rebalances the answer is yes, but the partitions may go any time.
            if is_member and not coordinator._rejoin_needed_fut.done():
                lease.renew(sent_at)
            return is_member

        coordinator._do_heartbeat = renewing
        fetcher = self._ensure_consumer()._fetcher
        fetcher._get_actions_per_node = paced(fetcher._get_actions_per_node, self._fetch_interval_s)

    def _fetch_interval_s(self) -> float:
        lane = cast(LaneHooks, self.app.lane)  # type: ignore[attr-defined]
        return BUSY_FETCH_INTERVAL_S if lane.is_busy else FETCH_INTERVAL_S

    async def on_thread_stop(self) -> None:
        """Leave the group, so that its partitions are free at once."""
        if self._consumer is not None and self._consumer._coordinator.generation == 0:
            # aiokafka leaves from generation 1 on, and the embedded broker counts from 0.
            self._consumer._coordinator.generation = 1
        await super().on_thread_stop()

    def refusal(self) -> BaseException | None:
        """The error that ends the coordination of the group, None without one."""
        if self._consumer is None:
            return None
        coordinator = self._consumer._coordinator
        pending: BaseException | None = getattr(coordinator, "_pending_exception", None)
        return pending

    async def heartbeat(self) -> None:
        """Send a heartbeat now, if this worker is a member of the group at all."""
        coordinator = self._ensure_consumer()._coordinator
        if coordinator.generation != driver.DEFAULT_GENERATION_ID:
            await self.call_thread(self._heartbeat, coordinator)

    @staticmethod
    async def _heartbeat(coordinator: Any) -> None:
        await coordinator.ensure_coordinator_known()
        await coordinator._do_heartbeat()

    def _create_worker_consumer(self, transport: driver.Transport) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        return consumer

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> RecordMap:
        """Of each partition a Poll, with the positions between which its records stand.

        A poll without records is one whose fetch had none that are for readers, such as the end
        of a transaction, and so moved the position alone.

        aiokafka goes on with a poll through a rebalance, and takes records from where the new
        assignment has sought. Nobody waits for those, so they are put back.
        """
        asked_under, before, sought = self.asked_under, _positions(consumer), _seeks(consumer)
        found = await super()._fetch_records(consumer, active_partitions, timeout, max_records)
        if _assignment(consumer) is not asked_under:
            for tp in _positions(consumer).keys() & found.keys():
                consumer.seek(tp, found[tp][0].offset)
            return {}
        after, now_s = _positions(consumer), time.time()
        polls: dict[TP, Any] = {}
        for tp, records in found.items():
            end = after.get(tp) or records[-1].offset + 1
            polls[tp] = Poll(records, before.get(tp), end, now_s)
        for tp in after.keys() - found.keys():
            start, end = before.get(tp), after[tp]
            if start is None or end is None or end <= start:
                continue
            if _seeks(consumer).get(tp) is sought.get(tp):
                polls[tp] = Poll([], start, end, now_s)
        return polls

    def is_here(self) -> None:
        """Tell the group that a worker without partitions is not stuck.

        aiokafka leaves the group after `max_poll_interval` without a fetch, and for good.
        """
        self._ensure_consumer()._subscription._last_fetch_ended = time.monotonic()

    def assignment_now(self) -> Any:
        """The object that stands for an assignment: each rebalance makes another."""
        return _assignment(self._ensure_consumer())


def paced(
    actions: Callable[[Any], tuple[Any, ...]],
    interval_s: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
) -> Callable[[Any], tuple[Any, ...]]:
    """aiokafka's choice of what to do next, with fetches of a broker that keep an interval.

    Args:
        actions: assignment to fetch requests by node, what else is to do, and in how many seconds
            to choose again, see `Fetcher._get_actions_per_node`.
        interval_s: between the sending of two requests, as it is now; it may change any time.
        clock: monotonic seconds.
    """
    last_at: dict[int, float] = {}

    def paced_actions(assignment: Any) -> tuple[Any, ...]:
        requests, resets, timeout, *others = actions(assignment)
        now, interval, due = clock(), interval_s(), []
        for node, request in requests:
            left = last_at.get(node, -interval) + interval - now
            if left > 0:
                timeout = min(timeout, left, FETCH_LOOK_S)
            else:
                last_at[node] = now
                due.append((node, request))
        return due, resets, timeout, *others

    return paced_actions


def _assignment(consumer: aiokafka.AIOKafkaConsumer) -> Any:
    return consumer._subscription.subscription.assignment


def _positions(consumer: aiokafka.AIOKafkaConsumer) -> dict[TP, int | None]:
    assignment = _assignment(consumer)
    if assignment is None:
        return {}
    return {tp: assignment.state_value(tp)._position for tp in assignment.tps}


def _seeks(consumer: aiokafka.AIOKafkaConsumer) -> dict[TP, Any]:
    """Objects of which a position that was reset gets another one: records may lie between."""
    assignment = _assignment(consumer)
    if assignment is None:
        return {}
    return {tp: assignment.state_value(tp)._position_fut for tp in assignment.tps}


class LaneConsumer(driver.Consumer):
    """Polls of the input topics go to the lane, and those of a changelog are a message each."""

    @property
    def lane(self) -> LaneHooks:
        """The lane of the app that this consumer belongs to."""
        return cast(LaneHooks, self.app.lane)  # type: ignore[attr-defined]

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return LaneConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, hand the lane its polls, and yield a message for each poll of a changelog.

        Faust's way from here to an agent is a task and two queues for each topic partition of a
        poll, which small polls cost more than what is done with their records. The message of a
        changelog has the offset of its last record, which is how far Faust's recovery takes it to
        be when the message is applied.
        """
        lane, intake = self.lane, self.lane.intake
        timeout = min(timeout, POLL_WHILE_PAUSED_S if intake.paused else POLL_S)
        if self.flow_active and not self._get_active_partitions():
            if not self.assignment():
                cast(LaneConsumerThread, self._thread).is_here()
            # Faust would sleep for a second.
            await intake.wait_until_resumed(timeout)
            return
        records, active = await self._wait_next_records(timeout)
        if records is None or self.should_stop:
            return
        thread = cast(LaneConsumerThread, self._thread)
        for key, found in records.items():
            # What is not handed on here is fetched again: the new assignment seeks.
            if thread.assignment_now() is not thread.asked_under or not self.flow_active:
                return
            tp, poll = ensure_TP(key), cast(Poll, found)
            if not lane.is_input(tp.topic):
                if not poll.records:
                    lane.recovers_from(tp, poll.end - 1)
                elif active is None or tp in active or tp in self._buffered_partitions:
                    yield tp, self._whole(tp, poll)
                continue
            poll = intake.within(tp, poll)
            if intake.give(tp, poll.records):
                self.pause_partitions({tp})
            lane.accept(tp, poll)

    def _whole(self, tp: TP, poll: Poll) -> Any:
        message: Any = self._to_message(tp, poll.records[-1])
        message.key, message.value, message.headers = None, poll, None
        return message

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> RecordMap:
        # Faust hands its own set to the consumer's thread, where an empty one means all: emptied
        # during the poll, it would give records of paused partitions, which then are lost.
        tps = None if active_partitions is None else set(active_partitions)
        if tps and self._changelog_polls() >= CHANGELOG_POLLS:
            tps = {tp for tp in tps if self.lane.is_input(tp.topic)}
            if not tps:
                await asyncio.sleep(CHANGELOG_WAIT_S)
                return {}
        thread = cast(LaneConsumerThread, self._thread)
        thread.asked_under = thread.assignment_now()
        return await super()._getmany(tps, timeout)

    def _changelog_polls(self) -> int:
        tables: Any = self.app.tables
        waiting: int = tables.changelog_queue.qsize()
        return waiting

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        """Seek, and tell the lane from where changelogs are read."""
        for tp, offset in partitions.items():
            if not self.lane.is_input(tp.topic):
                self.lane.recovers_from(tp, offset)
        await super().seek_wait(partitions)

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Resume what is not the lane's: Faust resumes before it seeks to the committed offsets.

        Records fetched between the two would come twice.
        """
        super().resume_partitions({tp for tp in tps if not self.lane.is_input(tp.topic)})
        self.lane.intake.wake()

    def resume_inputs(self, tps: Iterable[TP]) -> None:
        """Resume partitions of the input topics, when the lane says so."""
        super().resume_partitions(tps)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """The offset that the next record of each assigned partition will get.

        Asked for by offset, a broker may know of less than it has (the embedded one leaves out the
        last batch but for its first record), and recovery would leave those rows out. What came
        with the fetches counts, so they are waited for.
        """
        ends = dict(await super().highwaters(*partitions))
        deadline = time.monotonic() + HIGHWATER_TIMEOUT_S
        for tp in partitions:
            fetched = self.known_end(tp)
            while fetched is None and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
                fetched = self.known_end(tp)
            ends[tp] = max(ends.get(tp) or 0, fetched or 0)
        return ends

    def refusal(self) -> BaseException | None:
        """Why the coordinator does not take this worker into the group, None while it may.

        aiokafka hands such an error to the next poll, which never comes without an assignment.
        """
        return cast(LaneConsumerThread, self._thread).refusal()

    async def heartbeat(self) -> None:
        """Ask the coordinator now whether this worker is still a member of its group."""
        await cast(LaneConsumerThread, self._thread).heartbeat()

    def position_now(self, tp: TP) -> int | None:
        """The offset that is fetched next of an assigned partition; None when it has none."""
        return _positions(self._thread._ensure_consumer()).get(tp)

    def known_end(self, tp: TP) -> int | None:
        """The end of a topic partition as the last fetch told it, None before the first."""
        try:
            return self.highwater(tp)
        except AssertionError:  # aiokafka's way to say that it was revoked meanwhile
            return 0

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let the lane finish and commit, and forget the rest, before Faust's own handling."""
        if revoked:
            await self.lane.finish()
            await self.commit_all()
        self.lane.revoked()
        await super().on_partitions_revoked(revoked)

    async def commit_offsets(self, offsets: Mapping[TP, int]) -> bool:
        """Commit these offsets now, whatever is committed; true when it is done."""
        return await super()._commit_offsets(offsets)

    async def commit_all(self) -> None:
        """Commit all that is applied; what cannot be committed in time is applied again later."""
        try:
            # A commit that runs already knows nothing of the last batches.
            await asyncio.wait_for(self.maybe_wait_for_commit_to_finish(), COMMIT_TIMEOUT_S)
            await asyncio.wait_for(self.commit(), COMMIT_TIMEOUT_S)
        except asyncio.TimeoutError:
            self.log.warning("Offsets could not be committed in %s s", COMMIT_TIMEOUT_S)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (
            tp
            for tp in self.lane.committable()
            if topics is None or tp in topics or tp.topic in topics
        )

    def _new_offset(self, tp: TP) -> int | None:
        return self.lane.committable().get(tp)

    async def _commit_offsets(
        self, offsets: Mapping[TP, int], start_new_transaction: bool = True
    ) -> bool:
        self.lane.before_commit(offsets)
        thread = cast(LaneConsumerThread, self._thread)
        before = {tp: self._committed_offset[tp] for tp in offsets}
        assignment = thread.assignment_now()
        did_commit = await super()._commit_offsets(offsets, start_new_transaction)
        if did_commit:
            self.lane.committed(offsets)
        elif thread.assignment_now() is assignment:
            # Faust takes them for committed, and would not try again.
            self._committed_offset.update(before)
        return did_commit

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Left out: Faust looks at acks, which decide nothing here; `/readyz` sees a standstill."""


def send_partitions_side_by_side(producer: aiokafka.AIOKafkaProducer) -> None:
    """Let a broker have a request of each partition at once.

    aiokafka sends a broker one request at a time, so that the partitions of a worker wait for each
    other. A partition has one request on its way all the same, which is what its order needs.
    """
    producer._sender._in_flight = _NoneBusy()


class _NoneBusy(set[int]):
    """Stands where aiokafka keeps the brokers with a request on its way, and stays empty."""

    def add(self, node: int) -> None:
        """Leaves it out."""

    def remove(self, node: int) -> None:
        """It is not there."""


class LaneProducer(driver.Producer):
    """Faust's producer, idempotent where the broker allows it, with a request for each partition.

    A retry then neither doubles nor reorders records. Where it may double them, the repeats are
    harmless: outputs carry ids, and of rows the last one counts.
    """

    _idempotent = True

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": self._idempotent}

    async def on_start(self) -> None:
        """Start, without idempotence when the broker gives no producer id."""
        aiokafka_log = logging.getLogger("aiokafka.producer.sender")
        level = aiokafka_log.level
        aiokafka_log.setLevel(logging.CRITICAL)  # would call an error what is not
        try:
            await super().on_start()
        except KafkaConnectionError:
            raise
        except KafkaError as error:
            self.log.warning(
                "The broker gives no producer id (%s): a retried write may come twice",
                type(error).__name__,
            )
            refused, self._producer = self._producer, None
            if refused is not None:
                await refused.stop()
            self._idempotent = False
            await super().on_start()
        finally:
            aiokafka_log.setLevel(level)
        send_partitions_side_by_side(self._ensure_producer())


class LaneTransport(driver.Transport):
    """The transport of a worker with a lane; the app has it as `app.transport`."""

    Consumer: ClassVar[type[ConsumerT]] = LaneConsumer
    Producer: ClassVar[type[ProducerT]] = LaneProducer
