"""The lane: begins and ends assignments, hands polls to their partitions, says what to commit."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from faust.types import TP

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app import topics
from stream_app.errors import (
    BrokerError,
    InterestStreamError,
    RecoveryError,
    WorkerError,
)
from stream_app.health import WorkerHealth
from stream_app.lane.changelog import Changelog
from stream_app.lane.commit import AtStep, Committer, Topics, no_step
from stream_app.lane.due_walk import DueWalk
from stream_app.lane.fence import Fence, Lease, Revoked
from stream_app.lane.history_mark import check_complete
from stream_app.lane.intake import Intake, Poll, size_bytes
from stream_app.lane.journal import topic_name
from stream_app.lane.merge import NEVER, Triple
from stream_app.lane.partition import Partition
from stream_app.lane.recovery import RecoveryWatch, check_store
from stream_app.lane.sender import Sender
from stream_app.lane.stored_rows import check_size
from stream_app.lane.sweep import Sweep
from stream_app.lane.table import LaneTable
from stream_app.lane.takeover import check_counts, take_over
from stream_app.lane.topic_reader import reading
from stream_app.lane.work import Work
from stream_app.metrics import Metrics
from stream_app.output_format import packing
from stream_app.settings import Settings

if TYPE_CHECKING:
    from faust.types.streams import StreamT

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
        table: LaneTable,
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
        self._table = table
        self.rows = table.rows
        self._until = until
        self._topics = settings.input_topics
        self._control_topic = settings.control_topic
        self._event_types = {topic: EventType(i) for i, topic in enumerate(self._topics)}
        self.intake = Intake(settings.max_batch_events, self._resume)
        self.lease = Lease(min(settings.session_timeout_s, settings.rebalance_timeout_s))
        self._partitions: dict[int, Partition] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looks: asyncio.Task[None] | None = None
        self._changelog: Changelog | None = None
        self._work: Work | None = None
        self._recovery = RecoveryWatch(app)
        self._epochs: Triple = (0, 0, 0)
        self._fence = Fence(0)
        self._fence.close()
        self._accepting = False
        self._stopping = False
        self._applied_at_commit = 0
        self._commit_began = 0.0
        self.failure: InterestStreamError | None = None

    async def run(self, stream: StreamT[Any]) -> None:
        """The agent, by which Faust subscribes to the topics: polls come by `accept`."""
        async for _ in cast("AsyncIterator[Any]", stream):
            continue

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

    def owns(self, partition: int) -> bool:
        """Whether this worker works on the partition now."""
        return partition in self._partitions and self._fence.is_open

    def is_input(self, topic: str) -> bool:
        """Whether the lane reads the topic: one of the three input topics, or the control topic."""
        return topic in self._event_types or topic == self._control_topic

    @property
    def is_busy(self) -> bool:
        """Whether a batch is on its way."""
        return self._work is not None and self._work.is_busy

    def recovers_from(self, tp: TP, offset: int) -> None:
        """A changelog is read from this offset, or from its first record behind it."""
        self._table.recovers_from(tp.partition, offset)

    def committable(self) -> Mapping[TP, int]:
        """Per topic partition, the offset after the last record that is wholly applied."""
        return {} if self._work is None else self._work.committable

    def before_commit(self, offsets: Mapping[TP, int]) -> None:
        """Remember how many events the commit covers."""
        self._at_step("before committed")
        self._commit_began = self._now()
        self._applied_at_commit = self._applied_events()

    def committed(self, offsets: Mapping[TP, int]) -> None:
        """Note a commit for readiness."""
        self._at_step("after committed")
        self._metrics.stage_seconds.labels("commit").observe(self._now() - self._commit_began)
        left = self._applied_events() - self._applied_at_commit
        self._health.committed(self._now(), still_uncommitted=left)
        for partition in self._partitions.values():
            sweep = None if self._work is None else self._work.sweeps.get(partition.number)
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
        self._table.forget()
        if self._work is not None:
            self._work.forget()
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
        return bool(self.committable())

    def _applied_events(self) -> int:
        return 0 if self._work is None else self._work.applied_events

    async def watch(self) -> None:
        """Tell readiness and metrics how far the worker is, until cancelled."""
        while True:
            try:
                self._recovery.look()
            except RecoveryError as error:
                self._fail(error)
                return
            self._report()
            refusal = self._app.consumer.refusal()
            if refusal is not None and self.failure is None:
                self._fail(
                    WorkerError(
                        f"The broker does not take the worker into its group "
                        f"({type(refusal).__name__}); look at INTEREST_SESSION_TIMEOUT_S and at "
                        "the rights of the user."
                    )
                )
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
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End the worker, with the sentence of an error that is raised on purpose."""
        if isinstance(error, InterestStreamError):
            self._fail(error)
            return
        # The message of an error may name a user: it goes to the debug log only.
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("The lane failed with %s at\n%s", type(error).__name__, where)
        logger.debug("The lane failed", exc_info=error)
        self._fail(
            WorkerError(f"The worker stops at an error of its own ({type(error).__name__}).")
        )

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
            work = self._work = self._work or await self._new_work()
            await consumer.heartbeat()
            self._epochs = await self._ask(topics.epochs, self._settings)
            started = await take_over(
                self._app, self._settings, assigned, fence, self._epochs, self._until
            )
            fence.check()
            for partition in started.values():
                if partition.until is not None:
                    self.intake.end_at(dict(zip(partition.tps, partition.until, strict=True)))
            assert self._changelog is not None
            reached = {number: self.rows.next_offset(number) for number in started}
            last = self._app.tables.recovery.active_highwaters
            for number, offset in reached.items():
                end = last[TP(self._settings.changelog_topic, number)] + 1
                if offset > end:  # it may have grown since the recovery began
                    _, end = await self._read_changelog(number, end)
                check_store(self._settings, offset, end)
            self._changelog.begin(reached)
            for number, partition in started.items():
                partition.markers = self.rows.markers(number)
                check_complete(partition.markers)
                stale = self._table.stale.pop(number, set())
                await self._changelog.restore(number, stale, fence)
                check_size(self.rows.after(number, b"", 1), self._checkpoint.hidden)
                # A batch that is replayed may need rows that expire after it.
                expired_ms = NEVER if partition.replay else partition.swept_ms
                work.sweeps[number] = Sweep(expired_ms, self._checkpoint.hidden)
                work.walks[number] = DueWalk(partition.latest_ms, self._checkpoint)
            self._looks = asyncio.create_task(self._guard(self._look_again(fence)))
            self._partitions = started
            for partition in started.values():
                self._spawn(work.serve(partition, lambda: self._accepting))
            self._resume(assigned)
            self.intake.wake()
        self._report()

    async def _new_work(self) -> Work:
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
            self.rows,
            settings.changelog_topic,
            self._read_changelog,
            self._app.consumer,
            self._metrics.foreign_rows_total.inc,
        )
        committer = Committer(
            sender,
            self.rows,
            self._changelog,
            out,
            letters,
            self._metrics,
            self._at_step,
            packing(settings.output_format, settings.app_id),
        )
        return Work(
            settings,
            self._checkpoint,
            self._metrics,
            self._health,
            self._app.consumer,
            self.intake,
            self.rows,
            self._changelog,
            committer,
            self._at_step,
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
                await self._ask(topics.check_unchanged, self._settings, self._epochs)
                async with reading(self._app, self._settings.changelog_topic) as reader:
                    ends = await reader.ends(self._partitions)
                for partition, end in ends.items():
                    await self._changelog.look(partition, end, fence)
            except (BrokerError, RecoveryError) as error:  # there will be another look
                logger.warning("The topics cannot be looked at now: %s", error)

    @staticmethod
    async def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
        """Ask the broker something in a thread."""
        return await asyncio.get_running_loop().run_in_executor(None, question, *arguments)

    def _resume(self, tps: set[TP]) -> None:
        self._app.consumer.resume_inputs(tps)

    def _report(self) -> None:
        now = self._now()
        is_working = self._fence.is_open and not self._app.rebalancing
        for partition in self._partitions.values():
            if is_working and self._work is not None:
                partition.note_ends(self._work.highwaters(partition))
            for tp, position, end in zip(
                partition.tps, partition.reached, partition.reach, strict=True
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
