"""One partition: what may be applied next, what is waited for, and what the journal repeats."""

from __future__ import annotations

import pytest

from model.events import EventType
from stream_app.errors import WorkerError
from stream_app.events import decode_batch
from stream_app.lane.intake import Poll
from stream_app.lane.journal import JournalEntry
from stream_app.lane.merge import NO_MAXIMA
from stream_app.lane.partition import Batch, Partition
from tests.unit.lane_records import START_MS, add, broken, partition, record

CLICK, SEARCH, PURCHASE = EventType
WAIT_S = 0.2


def take(lane: Partition, now: float = 0.0, limit: int = 100) -> Batch:
    batch = lane.next_batch(now, WAIT_S, limit)
    assert isinstance(batch, Batch)
    return batch


def ids(batch: Batch) -> list[str]:
    return [event.event_id for event in batch.events]


def test_takes_what_is_there_in_the_order_of_the_event_times() -> None:
    lane = partition()
    add(lane, CLICK, [record(CLICK, 0, 5), record(CLICK, 1, 9)])
    add(lane, SEARCH, [record(SEARCH, 0, 7)])
    batch = take(lane)
    assert ids(batch) == ["CLICK-0", "SEARCH-0", "CLICK-1"]
    assert batch.entry.start == (0, 0, 0)
    assert batch.entry.end == (2, 1, 0)
    assert not batch.replayed
    assert lane.position == (2, 1, 0)
    assert lane.next_batch(0.0, WAIT_S, 100) is None


def test_is_cut_at_the_limit_and_goes_on() -> None:
    lane = partition()
    add(lane, CLICK, [record(CLICK, i, i) for i in range(5)])
    assert ids(take(lane, limit=3)) == ["CLICK-0", "CLICK-1", "CLICK-2"]
    batch = take(lane, limit=3)
    assert ids(batch) == ["CLICK-3", "CLICK-4"]
    assert (batch.entry.start, batch.entry.end) == ((3, 0, 0), (5, 0, 0))


def test_a_batch_knows_when_each_event_was_fetched() -> None:
    lane = partition()
    add(lane, CLICK, [record(CLICK, 0, 5), broken(CLICK, 1)], fetched_s=1.0)
    add(lane, CLICK, [record(CLICK, 2, 9), record(CLICK, 3, 10)], fetched_s=2.0)
    add(lane, SEARCH, [record(SEARCH, 0, 7)], fetched_s=3.0)
    assert take(lane, limit=4).fetched_s.tolist() == [1.0, 3.0, 2.0]
    assert take(lane).fetched_s.tolist() == [2.0]


def test_an_idle_topic_never_stalls() -> None:
    lane = partition()
    lane.note_ends([1, 0, 0])
    add(lane, CLICK, [record(CLICK, 0, 5)])
    assert ids(take(lane)) == ["CLICK-0"]


def test_a_topic_with_more_records_is_waited_for_but_not_for_ever() -> None:
    lane = partition()
    lane.note_ends([1, 4, 0])
    add(lane, CLICK, [record(CLICK, 0, 5)])
    assert lane.next_batch(10.0, WAIT_S, 100) == pytest.approx(WAIT_S)
    left = lane.next_batch(10.15, WAIT_S, 100)
    assert isinstance(left, float)
    assert 0.04 < left < 0.06
    assert ids(take(lane, now=10.2)) == ["CLICK-0"]
    # Given up: it is not waited for again before it gives something.
    add(lane, CLICK, [record(CLICK, 1, 6)])
    assert ids(take(lane, now=10.21)) == ["CLICK-1"]
    add(lane, SEARCH, [record(SEARCH, 0, 1)])
    assert ids(take(lane, now=10.22)) == ["SEARCH-0"]
    add(lane, CLICK, [record(CLICK, 2, 7)])
    assert lane.next_batch(10.23, WAIT_S, 100) == pytest.approx(WAIT_S)


def test_waiting_ends_when_the_awaited_record_comes() -> None:
    lane = partition()
    lane.note_ends([1, 1, 0])
    add(lane, CLICK, [record(CLICK, 0, 5)])
    assert lane.next_batch(10.0, WAIT_S, 100) == pytest.approx(WAIT_S)
    add(lane, SEARCH, [record(SEARCH, 0, 4)])
    assert ids(take(lane, now=10.1)) == ["SEARCH-0", "CLICK-0"]


def test_a_refused_record_is_covered_by_the_offsets() -> None:
    lane = partition()
    add(lane, CLICK, [record(CLICK, 0, 5), broken(CLICK, 1), record(CLICK, 2, 6)])
    batch = take(lane)
    assert ids(batch) == ["CLICK-0", "CLICK-2"]
    assert batch.offset.tolist() == [0, 2]
    assert [refused.record.offset for refused in batch.refused] == [1]
    assert batch.entry.end == (3, 0, 0)


def test_a_batch_of_refused_records_alone_moves_the_offsets() -> None:
    lane = partition()
    add(lane, PURCHASE, [broken(PURCHASE, 0)])
    batch = take(lane)
    assert batch.events == []
    assert batch.entry.end == (0, 0, 1)


def test_the_journal_is_followed_before_anything_new() -> None:
    """Live, the search came too late for its place; the journal puts it there again."""
    first = JournalEntry(7, 1, (0, 0, 0), (2, 0, 0), NO_MAXIMA, (START_MS + 9000, *NO_MAXIMA[1:]))
    second = JournalEntry(7, 1, (2, 0, 0), (2, 1, 0), first.after, NO_MAXIMA)
    lane = partition(replay=[first, second])
    add(lane, CLICK, [record(CLICK, 0, 5)])
    assert lane.next_batch(0.0, WAIT_S, 1) is None, "the batch is not complete yet"
    add(lane, CLICK, [record(CLICK, 1, 9), record(CLICK, 2, 10)])
    add(lane, SEARCH, [record(SEARCH, 0, 7)])
    batch = take(lane, limit=1)
    assert ids(batch) == ["CLICK-0", "CLICK-1"]
    assert batch.replayed
    assert batch.entry == first
    assert ids(take(lane, limit=1)) == ["SEARCH-0"]
    fresh = take(lane)
    assert ids(fresh) == ["CLICK-2"]
    assert not fresh.replayed
    assert fresh.entry.start == (2, 1, 0)


def test_an_entry_whose_records_are_gone_is_passed_over() -> None:
    gone = JournalEntry(7, 1, (0, 0, 0), (2, 0, 0), NO_MAXIMA, NO_MAXIMA)
    lane = partition(replay=[gone], start=(5, 0, 0))
    add(lane, CLICK, [record(CLICK, 5, 5)])
    assert ids(take(lane)) == ["CLICK-5"]


def test_records_that_come_again_stop_the_worker_before_they_do_harm() -> None:
    lane = partition()
    add(lane, CLICK, [record(CLICK, 0, 5), record(CLICK, 1, 6)])
    with pytest.raises(WorkerError, match="went on with offset 1 where 2 was due"):
        add(lane, CLICK, [record(CLICK, 1, 6)])


def test_records_that_were_passed_over_stop_the_worker_before_they_do_harm() -> None:
    one = record(CLICK, 7, 5)
    event, *_ = decode_batch(
        CLICK,
        [one],
        partition=0,
        partitions=1,
        future_allowance_ms=10**9,
        max_value_bytes=10**6,
    )
    with pytest.raises(WorkerError, match="went on with offset 7 where 0 was due"):
        partition().add(CLICK, Poll([one], 3, 8, 0.0), event, [])
    # The same offsets without a skip: the records between are gone from the topic.
    lane = partition()
    lane.add(CLICK, Poll([one], 0, 9, 0.0), event, [])
    assert ids(take(lane)) == ["CLICK-7"]
    assert lane.pending[CLICK].next_offset == 9, "control records stand behind it"
    assert lane.reached == (9, 0, 0)


def test_a_poll_without_records_moves_on_and_is_waited_for_no_more() -> None:
    """The end of a transaction may be all that a fetch has."""
    lane = partition()
    add(lane, CLICK, [record(CLICK, 0, 0)])
    lane.note_ends((2, 0, 0))
    assert ids(take(lane)) == ["CLICK-0"]
    assert lane.reached == (1, 0, 0)
    lane.add(CLICK, Poll([], 1, 2, 0.0), [], [])
    assert lane.reached == (2, 0, 0), "nothing is left, so it is no lag"
    add(lane, SEARCH, [record(SEARCH, 0, 5)])
    assert ids(take(lane)) == ["SEARCH-0"], "clicks have nothing to wait for"
    with pytest.raises(WorkerError, match="went on with offset 9 where 2 was due"):
        lane.add(CLICK, Poll([], 8, 9, 0.0), [], [])


def test_records_between_two_entries_come_first_as_a_batch_of_their_own() -> None:
    """Offsets were set forwards from 1 to 4, and are set back now."""
    old = JournalEntry(7, 1, (0, 0, 0), (1, 0, 0), NO_MAXIMA, (START_MS, *NO_MAXIMA[1:]))
    later = JournalEntry(7, 1, (4, 0, 0), (5, 0, 0), old.after, NO_MAXIMA, swept_ms=50)
    lane = partition(replay=[old, later], swept_ms=70)
    add(lane, CLICK, [record(CLICK, i, i) for i in range(3)])
    assert ids(take(lane)) == ["CLICK-0"]
    gap = take(lane, limit=1)
    assert ids(gap) == ["CLICK-1"]
    assert (gap.replayed, gap.entry.between) == (False, True)
    assert (gap.entry.start, gap.entry.end) == ((1, 0, 0), (2, 0, 0))
    assert gap.entry.swept_ms == 70, "as it was when the last entry was applied"
    assert ids(take(lane, limit=1)) == ["CLICK-2"]
    assert lane.next_batch(0.0, WAIT_S, 100) is None, "offset 3 is still to come"
    add(lane, CLICK, [record(CLICK, i, i) for i in range(3, 6)])
    assert ids(take(lane)) == ["CLICK-3"]
    followed = take(lane)
    assert (ids(followed), followed.entry) == (["CLICK-4"], later)
    fresh = take(lane)
    assert ids(fresh) == ["CLICK-5"]
    assert not fresh.entry.between


def test_a_gap_of_several_topics_is_merged_by_event_time() -> None:
    later = JournalEntry(7, 1, (2, 1, 0), (3, 1, 0), NO_MAXIMA, NO_MAXIMA)
    lane = partition(replay=[later])
    add(lane, CLICK, [record(CLICK, i, 2 * i) for i in range(3)])
    wait = lane.next_batch(10.0, WAIT_S, 100)
    assert wait == pytest.approx(WAIT_S), "the search of the gap is waited for"
    add(lane, SEARCH, [record(SEARCH, 0, 1)])
    assert ids(take(lane, now=10.1)) == ["CLICK-0", "SEARCH-0", "CLICK-1"]
    assert ids(take(lane, now=10.1)) == ["CLICK-2"]


def test_a_gap_goes_on_without_what_does_not_come() -> None:
    later = JournalEntry(7, 1, (1, 1, 0), (2, 1, 0), NO_MAXIMA, NO_MAXIMA)
    lane = partition(replay=[later])
    add(lane, CLICK, [record(CLICK, 0, 5), record(CLICK, 1, 6)])
    assert lane.next_batch(10.0, WAIT_S, 100) == pytest.approx(WAIT_S)
    assert ids(take(lane, now=11.0)) == ["CLICK-0"]
    assert lane.next_batch(12.0, WAIT_S, 100) is None


def test_nothing_beyond_the_bound_is_waited_for() -> None:
    lane = partition(until=(1, 1, 0))
    lane.note_ends([9, 9, 9])
    add(lane, CLICK, [record(CLICK, 0, 5)])
    add(lane, SEARCH, [record(SEARCH, 0, 7)])
    assert ids(take(lane)) == ["CLICK-0", "SEARCH-0"]
    assert lane.reach == (1, 1, 0)
    assert lane.ends == (9, 9, 9)
