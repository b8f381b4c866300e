"""The rows of a worker go to the changelog and the store, and stay the last ones there.

A worker that was stopped may wake up and append rows that are older than ours, and the last record
of a key wins at a recovery. So the base offset of each acknowledged batch must follow our last one.
Where it does not, another has written: what stands between is read, and where the last record of a
user is not our row, our row is appended again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from stream_app.lane.fence import Fence
from stream_app.lane.sender import NO_HEADERS, Sends
from stream_app.lane.table import Rows

logger = logging.getLogger(__name__)

ReadSince = Callable[[int, int], Awaitable[tuple[Sequence[Any], int]]]
"""Partition and offset to the records from there on, and the offset that the next one will get."""


class Membership(Protocol):
    """Asks the coordinator whether this worker is still a member of its group."""

    async def heartbeat(self) -> None:
        """Send a heartbeat now; an answer renews the lease or ends the assignment."""
        ...


class Changelog:
    """The changelog of the rows, of which this worker is the one writer in its partitions.

    Args:
        sender, rows, topic: where rows go: the producer, the local store, the changelog's name.
        read_since: reads a partition of the changelog.
        membership: of the group.
        on_foreign: told how many records of another writer were put right.
    """

    def __init__(
        self,
        sender: Sends,
        rows: Rows,
        topic: str,
        read_since: ReadSince,
        membership: Membership,
        on_foreign: Callable[[int], None],
    ) -> None:
        self._sender = sender
        self._rows = rows
        self._topic = topic
        self._read_since = read_since
        self._membership = membership
        self._on_foreign = on_foreign
        self._next: dict[int, int] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    def begin(self, next_offsets: Mapping[int, int]) -> None:
        """Begin an assignment: per partition, the offset after the last record in the store."""
        self._next = dict(next_offsets)
        self._locks = {partition: asyncio.Lock() for partition in next_offsets}

    def lock(self, partition: int) -> asyncio.Lock:
        """Held from the append to the write of the store; a look in between would see neither."""
        return self._locks.setdefault(partition, asyncio.Lock())

    async def append(
        self, partition: int, keys: Sequence[bytes], rows: Sequence[bytes | None], fence: Fence
    ) -> int:
        """Append rows (None: no row any more) and return the changelog offset that they reach.

        Raises:
            Revoked: another worker has the partition.
            WorkerError: the changelog refuses them.
        """
        records = [(key, row, NO_HEADERS) for key, row in zip(keys, rows, strict=True)]
        receipt = await self._sender.send(self._topic, partition, records)
        due = self._next.get(partition, receipt.first)
        reached = receipt.last
        if reached != due + len(records) - 1:
            ours = dict(zip(keys, rows, strict=True))
            reached = await self._put_right(partition, due, ours, fence)
        self._next[partition] = reached + 1
        return reached

    async def look(self, partition: int, end: int, fence: Fence) -> None:
        """Put right what another has written since our last record, when there is any.

        `end` is an offset below which the partition has records, as a broker told it.
        """
        async with self.lock(partition):
            due = self._next[partition]
            if end <= due:
                return
            reached = await self._put_right(partition, due, {}, fence)
            await fence.held()
            self._rows.write(partition, [], [], reached)
            self._next[partition] = reached + 1

    async def _put_right(
        self, partition: int, since: int, ours: Mapping[bytes, bytes | None], fence: Fence
    ) -> int:
        """Append our rows where the last record since an offset is not ours; the offset reached."""
        while True:
            # The writer in between may be the one that the partition was given to.
            await self._membership.heartbeat()
            await fence.held()
            records, end = await self._read_since(partition, since)
            last = {record.key: record.value for record in records}
            keys = [key for key in last if key not in ours]
            stored = dict(zip(keys, self._rows.read(partition, keys), strict=True))
            wanted = {**stored, **ours}
            wrong = [key for key, value in last.items() if value != wanted[key]]
            if not wrong:
                return end - 1
            logger.warning(
                "Another worker has written to partition %d of %s; %d rows are sent again",
                partition,
                self._topic,
                len(wrong),
            )
            self._on_foreign(len(wrong))
            await self._sender.send(
                self._topic, partition, [(key, wanted[key], NO_HEADERS) for key in wrong]
            )
            since = end
