"""The journal: its records, which of them hold, and the order that follows from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import RecoveryError
from stream_app.events import MAX_TIMESTAMP_MS
from stream_app.lane.journal import (
    MAX_OFFSET,
    JournalEntry,
    beyond,
    chain,
    decode,
    encode,
    in_offset_order,
    merge_along,
    next_term,
)
from stream_app.lane.merge import NEVER, NO_MAXIMA, TOPICS, Triple, merge
from stream_app.lane.partition import maxima_after

rising_offsets = st.tuples(*[st.integers(0, MAX_OFFSET)] * 2).map(sorted)
rising_times = st.tuples(*[st.integers(-(2**63), MAX_TIMESTAMP_MS)] * 2).map(sorted)


def entry(start: Triple, end: Triple, writer: int = 1, term: int = 0) -> JournalEntry:
    return JournalEntry(writer, 4, start, end, NO_MAXIMA, NO_MAXIMA, term=term)


@given(
    st.integers(0, 2**63),
    st.integers(1, 60_000),
    st.tuples(*[rising_offsets] * 3),
    st.tuples(*[rising_times] * 3),
)
def test_an_entry_comes_back_as_it_was(
    writer: int, partitions: int, offsets: tuple[list[int], ...], times: tuple[list[int], ...]
) -> None:
    start, end, maxima, after = (
        cast(Triple, tuple(values))
        for pairs in (offsets, times)
        for values in zip(*pairs, strict=True)
    )
    written = JournalEntry(writer, partitions, start, end, maxima, after, (1, 2, 3), term=9)
    assert decode(encode(written)) == written
    assert len(encode(written)) == 160
    assert decode(encode(replace(written, between=True))).between


@given(st.one_of(st.none(), st.binary(max_size=240)))
def test_anything_else_is_refused_with_a_sentence(value: bytes | None) -> None:
    if value is not None and len(value) == 160 and value[:2] == b"\x01\x00":
        return
    with pytest.raises(RecoveryError, match="journal topic"):
        decode(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"partitions": 0},
        {"start": (-1, 0, 0)},
        {"start": (4, 0, 0)},
        {"end": (3, 1, MAX_OFFSET + 1)},
        {"after": (NEVER, NEVER, MAX_TIMESTAMP_MS + 1)},
        {"maxima": (5, NEVER, NEVER)},
    ],
)
def test_an_entry_that_no_worker_writes_is_refused(wrong: dict[str, Any]) -> None:
    written = encode(replace(entry((0, 0, 0), (3, 1, 0)), **wrong))
    with pytest.raises(RecoveryError, match="no worker writes"):
        decode(written)


def test_entries_of_one_writer_all_hold() -> None:
    entries = [entry((0, 0, 0), (3, 1, 0)), entry((3, 1, 0), (5, 1, 0))]
    assert chain(entries) == entries


def test_a_new_writer_replaces_what_it_did_not_know_of() -> None:
    known, unknown = entry((0, 0, 0), (3, 1, 0)), entry((3, 1, 0), (6, 1, 0))
    again = entry((3, 1, 0), (4, 2, 0), writer=2)
    assert chain([known, unknown, again]) == [known, again]


def test_the_first_entry_of_an_earlier_writer_is_stale_however_late_it_comes() -> None:
    before = entry((0, 0, 0), (3, 1, 0), writer=1, term=4)
    owners = [entry((3, 1, 0), (4, 2, 0), writer=3, term=6), entry((4, 2, 0), (9, 2, 0), 3, 6)]
    late = entry((3, 1, 0), (8, 2, 0), writer=2, term=5)
    assert chain([before, owners[0], late, owners[1]]) == [before, *owners]


def test_a_term_rises_with_the_generation_and_where_that_counts_anew() -> None:
    assert next_term([], 0) == 0
    assert next_term([entry((0, 0, 0), (1, 0, 0), term=7)], 9) == 9
    assert next_term([entry((0, 0, 0), (1, 0, 0), term=7)], 1) == 8


def test_what_a_superseded_writer_appends_later_is_stale() -> None:
    first, second = entry((0, 0, 0), (3, 1, 0)), entry((3, 1, 0), (4, 2, 0), writer=2)
    stale = entry((3, 1, 0), (9, 9, 0))
    assert chain([first, second, stale]) == [first, second]


def test_replay_begins_with_the_first_entry_beyond_the_committed_offsets() -> None:
    entries = [
        entry((0, 0, 0), (3, 1, 0)),
        entry((3, 1, 0), (5, 1, 0)),
        entry((5, 1, 0), (5, 2, 0)),
    ]
    assert beyond(entries, (3, 1, 0)) == entries[1:]
    assert beyond(entries, (5, 2, 0)) == []
    assert beyond(entries, (0, 0, 0)) == entries


def test_maxima_go_on_where_the_committed_entry_ended() -> None:
    entries = [
        JournalEntry(1, 4, (0, 0, 0), (3, 0, 0), NO_MAXIMA, (7, 1, 1)),
        JournalEntry(1, 4, (3, 0, 0), (5, 0, 0), (7, 1, 1), (9, 1, 1)),
    ]
    assert maxima_after(entries, (0, 0, 0)) == NO_MAXIMA
    assert maxima_after(entries, (3, 0, 0)) == (7, 1, 1)
    assert maxima_after(entries, (5, 0, 0)) == (9, 1, 1)


@given(st.tuples(*[st.lists(st.integers(0, 20), max_size=20)] * 3), st.data())
def test_the_order_along_the_journal_is_the_live_order(
    log: tuple[list[int], list[int], list[int]], data: st.DataObject
) -> None:
    """Live batches take what has arrived; the journal alone gives their order again."""
    times = [np.array(part, dtype=np.int64) for part in log]
    step = [data.draw(st.integers(1, 3)) for _ in range(TOPICS)]
    offsets = [np.arange(len(part)) * step[t] for t, part in enumerate(times)]  # with gaps
    at, maxima, live, entries = [0, 0, 0], NO_MAXIMA, [], []
    while any(at[t] < len(times[t]) for t in range(TOPICS)):
        stop = [data.draw(st.integers(at[t], len(times[t]))) for t in range(TOPICS)]
        cut = merge([times[t][at[t] : stop[t]] for t in range(TOPICS)], maxima)
        live += [(int(t), at[t] + int(i)) for t, i in zip(cut.topic, cut.index, strict=True)]
        ends = [at[t] + cut.taken[t] for t in range(TOPICS)]
        start, end = ([place(offsets[t], n) for t, n in enumerate(a)] for a in (at, ends))
        entries.append(
            JournalEntry(1, 4, tuple(start), tuple(end), maxima, cut.maxima)  # type: ignore[arg-type]
        )
        at, maxima = ends, cut.maxima
    order = merge_along([decode(encode(e)) for e in entries], offsets, times)
    assert list(zip(order.topic.tolist(), order.index.tolist(), strict=True)) == live


def place(offsets: np.ndarray, count: int) -> int:
    return int(offsets[count - 1]) + 1 if count else 0


def test_an_erasure_comes_back_as_it_was() -> None:
    written = replace(entry((3, 1, 0), (3, 1, 0)), swept_ms=77, control=4, erased=bytes(range(16)))
    assert decode(encode(written)) == written
    assert written.is_erasure
    assert not entry((0, 0, 0), (3, 1, 0)).is_erasure


def test_an_erasure_is_replayed_until_its_request_is_committed() -> None:
    erasure = replace(entry((3, 1, 0), (3, 1, 0)), control=4, erased=bytes(range(16)))
    entries = [entry((0, 0, 0), (3, 1, 0)), erasure, entry((3, 1, 0), (4, 1, 0))]
    assert beyond(entries, (3, 1, 0), 4) == entries[1:]
    assert beyond(entries, (3, 1, 0), 5) == entries[2:]


def test_of_a_topic_made_anew_earlier_entries_count_no_record() -> None:
    old = replace(entry((3, 1, 0), (5, 2, 0)), epochs=(7, 8, 9))
    assert old.under((7, 8, 9)) is old
    now = old.under((70, 8, 9))
    assert (now.start, now.end) == ((0, 1, 0), (0, 2, 0))
    assert now.made_anew == (True, False, False)
    assert old.under((0, 0, 0)) is old, "a broker without topic ids tells nothing"


def test_entries_of_a_topic_made_anew_do_not_replace_those_before() -> None:
    before = replace(entry((0, 0, 0), (900, 5, 0)), epochs=(7, 8, 9))
    after = replace(entry((0, 5, 0), (10, 6, 0)), epochs=(70, 8, 9))
    assert chain([before, after]) == [before, after]
    overlapping = replace(entry((0, 4, 0), (10, 6, 0)), epochs=(70, 8, 9))
    assert chain([before, overlapping]) == [overlapping]


def gap_entry(start: Triple, end: Triple, writer: int) -> JournalEntry:
    return replace(entry(start, end, writer), between=True)


def test_what_fills_a_gap_replaces_nothing_and_stands_where_it_was_applied() -> None:
    first, later = entry((0, 0, 0), (3, 1, 0)), entry((9, 1, 0), (12, 1, 0), 2)
    gap = [gap_entry((3, 1, 0), (6, 1, 0), 3), gap_entry((6, 1, 0), (9, 1, 0), 3)]
    after = entry((12, 1, 0), (15, 1, 0), 4)
    entries = chain([first, later, *gap, after])
    assert entries == [first, later, *gap, after]
    assert in_offset_order(entries) == [first, *gap, later, after]
    assert beyond(in_offset_order(entries), (4, 1, 0)) == [*gap, later, after]


def test_the_next_writer_replaces_what_another_has_put_into_a_gap_late() -> None:
    first, later = entry((0, 0, 0), (3, 1, 0)), entry((9, 1, 0), (12, 1, 0), 2)
    late = [gap_entry((3, 1, 0), (5, 1, 0), 3), gap_entry((5, 1, 0), (9, 1, 0), 3)]
    mine = gap_entry((3, 1, 0), (7, 1, 0), 4)
    assert chain([first, later, *late, mine]) == [first, later, mine]
    kept = gap_entry((3, 1, 0), (4, 1, 0), 3)
    follows = gap_entry((4, 1, 0), (9, 1, 0), 4)
    assert chain([first, later, kept, follows]) == [first, later, kept, follows]


def test_erasures_keep_their_place_in_the_order_of_the_offsets() -> None:
    first = entry((0, 0, 0), (3, 1, 0))
    erasure = replace(entry((3, 1, 0), (3, 1, 0)), control=7)
    second = entry((3, 1, 0), (5, 1, 0))
    assert in_offset_order([first, erasure, second]) == [first, erasure, second]
