"""The rows of a worker go to the changelog and the store, and stay the last ones there.

A worker that was stopped may wake up and append rows that are older than ours, and the last record
of a key wins at a recovery. So the base offset of each acknowledged batch must follow our last one.
Where it does not, another has written: what stands between is read, and where the last record of a
user is not our row, our row is appended again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from stream_app.lane.fence import Fence
from stream_app.lane.recovered_rows import (
    POSITION_HEADER,
    Position,
    encode_position,
    position_of,
)
from stream_app.lane.sender import NO_HEADERS, Header, Record, Sends
from stream_app.lane.stored_rows import is_marker
from stream_app.lane.table import Rows

logger = logging.getLogger(__name__)

NOTHING: Mapping[bytes, Position] = {}
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
        self,
        partition: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        fence: Fence,
        deleted: Mapping[bytes, Position] = NOTHING,
    ) -> int:
        """Append rows (None: no row any more) and return the changelog offset that they reach.

        `deleted` has the positions of the rows that None takes the place of.

        Raises:
            Revoked: another worker has the partition.
            WorkerError: the changelog refuses them.
        """
        records = [
            (key, row, NO_HEADERS if row is not None else _header(deleted.get(key)))
            for key, row in zip(keys, rows, strict=True)
        ]
        receipt = await self._sender.send(self._topic, partition, records)
        due = self._next.get(partition, receipt.first)
        reached = receipt.last
        if reached != due + len(records) - 1:
            ours = dict(zip(keys, rows, strict=True))
            reached = await self._put_right(partition, due, ours, fence)
        self._next[partition] = reached + 1
        return reached

    async def restore(self, partition: int, keys: Collection[bytes], fence: Fence) -> None:
        """Append our rows of users whose last record a recovery has found to be older."""
        if not keys:
            return
        async with self.lock(partition):
            await fence.held()
            found = list(keys)
            rows = self._rows.read(partition, found)
            logger.warning(
                "Partition %d of %s ends with %d rows older than ours, which are sent again",
                partition,
                self._topic,
                len(found),
            )
            self._on_foreign(len(found))
            reached = await self.append(partition, found, rows, fence)
            await fence.held()
            self._rows.write(partition, [], [], reached)

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
            await self._send(partition, {key: wanted[key] for key in wrong}, last)
            since = end

    async def _send(
        self,
        partition: int,
        rows: Mapping[bytes, bytes | None],
        replaced: Mapping[bytes, bytes | None],
    ) -> None:
        """Send rows again; one that is deleted carries the position of what stands in its place."""
        records: list[Record] = []
        for key, row in rows.items():
            stale = replaced.get(key)
            gone = row is None and stale is not None and not is_marker(key)
            records.append(
                (key, row, _header(position_of(stale)) if gone and stale else NO_HEADERS)
            )
        await self._sender.send(self._topic, partition, records)


def _header(position: Position | None) -> list[Header]:
    if position is None:
        return NO_HEADERS
    return [(POSITION_HEADER, encode_position(position))]
