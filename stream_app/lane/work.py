"""What is done with one partition of an assignment: batches, erasures, and rows that expire.

Each partition has a task of its own, which goes decode, merge, read, transition, encode, commit,
and begins its next batch when this one is committed. So the order of a partition is exact, and
while one partition waits for acknowledgements another computes. Partitions begin in waves, and no
batch begins while enough events are on their way, see flight.py; batches that wait to be computed
at the same time are computed together, see turns.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from faust.types import TP

from model.checkpoint import Checkpoint
from stream_app.events import decode_batch
from stream_app.health import WorkerHealth
from stream_app.lane.changelog import Changelog
from stream_app.lane.commit import AtStep, Committer, Written
from stream_app.lane.compute import Computed, Todo, compute, damage_told
from stream_app.lane.due_walk import WALK_ROWS, DueWalk
from stream_app.lane.erasure import erase, is_done, receipt
from stream_app.lane.flight import Flight
from stream_app.lane.intake import Intake
from stream_app.lane.journal import encode
from stream_app.lane.merge import Triple
from stream_app.lane.partition import Batch, Erasure, Partition
from stream_app.lane.scoring import Scoring
from stream_app.lane.sweep import SLICE_ROWS, Sweep
from stream_app.lane.table import RowTable
from stream_app.lane.turns import Turns
from stream_app.metrics import Metrics
from stream_app.settings import Settings

BATCHES_UNDER_WAY = 2
"""While so many of the largest size are, no other begins. One would leave the processor idle now
and then, for want of a batch that does not wait for the broker."""
WALK_PAUSE_S = 2.0
"""Between two slices of a walk: together they take about a thousandth of the time."""


class Work:
    """Serves the partitions of a worker.

    committable      per topic partition, the offset after the last record that is wholly applied
    applied_events   since the worker began
    sweeps           per partition, how far expired rows are deleted
    walks            per partition, how far the due predictions are counted

    Args:
        settings, checkpoint, metrics, health: of the worker.
        consumer: Faust's, which knows ends and committed offsets.
        intake: counts what is held.
        rows, changelog, committer: where batches go.
        at_step: told the steps of an expiry; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        checkpoint: Checkpoint,
        metrics: Metrics,
        health: WorkerHealth,
        consumer: Any,
        intake: Intake,
        rows: RowTable,
        changelog: Changelog,
        committer: Committer,
        at_step: AtStep,
    ) -> None:
        self._settings = settings
        self._checkpoint = checkpoint
        self._metrics = metrics
        self._health = health
        self._consumer = consumer
        self._intake = intake
        self._rows = rows
        self._changelog = changelog
        self._committer = committer
        self._at_step = at_step
        self._topics = settings.input_topics
        self._flight = Flight(BATCHES_UNDER_WAY * settings.max_batch_events)
        self._turns = Turns(self._compute, settings.max_batch_events)
        self._busy_s = 0.0
        self.committable: dict[TP, int] = {}
        self.applied_events = 0
        self.sweeps: dict[int, Sweep] = {}
        self.walks: dict[int, DueWalk] = {}
        self._walked: dict[int, float] = {}
        self._scoring = Scoring(checkpoint, metrics)

    @property
    def is_busy(self) -> bool:
        """Whether a batch is on its way."""
        return not self._flight.is_empty

    def forget(self) -> None:
        """The assignment has ended."""
        self.committable.clear()
        self.sweeps.clear()
        self.walks.clear()
        self._walked.clear()
        self._scoring.forget()

    async def serve(self, partition: Partition, accepts: Callable[[], bool]) -> None:
        """Work on a partition until its assignment ends, or no other batch is to begin."""
        settings = self._settings
        wait_s = settings.merge_wait_ms / 1000
        while True:
            await self._flight.room()
            if not (accepts() and partition.fence.is_open):
                return
            began = time.monotonic()
            partition.arrived.clear()
            self._decode(partition)
            partition.note_ends(self.highwaters(partition))
            with self._metrics.time_stage("merge"):
                idle = began - self._busy_s
                found = partition.next_batch(idle, wait_s, settings.max_batch_events)
            self._busy_s += time.monotonic() - began
            if isinstance(found, Batch):
                with self._flight.of(len(found.events)):
                    await self._apply(partition, found)
                await self._sweep(partition)
                self._walk(partition)
                await asyncio.sleep(0)
            elif isinstance(found, Erasure):
                await self._erase(partition, found)
            elif await self._sweep(partition):
                await asyncio.sleep(0)  # a store has many slices, and others wait
            else:
                self._want(partition)
                if self._walk(partition):
                    found = WALK_PAUSE_S if found is None else min(found, WALK_PAUSE_S)
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
                    future_allowance_ms=settings.future_allowance_ms,
                    max_value_bytes=settings.max_event_bytes,
                )
                partition.add(topic, poll, events, rejections)

    async def _apply(self, partition: Partition, batch: Batch) -> None:
        began_s = time.time()
        for tp, (records, size) in zip(partition.tps, batch.sizes, strict=True):
            if records:
                self._intake.take(tp, records, size)
        journal: asyncio.Task[None] | None = None
        if not batch.replayed:
            journal = asyncio.create_task(
                self._committer.journal(partition.number, encode(batch.entry), partition.fence)
            )
        try:
            todo = Todo(batch, partition.number, partition.ends, partition.markers)
            computed = await self._turns.compute(todo, partition.fence)
            if journal is not None:
                await journal
        except BaseException:
            if journal is not None:
                journal.cancel()
                await asyncio.gather(journal, return_exceptions=True)
            raise

        def committable(ends: Triple) -> None:
            self.committable.update(zip(partition.tps, ends, strict=True))
            self.applied_events += len(batch.events)
            self._health.applied(len(batch.events), time.monotonic())

        acknowledged_s = await self._committer.write(
            partition.number, computed.results, partition.fence, committable
        )
        # Not what has expired since: that is decided when the next entry is in the journal.
        self.sweeps[partition.number].note(batch.entry.swept_ms)
        computed.count(self._metrics, began_s, acknowledged_s)
        self._score(partition, computed)

    def _score(self, partition: Partition, computed: Computed) -> None:
        """Count what the batch says of earlier lists and predictions."""
        walk = self.walks[partition.number]
        if computed.scorable is not None:
            self._scoring.count_lists(computed.scorable)
        scored = computed.scored
        if scored is not None and len(scored):
            new = np.flatnonzero(walk.is_new(scored.due_s, computed.scored_users))
            self._scoring.count_predictions(scored.take(new))
        walk.note(max(computed.batch.entry.after))

    async def _compute(self, todos: Sequence[Todo]) -> list[Computed]:
        self._flight.depart()
        return await compute(
            todos,
            self._topics,
            self._rows,
            self._checkpoint,
            self._stage,
            self._settings.dead_letter_max_bytes,
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Times a stage, in which nothing else is done."""
        began = time.monotonic()
        try:
            with self._metrics.time_stage(name):
                yield
        finally:
            self._busy_s += time.monotonic() - began

    async def _erase(self, partition: Partition, erasure: Erasure) -> None:
        """Erase a user: journal, tombstones, marker, receipt, and then the request's offset."""
        entry, request = erasure.entry, erasure.request
        control = TP(self._settings.control_topic, partition.number)
        if request is None:  # its receipt has been written
            self.committable[control] = erasure.offset + 1
            return
        if not erasure.replayed:
            await self._committer.journal(partition.number, encode(entry), partition.fence)
        partition.fence.check()
        had_row: bool | None = None  # of one that is done, nobody knows any more
        if not is_done(entry, partition.markers):
            had_row = self._rows.read(partition.number, [request.user_id.encode()]) != [None]
        erased = erase(entry, request, partition.markers)

        async def confirm(written: Written) -> None:
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
            self.committable[control] = erasure.offset + 1

        await self._committer.write(
            partition.number, erased.results, partition.fence, committable, confirm
        )
        self._metrics.erased_users_total.inc()
        self._scoring.erase(request.user_id.encode())

    async def _sweep(self, partition: Partition) -> bool:
        """Delete a slice of the rows that have expired; whether there are more to look at."""
        sweep = self.sweeps.get(partition.number)
        if sweep is None or sweep.is_done:
            return False
        found = self._rows.after(partition.number, sweep.position, SLICE_ROWS)
        committed = self._consumer._committed_offset
        with damage_told():
            expired = sweep.next_expired(
                found, [committed[tp] or 0 for tp in partition.tps], partition.epochs
            )
        if expired:
            keys, gone = list(expired), [None] * len(expired)
            async with self._changelog.lock(partition.number):
                await partition.fence.held()
                fence = partition.fence
                self._at_step("before expiry")
                reached = await self._changelog.append(partition.number, keys, gone, fence, expired)
                await fence.held()
                self._at_step("after expiry")
                self._rows.write(partition.number, keys, gone, reached)
            self._metrics.expired_rows_total.inc(len(keys))
        return not sweep.is_done

    def _walk(self, partition: Partition) -> bool:
        """Count what is due in a slice of the rows, when it is time; whether a walk goes on."""
        walk, now = self.walks.get(partition.number), time.monotonic()
        if walk is None or walk.is_done:
            return False
        if now >= self._walked.get(partition.number, 0.0) + WALK_PAUSE_S:
            self._walked[partition.number] = now
            found = self._rows.after(partition.number, walk.position, WALK_ROWS)
            with damage_told():
                scored = walk.next_due(found)
            self._scoring.count_predictions(scored)
        return not walk.is_done

    def highwaters(self, partition: Partition) -> list[int | None]:
        """The ends of the input topics, as far as the fetches have told."""
        return [self._consumer.known_end(tp) for tp in partition.tps]

    def _want(self, partition: Partition) -> None:
        """A batch of the journal may be larger than batches are now: let all of it come in."""
        entry = partition.replay[0] if partition.replay else None
        for topic, tp in enumerate(partition.tps):
            self._intake.want(tp, entry.end[topic] - entry.start[topic] if entry else 0)
