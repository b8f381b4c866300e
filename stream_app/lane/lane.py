"""The lane: takes polls from the Faust agent and moves them through, partition by partition.

Each assigned partition has a task of its own, which goes decode, merge, read, transition, encode,
commit, and begins its next batch when this one is committed. So the order of a partition is exact,
and while one partition waits for acknowledgements another computes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from faust.types import TP

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app import topics
from stream_app.errors import (
    BrokerError,
    InterestStreamError,
    RecoveryError,
    TopicError,
    WorkerError,
)
from stream_app.events import decode_batch
from stream_app.health import WorkerHealth
from stream_app.lane.changelog import Changelog
from stream_app.lane.commit import AtStep, Committer, Topics, Written, no_step
from stream_app.lane.compute import Computed, compute
from stream_app.lane.erasure import erase, receipt
from stream_app.lane.fence import Fence, Lease, Revoked
from stream_app.lane.intake import Intake, Poll, size_bytes
from stream_app.lane.journal import encode, topic_name
from stream_app.lane.merge import Triple
from stream_app.lane.partition import Batch, Erasure, Partition
from stream_app.lane.recovery import RecoveryWatch, check_store
from stream_app.lane.sender import Sender
from stream_app.lane.sweep import SLICE_ROWS, Sweep
from stream_app.lane.table import RowTable
from stream_app.lane.takeover import check_counts, take_over
from stream_app.lane.topic_reader import reading
from stream_app.metrics import Metrics
from stream_app.settings import Settings

if TYPE_CHECKING:
    from faust.types.streams import StreamT
    from faust.types.tables import CollectionT

logger = logging.getLogger(__name__)

FINISH_TIMEOUT_S = 4.0
"""How long batches in flight may take to end when the partitions are revoked."""
WATCH_INTERVAL_S = 0.5


class Lane:
    """The data path of one worker.

    Args:
        app: the Faust app; its consumer, producer and table recovery are used.
        table: the Faust table of the rows.
        settings, checkpoint, metrics, health: of the worker.
        on_failure: called once, with what ends the worker.
        at_step: told every step of every commit, see commit.STEPS; for tests.
        until: offset per topic partition at which a replay ends, None to go on with what comes.
    """

    def __init__(
        self,
        app: Any,
        table: CollectionT,
        settings: Settings,
        checkpoint: Checkpoint,
        metrics: Metrics,
        health: WorkerHealth,
        on_failure: Callable[[InterestStreamError], None],
        at_step: AtStep = no_step,
        until: Mapping[TP, int] | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._checkpoint = checkpoint
        self._metrics = metrics
        self._health = health
        self._on_failure = on_failure
        self._at_step = at_step
        self._until = until
        self._rows = RowTable(table)
        self._topics = settings.input_topics
        self._control_topic = settings.control_topic
        self._event_types = {topic: EventType(i) for i, topic in enumerate(self._topics)}
        self.intake = Intake(settings.max_batch_events, self._resume)
        self.lease = Lease(min(settings.session_timeout_s, settings.rebalance_timeout_s))
        self._partitions: dict[int, Partition] = {}
        self._sweeps: dict[int, Sweep] = {}
        self._committable: dict[TP, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looks: asyncio.Task[None] | None = None
        self._changelog: Changelog | None = None
        self._committer: Committer | None = None
        self._recovery = RecoveryWatch(app)
        self._epochs: Triple = (0, 0, 0)
        self._fence = Fence(0)
        self._fence.close()
        self._accepting = False
        self._stopping = False
        self._busy_s = 0.0
        self._applied_events = 0
        self._applied_at_commit = 0
        self._commit_began = 0.0
        self.failure: InterestStreamError | None = None

    async def run(self, stream: StreamT[Any]) -> None:
        """The agent: hands the polls of the consumer to the partitions."""
        async for event in cast("AsyncIterator[Any]", stream.events()):
            message = event.message
            self.accept(TP(message.topic, message.partition), event.value)

    def accept(self, tp: TP, poll: Poll) -> None:
        """Take one poll of a topic partition in."""
        partition = self._partitions.get(tp.partition)
        if partition is None:  # it was revoked on the way
            return
        if tp.topic == self._control_topic:
            self.intake.take(tp, len(poll.records), size_bytes(poll.records))
            partition.add_requests(poll.records)
        else:
            partition.accept(self._event_types[tp.topic], poll)

    def is_input(self, topic: str) -> bool:
        """Whether the lane reads the topic: one of the three input topics, or the control topic."""
        return topic in self._event_types or topic == self._control_topic

    def committable(self) -> Mapping[TP, int]:
        """Per topic partition, the offset after the last record that is wholly applied."""
        return self._committable

    def before_commit(self, offsets: Mapping[TP, int]) -> None:
        """Remember how many events the commit covers."""
        self._at_step("before committed")
        self._commit_began = self._now()
        self._applied_at_commit = self._applied_events

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Note a commit for readiness."""
        self._at_step("after committed")
        self._metrics.stage_seconds.labels("commit").observe(self._now() - self._commit_began)
        left = self._applied_events - self._applied_at_commit
        self._health.committed(self._now(), still_uncommitted=left)
        for partition in self._partitions.values():
            sweep = self._sweeps.get(partition.number)
            if sweep is not None and sweep.committed():
                partition.arrived.set()

    async def finish(self) -> None:
        """Let the batches in flight end, abandon them after a while, and begin no other."""
        self._accepting = False
        if self._looks is not None:
            self._looks.cancel()
        for partition in self._partitions.values():
            partition.arrived.set()
        if self._tasks:
            patience = min(FINISH_TIMEOUT_S, self._settings.session_timeout_s / 2)
            await asyncio.wait(self._tasks, timeout=patience)
        self._fence.close()
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def revoked(self) -> None:
        """Forget the assignment: records held, offsets applied, series of its metrics."""
        self._fence.close()
        self._metrics.forget_partitions(
            (tp.topic, tp.partition) for p in self._partitions.values() for tp in p.tps
        )
        self._partitions.clear()
        self._sweeps.clear()
        self._committable.clear()
        self.intake.forget()

    def begin(self) -> None:
        """Work on the new assignment; Faust has recovered its rows and sought its offsets."""
        if self._stopping or self.failure is not None:
            return
        self._accepting = True
        self._fence = Fence(self._fence.number + 1, self.lease.holds)
        self._spawn(self._begin(self._fence))

    async def stop(self) -> None:
        """End the batches in flight, and begin no other."""
        self._stopping = True
        await self.finish()

    @property
    def has_applied(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._committable)

    async def watch(self) -> None:
        """Tell readiness and metrics how far the worker is, until cancelled."""
        while True:
            try:
                self._recovery.look()
            except RecoveryError as error:
                self._fail(error)
                return
            self._report()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Revoked:
            return
        except InterestStreamError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("The lane failed")
            self._fail(WorkerError(f"The worker stops at an error of its own ({error!r})."))

    def _fail(self, error: InterestStreamError) -> None:
        self._accepting = False
        self._fence.close()
        if self.failure is None:
            self.failure = error
            self._health.fatal = str(error)
            self._on_failure(error)

    async def _begin(self, fence: Fence) -> None:
        consumer = self._app.consumer
        assigned = {tp for tp in consumer.assignment() if self.is_input(tp.topic)}
        self._health.assign(
            (tp.topic, tp.partition) for tp in assigned if tp.topic != self._control_topic
        )
        if assigned:
            if self._committer is None:
                self._committer = await self._new_committer()
            await consumer.heartbeat()
            self._epochs = await self._read_epochs()
            started = await take_over(
                self._app, self._settings, assigned, fence, self._epochs, self._until
            )
            fence.check()
            for partition in started.values():
                if partition.until is not None:
                    self.intake.end_at(dict(zip(partition.tps, partition.until, strict=True)))
            assert self._changelog is not None
            reached = {number: self._rows.next_offset(number) for number in started}
            last = self._app.tables.recovery.active_highwaters
            for number, offset in reached.items():
                changelog = TP(self._settings.changelog_topic, number)
                check_store(self._settings, offset, last[changelog] + 1)
            self._changelog.begin(reached)
            for number, partition in started.items():
                partition.markers = self._rows.markers(number)
                self._sweeps[number] = Sweep(partition.swept_ms, self._checkpoint.hidden)
            self._looks = asyncio.create_task(self._guard(self._look_again(fence)))
            self._partitions = started
            for partition in started.values():
                self._spawn(self._serve(partition))
            self._resume(assigned)
            self.intake.wake()
        self._report()

    async def _new_committer(self) -> Committer:
        producer = self._app.producer._ensure_producer()
        settings = self._settings
        out = Topics(
            drift=settings.drift_topic,
            recommendations=settings.recommendations_topic,
            dead_letters=settings.dead_letters_topic,
            journal=topic_name(settings),
            control=settings.control_topic,
        )
        equal = (*self._topics, out.drift, out.recommendations, out.control, out.journal)
        await check_counts(producer, settings, (*equal, settings.changelog_topic))
        letters = len(await producer.partitions_for(out.dead_letters))
        sender = Sender(producer)
        self._changelog = Changelog(
            sender,
            self._rows,
            settings.changelog_topic,
            self._read_changelog,
            self._app.consumer,
            self._metrics.foreign_rows_total.inc,
        )
        return Committer(
            sender, self._rows, self._changelog, out, letters, self._metrics, self._at_step
        )

    async def _read_changelog(self, partition: int, since: int) -> tuple[list[Any], int]:
        async with reading(self._app, self._settings.changelog_topic) as reader:
            records, ends = await reader.read({partition: since})
        return records[partition], ends[partition]

    async def _look_again(self, fence: Fence) -> None:
        """Look every session timeout for what a worker that was stopped has written late."""
        assert self._changelog is not None
        while True:
            await asyncio.sleep(self._settings.session_timeout_s)
            fence.check()
            try:
                self._check_epochs(await self._read_epochs())
                async with reading(self._app, self._settings.changelog_topic) as reader:
                    ends = await reader.ends(self._partitions)
                for partition, end in ends.items():
                    await self._changelog.look(partition, end, fence)
            except (BrokerError, RecoveryError) as error:  # there will be another look
                logger.warning("The topics cannot be looked at now: %s", error)

    async def _read_epochs(self) -> Triple:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, topics.epochs, self._settings)

    def _check_epochs(self, epochs: Triple) -> None:
        for topic, old, new in zip(self._topics, self._epochs, epochs, strict=True):
            if old != new:
                raise TopicError(
                    f"{topic} was made anew while the worker ran; start the worker again, it "
                    "begins the topic at its first record and keeps the rows."
                )

    async def _serve(self, partition: Partition) -> None:
        settings = self._settings
        wait_s = settings.merge_wait_ms / 1000
        while self._accepting and partition.fence.is_open:
            began = self._now()
            partition.arrived.clear()
            self._decode(partition)
            partition.note_ends(self._highwaters(partition))
            with self._metrics.time_stage("merge"):
                idle = began - self._busy_s
                found = partition.next_batch(idle, wait_s, settings.max_batch_events)
            self._busy_s += self._now() - began
            if isinstance(found, Batch):
                await self._apply(partition, found)
                await self._sweep(partition)
                await asyncio.sleep(0)
            elif isinstance(found, Erasure):
                await self._erase(partition, found)
            elif not await self._sweep(partition):
                self._want(partition)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(partition.arrived.wait(), found)

    def _decode(self, partition: Partition) -> None:
        inbox, partition.inbox = partition.inbox, []
        settings = self._settings
        for topic, poll in inbox:
            with self._metrics.time_stage("decode"):
                events, rejections = decode_batch(
                    topic,
                    poll.records,
                    partition=partition.number,
                    partitions=settings.partitions,
                    now_ms=int(time.time() * 1000),
                    future_allowance_ms=settings.future_allowance_ms,
                    max_value_bytes=settings.max_event_bytes,
                )
                partition.add(topic, poll, events, rejections)

    async def _apply(self, partition: Partition, batch: Batch) -> None:
        assert self._committer is not None
        for tp, (records, size) in zip(partition.tps, batch.sizes, strict=True):
            if records:
                self.intake.take(tp, records, size)
        journal: asyncio.Task[None] | None = None
        if not batch.replayed:
            journal = asyncio.create_task(
                self._committer.journal(partition.number, encode(batch.entry), partition.fence)
            )
        try:
            computed = await self._compute(partition, batch)
            if journal is not None:
                await journal
        except BaseException:
            if journal is not None:
                journal.cancel()
                await asyncio.gather(journal, return_exceptions=True)
            raise

        def committable(ends: Triple) -> None:
            self._committable.update(zip(partition.tps, ends, strict=True))
            self._applied_events += len(batch.events)
            self._health.applied(len(batch.events), self._now())

        await self._committer.write(
            partition.number, computed.results, partition.fence, committable
        )
        computed.count(self._metrics, time.time())

    async def _compute(self, partition: Partition, batch: Batch) -> Computed:
        await asyncio.sleep(0)  # lets the journal's record go out
        began = self._now()
        partition.fence.check()
        computed = compute(
            batch,
            partition.number,
            partition.ends,
            self._topics,
            self._rows,
            partition.markers,
            self._checkpoint,
            self._metrics,
            self._settings.dead_letter_max_bytes,
        )
        self._busy_s += self._now() - began
        return computed

    async def _erase(self, partition: Partition, erasure: Erasure) -> None:
        """Erase a user: journal, tombstones, marker, receipt, and then the request's offset."""
        assert self._committer is not None
        entry, request = erasure.entry, erasure.request
        control = TP(self._control_topic, partition.number)
        if request is None:  # its receipt has been written
            self._committable[control] = erasure.offset + 1
            return
        if not erasure.replayed:
            await self._committer.journal(partition.number, encode(entry), partition.fence)
        partition.fence.check()
        had_row = self._rows.read(partition.number, [request.user_id.encode()]) != [None]
        erased = erase(entry, request, partition.markers)

        async def confirm(written: Written) -> None:
            assert self._committer is not None
            partition.markers[entry.erased] = erased.marker
            settings, made = self._settings, self._committer.topics
            done = receipt(
                request,
                partition.number,
                had_row,
                erased.marker,
                self._topics,
                made,
                settings.changelog_topic,
                written,
            )
            await self._committer.confirm(partition.number, request, done, partition.fence)

        def committable(ends: Triple) -> None:
            self._committable[control] = erasure.offset + 1

        await self._committer.write(
            partition.number, erased.results, partition.fence, committable, confirm
        )
        self._metrics.erased_users_total.inc()

    async def _sweep(self, partition: Partition) -> bool:
        """Delete a slice of the rows that have expired; whether there are more to look at."""
        assert self._changelog is not None
        sweep = self._sweeps.get(partition.number)
        if sweep is None:
            return False
        sweep.note(partition.swept_ms)
        if sweep.is_done:
            return False
        found = self._rows.after(partition.number, sweep.position, SLICE_ROWS)
        committed = self._app.consumer._committed_offset
        keys = sweep.next_expired(
            found, [committed[tp] or 0 for tp in partition.tps], partition.epochs
        )
        if keys:
            gone: list[bytes | None] = [None] * len(keys)
            async with self._changelog.lock(partition.number):
                await partition.fence.held()
                fence = partition.fence
                reached = await self._changelog.append(partition.number, keys, gone, fence)
                await fence.held()
                self._rows.write(partition.number, keys, gone, reached)
            self._metrics.expired_rows_total.inc(len(keys))
        return not sweep.is_done

    def _highwaters(self, partition: Partition) -> list[int | None]:
        consumer = self._app.consumer
        return [consumer.known_end(tp) for tp in partition.tps]

    def _want(self, partition: Partition) -> None:
        """A batch of the journal may be larger than batches are now: let all of it come in."""
        entry = partition.replay[0] if partition.replay else None
        for topic, tp in enumerate(partition.tps):
            self.intake.want(tp, entry.end[topic] - entry.start[topic] if entry else 0)

    def _resume(self, tps: set[TP]) -> None:
        self._app.consumer.resume_inputs(tps)

    def _report(self) -> None:
        now = self._now()
        is_working = self._fence.is_open and not self._app.rebalancing
        for partition in self._partitions.values():
            if is_working:
                partition.note_ends(self._highwaters(partition))
            for tp, position, end in zip(
                partition.tps, partition.position, partition.reach, strict=True
            ):
                lag = max(end - position, 0)
                self._health.record((tp.topic, tp.partition), position, lag, now)
                self._metrics.set_lag(tp.topic, tp.partition, lag)
        recovery = self._app.tables.recovery
        total = sum(max(end + 1, 0) for end in recovery.active_highwaters.values())
        if is_working:
            self._health.recovering(0, total)
        else:
            left = recovery.active_remaining_total() if recovery.in_recovery else 0
            still_s = self._recovery.still_s if left > 0 else 0.0
            self._health.recovering(max(left, 1), max(total, 1), still_s)

    @staticmethod
    def _now() -> float:
        return time.monotonic()
