"""One writer: what another worker appends to the changelog is put right, unless it is the owner."""

from __future__ import annotations

import pytest

from stream_app.lane.changelog import Changelog
from stream_app.lane.fence import Fence, Lease, Revoked
from tests.unit.lane_records import MemoryChangelog, MemoryRows


class Group:
    """The coordinator as a worker sees it: says yes while it is a member."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lease = Lease(10.0, clock)
        self.fence = Fence(1, self.lease.holds)
        self.is_member = True
        self.lease.renew(0.0)

    async def heartbeat(self) -> None:
        if self.is_member:
            self.lease.renew(self.clock.now)
        else:
            self.fence.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """One of several workers that write to the same partition, with a store of its own."""

    def __init__(self, topic: MemoryChangelog) -> None:
        self.topic = topic
        self.clock = Clock()
        self.group = Group(self.clock)
        self.rows = MemoryRows()
        self.foreign = 0
        self.changelog = Changelog(
            topic, self.rows, "changelog", topic.read_since, self.group, self._count
        )
        self.recover()

    def _count(self, rows: int) -> None:
        self.foreign += rows

    def recover(self) -> None:
        last = self.topic.last()
        self.rows.rows = {key: row for key, row in last.items() if key and row is not None}
        self.changelog.begin({0: len(self.topic.records)})

    async def write(self, **rows: bytes | None) -> None:
        keys = [name.encode() for name in rows]
        values = list(rows.values())
        async with self.changelog.lock(0):
            reached = await self.changelog.append(0, keys, values, self.group.fence)
            self.rows.write(0, keys, values, reached)


@pytest.fixture
def topic() -> MemoryChangelog:
    return MemoryChangelog()


async def test_a_single_writer_reads_nothing(topic: MemoryChangelog) -> None:
    one = Worker(topic)

    async def fail(partition: int, since: int) -> tuple[list[object], int]:
        raise AssertionError("nothing is to be read")

    one.changelog._read_since = fail
    await one.write(ann=b"1", bob=b"1")
    await one.write(ann=b"2")
    assert one.rows.changelog_offset == 2
    await one.changelog.look(0, 3, one.group.fence)
    await one.changelog.look(0, 2, one.group.fence)  # the embedded broker may tell less


async def test_stale_rows_are_followed_by_ours(topic: MemoryChangelog) -> None:
    zombie = Worker(topic)
    await zombie.write(ann=b"1", bob=b"1")
    owner = Worker(topic)
    await owner.write(ann=b"2")
    await topic.send("changelog", 0, [(b"ann", b"stale", []), (b"bob", b"1", [])])
    await owner.write(bob=b"2")
    assert topic.last() == {b"ann": b"2", b"bob": b"2"}
    assert owner.foreign == 1
    assert owner.rows.changelog_offset == len(topic.records) - 1
    await owner.write(ann=b"3")
    assert owner.foreign == 1, "put right once"


async def test_between_two_batches_of_one_append(topic: MemoryChangelog) -> None:
    owner = Worker(topic)
    send = topic.send

    async def interleaved(name: str, partition: int, records: object) -> object:
        ann, bob = list(records)  # type: ignore[call-overload]
        first = await send(name, partition, [ann])
        await send(name, partition, [(b"ann", b"stale", [])])
        last = await send(name, partition, [bob])
        topic.send = send  # type: ignore[method-assign]
        return type(first)(first.first, last.last)

    topic.send = interleaved  # type: ignore[method-assign, assignment]
    await owner.write(ann=b"1", bob=b"1")
    assert topic.last() == {b"ann": b"1", b"bob": b"1"}


async def test_a_stale_row_of_a_user_unknown_to_us_is_deleted(topic: MemoryChangelog) -> None:
    owner = Worker(topic)
    await topic.send("changelog", 0, [(b"eve", b"stale", [])])
    await owner.write(ann=b"1")
    assert topic.last() == {b"eve": None, b"ann": b"1"}


async def test_a_deleted_row_stays_deleted(topic: MemoryChangelog) -> None:
    owner = Worker(topic)
    await owner.write(ann=b"1")
    await topic.send("changelog", 0, [(b"ann", b"1", [])])
    await owner.write(ann=None)
    assert topic.last() == {b"ann": None}
    assert owner.rows.rows == {}


async def test_a_look_finds_them_without_a_write_of_ours(topic: MemoryChangelog) -> None:
    owner = Worker(topic)
    await owner.write(ann=b"1")
    await topic.send("changelog", 0, [(b"ann", b"stale", [])])
    await owner.changelog.look(0, 2, owner.group.fence)
    assert topic.last() == {b"ann": b"1"}
    assert owner.rows.changelog_offset == 2
    await owner.write(ann=b"2")
    assert owner.foreign == 1


async def test_the_worker_that_woke_up_gives_way(topic: MemoryChangelog) -> None:
    zombie = Worker(topic)
    await zombie.write(ann=b"1")
    owner = Worker(topic)
    await owner.write(ann=b"2")
    zombie.group.is_member = False
    zombie.clock.now = 60.0  # it slept
    with pytest.raises(Revoked):
        await zombie.write(ann=b"stale")
    assert zombie.rows.rows == {b"ann": b"1"}, "nothing is stored"
    await owner.write(bob=b"2")
    assert topic.last() == {b"ann": b"2", b"bob": b"2"}


async def test_a_lease_that_ran_out_holds_up_until_a_heartbeat_is_answered() -> None:
    clock = Clock()
    group = Group(clock)
    await group.fence.held()
    clock.now = 10.0
    assert not group.lease.holds()
    await group.heartbeat()
    await group.fence.held()
    clock.now = 30.0
    group.is_member = False
    await group.heartbeat()
    with pytest.raises(Revoked):
        await group.fence.held()


def test_a_heartbeat_counts_from_when_it_was_sent() -> None:
    clock = Clock()
    lease = Lease(10.0, clock)
    clock.now = 60.0
    lease.renew(0.0)  # sent before the sleep, answered after it
    assert not lease.holds()
