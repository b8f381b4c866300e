"""The way out of a batch, in the one order that loses nothing and applies nothing twice.

A crash between two steps leaves the batch to be done again: the journal gives it the same order,
the offsets in the rows tell what was applied, and outputs that come again carry the same ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stream_app.control import RECEIPT_HEADER, Erase, Receipt, encode
from stream_app.dead_letters import DeadLetter
from stream_app.lane.changelog import Changelog
from stream_app.lane.fence import Fence
from stream_app.lane.merge import Triple
from stream_app.lane.recovered_rows import Position
from stream_app.lane.sender import NO_HEADERS, Sends
from stream_app.lane.table import Rows
from stream_app.metrics import Metrics
from stream_app.output_format import Pack, plain

STEPS = ("journal", "outputs", "changelog", "store", "offsets", "committed")
"""`at_step` is told "before <step>" and "after <step>"; "committed" is Faust's offset commit. So it
is of "expiry": expired rows are deleted from the changelog, and then from the store."""

AtStep = Callable[[str], None]


def no_step(name: str) -> None:
    """The default of `at_step`: does nothing."""


@dataclass(frozen=True)
class Topics:
    """Names of the topics that a batch is written to."""

    drift: str
    recommendations: str
    dead_letters: str
    journal: str
    control: str


@dataclass(frozen=True)
class Results:
    """What a batch leaves behind.

    drift, recommendations   (key, value) of the outputs; None for a value deletes
    dead_letters             of the records that were no events
    keys, rows               the rows of all users of the batch, as stored; None deletes
    ends                     per input topic, the offset after the batch's last record
    deleted                  positions of the rows that None takes the place of
    """

    drift: Sequence[tuple[bytes, bytes | None]]
    recommendations: Sequence[tuple[bytes, bytes | None]]
    dead_letters: Sequence[DeadLetter]
    keys: Sequence[bytes]
    rows: Sequence[bytes | None]
    ends: Triple
    deleted: Mapping[bytes, Position] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """Where the last records of a batch stand, -1 where there is none."""

    drift: int = -1
    recommendations: int = -1
    changelog: int = -1


class Committer:
    """Writes batches in the order of the steps. One for all partitions of a worker."""

    def __init__(
        self,
        sender: Sends,
        rows: Rows,
        changelog: Changelog,
        topics: Topics,
        dead_letter_partitions: int,
        metrics: Metrics,
        at_step: AtStep = no_step,
        pack: Pack = plain,
    ) -> None:
        self._sender = sender
        self._rows = rows
        self._changelog = changelog
        self.topics = topics
        self._dead_letter_partitions = dead_letter_partitions
        self._metrics = metrics
        self._at_step = at_step
        self._pack = pack

    async def journal(self, partition: int, entry: bytes, fence: Fence) -> None:
        """Step 0: the entry of the batch is acknowledged. The batch's outputs come after it."""
        await fence.held()
        self._at_step("before journal")
        with self._metrics.time_stage("journal"):
            await self._sender.send(self.topics.journal, partition, [(None, entry, NO_HEADERS)])
        self._at_step("after journal")

    async def confirm(self, partition: int, request: Erase, receipt: Receipt, fence: Fence) -> None:
        """Answer a request of the control topic; compaction then removes it."""
        await fence.held()
        headers = [(RECEIPT_HEADER, encode(receipt))]
        key = request.user_id.encode()
        await self._sender.send(self.topics.control, partition, [(key, None, headers)])

    async def write(
        self,
        partition: int,
        results: Results,
        fence: Fence,
        committable: Callable[[Triple], None],
        before_offsets: Callable[[Written], Awaitable[None]] | None = None,
    ) -> float:
        """Steps 1 to 4; afterwards the offsets may be committed.

        `before_offsets` is awaited between steps 3 and 4. Returns when the outputs were
        acknowledged, in seconds of the wall clock.

        Raises:
            Revoked: the partition was taken away; what is not done stays undone.
            WorkerError: a topic refuses writes.
        """
        with self._metrics.time_stage("outputs"):
            drift, recommendations = await self._outputs(partition, results, fence)
        acknowledged_s = time.time()
        reached = -1
        if results.rows:
            async with self._changelog.lock(partition):
                with self._metrics.time_stage("changelog"):
                    reached = await self._append(partition, results, fence)
                await fence.held()
                with self._metrics.time_stage("store"):
                    self._store(partition, results, reached)
        if before_offsets is not None:
            await before_offsets(Written(drift, recommendations, reached))
        fence.check()
        self._at_step("before offsets")
        committable(results.ends)
        self._at_step("after offsets")
        return acknowledged_s

    async def _outputs(self, partition: int, results: Results, fence: Fence) -> tuple[int, int]:
        """Step 1: outputs and dead letters are acknowledged."""
        await fence.held()
        self._at_step("before outputs")
        topics, send = self.topics, self._sender.send
        drift = self._pack("drift", results.drift)
        recommendations = self._pack("recommendation", results.recommendations)
        letters = [(letter.key, letter.value, letter.headers) for letter in results.dead_letters]
        of_drift, of_recommendations, _ = await asyncio.gather(
            send(topics.drift, partition, drift),
            send(topics.recommendations, partition, recommendations),
            send(topics.dead_letters, partition % self._dead_letter_partitions, letters),
        )
        self._at_step("after outputs")
        return of_drift.last, of_recommendations.last

    async def _append(self, partition: int, results: Results, fence: Fence) -> int:
        """Step 2: the rows are acknowledged by the changelog; the offset that they reach."""
        await fence.held()
        self._at_step("before changelog")
        reached = await self._changelog.append(
            partition, results.keys, results.rows, fence, results.deleted
        )
        self._at_step("after changelog")
        return reached

    def _store(self, partition: int, results: Results, reached: int) -> None:
        """Step 3: the rows are in the local store, with the changelog offset that they reach."""
        self._at_step("before store")
        self._rows.write(partition, results.keys, results.rows, reached)
        self._at_step("after store")
