"""Consumer records for tests of the lane, and a store of rows in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from model.events import EventType
from stream_app.events import decode_batch
from stream_app.lane.fence import Fence
from stream_app.lane.intake import Poll
from stream_app.lane.partition import Batch, Origin, Partition
from stream_app.lane.sender import Receipt, Record

TOPICS = ("clicks", "searches", "purchases")
START_MS = 1_750_000_000_000


class FakeRecord(NamedTuple):
    """What the lane reads of aiokafka's ConsumerRecord."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()

    @property
    def serialized_value_size(self) -> int:
        return -1 if self.value is None else len(self.value)


def record(event_type: EventType, offset: int, time_s: int, user: str = "ann") -> FakeRecord:
    """A good event at `time_s` seconds after `START_MS`."""
    event: dict[str, Any] = {
        "event_id": f"{event_type.name}-{offset}",
        "user_id": user,
        "timestamp": START_MS + 1000 * time_s,
    }
    if event_type == EventType.CLICK:
        event |= {"item_id": f"item-{offset % 7}", "category": f"category-{offset % 3}"}
    elif event_type == EventType.SEARCH:
        event |= {"query": f"blue shoes {offset % 5}"}
    else:
        event |= {"items": [{"item_id": f"item-{i}"} for i in range(1 + offset % 3)]}
    value = json.dumps(event).encode()
    return FakeRecord(TOPICS[event_type], 0, offset, START_MS, user.encode(), value)


def broken(event_type: EventType, offset: int) -> FakeRecord:
    """A record that is no event."""
    return FakeRecord(TOPICS[event_type], 0, offset, START_MS, b"ann", b"{")


def partition(**changes: Any) -> Partition:
    """The one partition, at the beginning of its topics."""
    options: dict[str, Any] = {
        "number": 0,
        "topics": TOPICS,
        "fence": Fence(1),
        "writer": 1,
        "partitions": 1,
    }
    names = ("start", "maxima", "replay", "swept_ms", "until")
    origin = {key: changes.pop(key) for key in names if key in changes}
    options["origin"] = Origin(**{"start": (0, 0, 0), **origin})
    return Partition(**{**options, **changes})


def add(
    lane: Partition, event_type: EventType, records: list[FakeRecord], fetched_s: float = 0.0
) -> None:
    """Decode records and put them into the partition."""
    events, rejections = decode_batch(
        event_type,
        records,
        partition=0,
        partitions=1,
        future_allowance_ms=10**9,
        max_value_bytes=10**6,
    )
    poll = Poll(list(records), None, records[-1].offset + 1, fetched_s)
    lane.add(event_type, poll, events, rejections)


def batch_of(events: int) -> Batch:
    """A batch of so many clicks."""
    lane = partition()
    add(lane, EventType.CLICK, [record(EventType.CLICK, n, n) for n in range(events)])
    found = lane.next_batch(0.0, 0.0, events)
    assert isinstance(found, Batch)
    return found


class MemoryRows:
    """A store of rows in memory, with the changelog offset of the last write."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.changelog_offset = -1

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        return [self.rows.get(key) for key in keys]

    def write(
        self,
        partition: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        changelog_offset: int,
    ) -> None:
        for key, row in zip(keys, rows, strict=True):
            self.rows.pop(key, None) if row is None else self.rows.update({key: row})
        self.changelog_offset = changelog_offset


class MemoryChangelog:
    """One partition of a changelog in memory, which several writers may append to."""

    def __init__(self) -> None:
        self.records: list[FakeRecord] = []

    async def send(self, topic: str, partition: int, records: Iterable[Record]) -> Receipt:
        found = list(records)
        first = len(self.records)
        for offset, (key, value, _) in enumerate(found, first):
            self.records.append(FakeRecord(topic, partition, offset, START_MS, key, value))
        return Receipt(first, first + len(found) - 1) if found else Receipt()

    async def read_since(self, partition: int, since: int) -> tuple[list[FakeRecord], int]:
        return self.records[since:], len(self.records)

    def last(self) -> dict[bytes | None, bytes | None]:
        """What a recovery would find of each key."""
        return {record.key: record.value for record in self.records}
