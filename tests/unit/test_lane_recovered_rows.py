"""A recovery keeps the later state of a user, whatever the order of the changelog records."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model.state import new_rows, pack
from stream_app.lane.recovered_rows import (
    Position,
    decode_position,
    encode_position,
    position_of,
    recover,
)
from stream_app.lane.stored_rows import Marker, encode_marker, marker_key, user_hash

EPOCHS = (7, 7, 7)
KEY = b"ann"


def row(*offsets: int, epochs: tuple[int, int, int] = EPOCHS, time_ms: int = 1) -> bytes:
    rows = new_rows(1, 64)
    rows["offset"], rows["epoch"], rows["last_time_ms"] = offsets, epochs, time_ms
    return pack(rows)[0]


def test_the_position_is_read_from_the_row() -> None:
    assert position_of(row(3, -1, 5)) == Position((3, -1, 5), EPOCHS)
    assert position_of(b"short").offsets == (-1, -1, -1)


@given(st.tuples(*[st.integers(-1, 2**62)] * 3), st.tuples(*[st.integers(0, 2**32 - 1)] * 3))
def test_a_position_comes_back_as_it_was(offsets: tuple[int, ...], epochs: tuple[int, ...]) -> None:
    position = Position(offsets, epochs)
    assert decode_position(encode_position(position)) == position


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=8), st.randoms())
def test_stale_records_anywhere_change_nothing(
    steps: list[tuple[int, int, int]], rng: object
) -> None:
    offsets = [0, 0, 0]
    states = []
    for step in steps:
        offsets = [at + by for at, by in zip(offsets, step, strict=True)]
        states.append(row(*offsets))
    changes = [(KEY, state, None) for state in states]
    for index in range(len(states)):  # each state comes again, at a place after its own
        place = rng.randint(index + 1, len(changes))  # type: ignore[attr-defined]
        changes.insert(place, (KEY, states[index], None))
    assert recover(changes, {}, {}).values == {KEY: states[-1]}


def test_what_is_older_than_the_store_is_stale_until_a_later_record_comes() -> None:
    stored = {KEY: row(5, 2, -1)}
    found = recover([(KEY, row(4, 2, -1), None)], stored, {})
    assert (found.values, found.stale) == ({}, {KEY})
    found = recover([(KEY, row(4, 2, -1), None), (KEY, row(6, 2, -1), None)], stored, {})
    assert (found.values, found.stale) == ({KEY: row(6, 2, -1)}, set())


def test_equal_positions_take_the_last_record() -> None:
    later = row(5, 2, -1, time_ms=9)
    assert recover([(KEY, later, None)], {KEY: row(5, 2, -1)}, {}).values == {KEY: later}


def test_another_epoch_of_a_topic_tells_nothing() -> None:
    anew = row(0, 2, -1, epochs=(8, 7, 7))
    assert recover([(KEY, anew, None)], {KEY: row(900, 2, -1)}, {}).values == {KEY: anew}


def test_a_state_that_began_anew_after_it_expired_is_later() -> None:
    fresh = row(50, -1, -1)
    assert recover([(KEY, fresh, None)], {KEY: row(20, 7, 3)}, {}).values == {KEY: fresh}
    assert recover([(KEY, row(20, 7, 3), None)], {KEY: fresh}, {}).stale == {KEY}


def test_a_row_from_a_file_is_earlier_than_what_the_topics_made_of_it() -> None:
    made = row(-1, -1, -1, epochs=(0, 0, 0))
    again = row(-1, -1, -1, epochs=(0, 0, 0), time_ms=2)
    applied = row(-1, 0, -1)
    assert recover([(KEY, applied, None)], {KEY: made}, {}).values == {KEY: applied}
    assert recover([(KEY, made, None)], {KEY: applied}, {}).stale == {KEY}
    assert recover([(KEY, again, None)], {KEY: made}, {}).values == {KEY: again}
    swept = encode_position(position_of(made))
    assert recover([(KEY, None, swept)], {KEY: made}, {}).values == {KEY: None}
    assert recover([(KEY, None, swept)], {KEY: applied}, {}).stale == {KEY}
    erased = encode_position(Position((-1, -1, -1), EPOCHS))
    assert recover([(KEY, None, erased)], {KEY: applied}, {}).values == {KEY: None}


def test_a_deletion_counts_up_to_its_position() -> None:
    header = encode_position(Position((5, 2, -1), EPOCHS))
    assert recover([(KEY, None, header)], {KEY: row(5, 2, -1)}, {}).values == {KEY: None}
    assert recover([(KEY, None, header)], {KEY: row(6, 2, -1)}, {}).stale == {KEY}
    assert recover([(KEY, None, None)], {KEY: row(6, 2, -1)}, {}).values == {KEY: None}


def test_a_stale_row_does_not_bring_an_erased_user_back() -> None:
    marker = Marker(4, EPOCHS, (9, 9, 9), 0, 0)
    erasure = [
        (KEY, None, encode_position(Position((9, 9, 9), EPOCHS))),
        (marker_key(user_hash("ann")), encode_marker(marker), None),
    ]
    found = recover([*erasure, (KEY, row(4, 2, -1), None)], {KEY: row(4, 2, -1)}, {})
    assert found.values[KEY] is None
    assert found.stale == {KEY}
    back = row(10, 2, -1)
    assert recover([*erasure, (KEY, back, None)], {}, {}).values[KEY] == back
