"""What a takeover refuses: rows and offsets of topics that are no longer there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from faust.types import TP

from model.events import Source
from model.state import new_rows
from stream_app.errors import StoreError, TopicError
from stream_app.lane.compute import check_rows
from stream_app.lane.fence import Fence
from stream_app.lane.journal import JournalEntry
from stream_app.lane.merge import NO_MAXIMA
from stream_app.lane.takeover import (
    check_committed,
    check_counts,
    check_journal,
    take_over,
    whole_entries,
)
from stream_app.settings import Settings

SETTINGS = Settings(partitions=4)
NO_EPOCHS = (0, 0, 0)
TOPICS = SETTINGS.input_topics
ENTRY = JournalEntry(1, 4, (0, 0, 0), (5, 2, 0), NO_MAXIMA, NO_MAXIMA)


def ends(*offsets: int) -> dict[TP, int]:
    return {TP(topic, 1): offset for topic, offset in zip(TOPICS, offsets, strict=True)}


class Consumer:
    """As much of Faust's consumer as a takeover asks."""

    def __init__(self, committed: dict[TP, int], end: dict[TP, int]) -> None:
        self._committed_offset = {tp: committed.get(tp) for tp in end}
        self._end = end

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return {tp: self._end[tp] for tp in tps}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)


class App:
    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer


class Producer:
    def __init__(self, **counts: int) -> None:
        self._counts = counts

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(self._counts[topic]))


def test_a_journal_within_its_topics_is_fine() -> None:
    check_journal(SETTINGS, 1, [ENTRY], ends(5, 2, 0))
    check_journal(SETTINGS, 1, [], ends(0, 0, 0))


def test_applied_offsets_beyond_the_end_are_refused() -> None:
    with pytest.raises(StoreError, match=r"ends at offset 1, but the rows hold events up to 2"):
        check_journal(SETTINGS, 1, [ENTRY], ends(5, 1, 0))


def test_a_changed_partition_count_is_refused() -> None:
    with pytest.raises(StoreError, match="made with 4 partitions and the topics have 8"):
        check_journal(Settings(partitions=8), 1, [ENTRY], ends(5, 2, 0))


def test_a_committed_offset_beyond_the_end_is_refused() -> None:
    check_committed(SETTINGS, 1, (5, 2, 0), ends(5, 2, 0))
    with pytest.raises(StoreError, match="ends at offset 5, but 9 is committed"):
        check_committed(SETTINGS, 1, (9, 2, 0), ends(5, 2, 0))


async def test_a_partition_without_its_like_is_refused() -> None:
    end = ends(5, 2, 0)
    app = App(Consumer({}, end))
    with pytest.raises(TopicError, match="same number of partitions"):
        await take_over(app, SETTINGS, {TP(TOPICS[0], 1)}, Fence(1), NO_EPOCHS)


async def test_a_topic_with_another_partition_count_is_refused() -> None:
    producer: Any = Producer(clicks=4, changelog=8)
    await check_counts(producer, SETTINGS, ["clicks"])
    with pytest.raises(TopicError, match="Topic changelog has 8 partitions and 4 are wanted"):
        await check_counts(producer, SETTINGS, ["clicks", "changelog"])


def test_a_row_beyond_the_end_of_a_topic_is_refused() -> None:
    rows = new_rows(3, 64)
    rows["partitions"] = 4
    rows["offset"][1] = (4, -1, -1)
    check_rows(rows, Source(partitions=4), (5, 0, 0), TOPICS, 1)
    with pytest.raises(StoreError, match="ends at offset 4, but a stored row holds offset 4"):
        check_rows(rows, Source(partitions=4), (4, 0, 0), TOPICS, 1)


def test_an_offset_of_another_epoch_of_the_topic_says_nothing() -> None:
    rows = new_rows(1, 64)
    rows["partitions"], rows["offset"], rows["epoch"] = 4, 900, np.array([1, 1, 1])
    check_rows(rows, Source(epochs=(2, 2, 2), partitions=4), (5, 0, 0), TOPICS, 1)


def test_a_row_of_another_partition_count_is_refused() -> None:
    rows = new_rows(2, 64)
    rows["partitions"] = (0, 8)  # the first one is new
    with pytest.raises(StoreError, match="made with 8 partitions and the topics have 4"):
        check_rows(rows, Source(partitions=4), (5, 5, 5), TOPICS, 1)


def test_a_bound_cuts_no_batch_of_the_journal() -> None:
    first = JournalEntry(1, 4, (0, 0, 0), (5, 2, 0), NO_MAXIMA, NO_MAXIMA)
    second = JournalEntry(1, 4, (5, 2, 0), (9, 4, 3), NO_MAXIMA, NO_MAXIMA)
    third = JournalEntry(1, 4, (9, 4, 3), (20, 20, 20), NO_MAXIMA, NO_MAXIMA)
    entries = [first, second, third]
    assert whole_entries(entries, (5, 2, 0)) == (5, 2, 0)
    assert whole_entries(entries, (6, 1, 0)) == (9, 4, 3)
    assert whole_entries(entries, (9, 4, 3)) == (9, 4, 3)
    assert whole_entries([], (6, 1, 0)) == (6, 1, 0)
    assert whole_entries([first], (7, 2, 0)) == (7, 2, 0), "beyond the journal it holds exactly"
