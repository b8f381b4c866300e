"""How much the lane holds of each topic partition, and when the consumer has to stop giving.

A full queue of Faust's would block every partition, so none ever fills: the consumer pauses a
partition that holds enough, and the lane lets it go on when a batch's worth is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from faust.types import TP

MAX_HELD_BYTES = 16 * 1024 * 1024
"""Of one topic partition: records of a megabyte each count by their size, not their number."""


@dataclass(frozen=True)
class Poll:
    """Records that one poll gave of a topic partition.

    start      the consumer's position before, None where it had none
    end        and after: control records move it, too
    fetched_s  when it gave them, in seconds of the wall clock
    """

    records: list[Any]
    start: int | None
    end: int
    fetched_s: float


def size_bytes(records: list[Any]) -> int:
    """Bytes of the values of consumer records."""
    return sum(record.serialized_value_size for record in records)


@dataclass
class _Held:
    records: int = 0
    size_bytes: int = 0
    wanted: int = 0  # records that a replayed batch needs together


class Intake:
    """Counts what is between the consumer and the merge, per topic partition.

    Args:
        batch_records: the largest batch; at most two of them are held of a topic partition.
        resume: tells the consumer to fetch a partition again.
    """

    def __init__(self, batch_records: int, resume: Callable[[set[TP]], None]) -> None:
        self._batch_records = batch_records
        self._resume = resume
        self._held: dict[TP, _Held] = {}
        self._paused: set[TP] = set()
        self._until: dict[TP, int] = {}
        self._reached: set[TP] = set()
        self._resumed = asyncio.Event()

    @property
    def paused(self) -> frozenset[TP]:
        """Partitions that the consumer must not fetch now."""
        return frozenset(self._paused)

    def end_at(self, until: Mapping[TP, int]) -> None:
        """Hand on nothing at or beyond these offsets."""
        self._until.update(until)

    def within(self, tp: TP, poll: Poll) -> Poll:
        """The part of a poll that lies before the offset where the partition ends."""
        until = self._until.get(tp)
        if until is None or poll.end < until:
            return poll
        self._reached.add(tp)
        records = [record for record in poll.records if record.offset < until]
        return replace(poll, records=records, end=until)

    def give(self, tp: TP, records: list[Any]) -> bool:
        """Count records that the consumer hands on; true when it has to pause the partition.

        As a poll gives at most one batch, pausing above one batch holds two at most.
        """
        held = self._held.setdefault(tp, _Held())
        held.records += len(records)
        held.size_bytes += size_bytes(records)
        if tp in self._reached or self._is_full(held):
            self._paused.add(tp)
            return True
        return False

    def take(self, tp: TP, records: int, size_bytes: int) -> None:
        """Count records off that are merged, and let a drained partition go on."""
        held = self._held[tp]
        held.records -= records
        held.size_bytes -= size_bytes
        self._let_go(tp, held)

    def want(self, tp: TP, records: int) -> None:
        """A batch of the journal needs this many records together: hold no fewer."""
        held = self._held.setdefault(tp, _Held())
        held.wanted = records
        self._let_go(tp, held)

    def wake(self) -> None:
        """Partitions were resumed: the consumer need not wait any longer."""
        self._resumed.set()

    def forget(self) -> None:
        """Start anew: the partitions were revoked, and what was held of them is gone."""
        self._held.clear()
        self._paused.clear()
        self._until.clear()
        self._reached.clear()
        self.wake()

    async def wait_until_resumed(self, timeout_s: float) -> None:
        """Wait until a paused partition may go on, at most `timeout_s` seconds."""
        self._resumed.clear()
        try:
            await asyncio.wait_for(self._resumed.wait(), timeout_s)
        except asyncio.TimeoutError:
            return

    def _is_full(self, held: _Held) -> bool:
        if held.records <= held.wanted:
            return False
        return held.records > self._batch_records or held.size_bytes > MAX_HELD_BYTES

    def _let_go(self, tp: TP, held: _Held) -> None:
        if tp in self._paused and tp not in self._reached and not self._is_full(held):
            self._paused.discard(tp)
            self._resume({tp})
            self.wake()
