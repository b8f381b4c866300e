"""The intake: at most two batches of a partition are held, and a drained one goes on."""

from __future__ import annotations

import asyncio

from faust.types import TP

from model.events import EventType
from stream_app.lane.intake import MAX_HELD_BYTES, Intake, Poll
from tests.unit.lane_records import FakeRecord, record

A, B = TP("clicks", 0), TP("clicks", 1)


def records(count: int) -> list[FakeRecord]:
    return [record(EventType.CLICK, i, i) for i in range(count)]


def test_pauses_above_one_batch_and_resumes_at_one() -> None:
    resumed: list[set[TP]] = []
    intake = Intake(10, resumed.append)
    assert not intake.give(A, records(10))
    assert intake.give(A, records(10)), "two batches are held now"
    assert intake.paused == {A}
    intake.take(A, 9, 0)
    assert resumed == []
    intake.take(A, 1, 0)
    assert resumed == [{A}]
    assert intake.paused == frozenset()


def test_partitions_do_not_pause_each_other() -> None:
    intake = Intake(10, lambda _tps: None)
    intake.give(A, records(11))
    assert not intake.give(B, records(5))
    assert intake.paused == {A}


def test_large_records_count_by_their_size() -> None:
    intake = Intake(1000, lambda _tps: None)
    huge = record(EventType.CLICK, 0, 0)._replace(value=bytes(MAX_HELD_BYTES + 1))
    assert intake.give(A, [huge])


def test_a_batch_of_the_journal_that_is_larger_comes_in_whole() -> None:
    resumed: list[set[TP]] = []
    intake = Intake(10, resumed.append)
    intake.give(A, records(15))
    intake.want(A, 40)
    assert resumed == [{A}]
    assert not intake.give(A, records(25))
    intake.want(A, 0)
    assert intake.give(A, records(1))


def test_forgets_a_revoked_assignment() -> None:
    intake = Intake(10, lambda _tps: None)
    intake.give(A, records(11))
    intake.forget()
    assert intake.paused == frozenset()
    assert not intake.give(A, records(10))


async def test_waiting_ends_with_a_resume_or_in_time() -> None:
    intake = Intake(1, lambda _tps: None)
    intake.give(A, records(2))
    await intake.wait_until_resumed(0.001)
    waiting = asyncio.create_task(intake.wait_until_resumed(60))
    await asyncio.sleep(0)
    intake.take(A, 1, 0)
    await waiting


def test_nothing_is_handed_on_beyond_the_bound() -> None:
    resumed: list[set[TP]] = []
    intake = Intake(10, resumed.append)
    intake.end_at({A: 3})
    first, rest = Poll(records(2), 0, 2, 0.0), Poll(records(6)[2:], 2, 6, 0.0)
    assert intake.within(A, first) == first
    assert not intake.give(A, first.records)
    cut = intake.within(A, rest)
    assert ([one.offset for one in cut.records], cut.start, cut.end) == ([2], 2, 3)
    assert intake.give(A, cut.records), "it is not fetched any more"
    intake.take(A, 3, 0)
    assert resumed == []
    assert intake.within(B, rest) == rest
