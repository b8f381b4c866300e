"""What a batch begins with: stored rows, markers of erased users, rows that have expired."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.state import new_rows, pack
from stream_app.errors import StoreError
from stream_app.lane.merge import NEVER
from stream_app.lane.stored_rows import (
    Marker,
    begin,
    check_size,
    decode_marker,
    encode_marker,
    end,
    is_marker,
    marker_key,
    user_hash,
)

H = 64
offsets = st.integers(-1, 2**62)
epochs = st.integers(0, 2**32 - 1)
MARKER = Marker(4, (7, 7, 7), (9, 4, -1), 3, 1)


def row(events: int = 3, last_time_ms: int = 1000, offset: int = 12) -> bytes:
    rows = new_rows(1, H)
    rows["events"], rows["last_time_ms"], rows["offset"] = events, last_time_ms, offset
    return pack(rows)[0]


@given(
    st.integers(1, 60_000),
    st.tuples(epochs, epochs, epochs),
    st.tuples(offsets, offsets, offsets),
    offsets,
    st.integers(0, 2**62),
)
def test_a_marker_comes_back_as_it_was(
    partitions: int,
    epoch: tuple[int, int, int],
    offset: tuple[int, int, int],
    control: int,
    erased_ms: int,
) -> None:
    marker = Marker(partitions, epoch, offset, control, erased_ms)
    assert decode_marker(encode_marker(marker)) == marker
    assert len(encode_marker(marker)) == 64


@given(st.binary(max_size=100))
def test_any_other_value_is_refused(value: bytes) -> None:
    if len(value) == 64 and value[:2] == b"\1\0":
        return
    with pytest.raises(StoreError, match="none of ours"):
        decode_marker(value)


@given(st.text(min_size=1))
def test_no_user_id_is_the_key_of_a_marker(user: str) -> None:
    try:
        key = user.encode()
    except UnicodeEncodeError:  # a lone surrogate is no user id either
        return
    assert not is_marker(key)
    assert is_marker(marker_key(user_hash(user)))


def test_an_erased_user_begins_with_the_offsets_of_the_marker() -> None:
    begun = begin(["ann", "bob"], [None, None], {user_hash("ann"): MARKER}, NEVER, H)
    assert begun.states["offset"].tolist() == [[9, 4, -1], [-1, -1, -1]]
    assert begun.states["epoch"][0].tolist() == [7, 7, 7]
    assert begun.erased.tolist() == [True, False]


def test_an_erased_user_who_came_back_has_a_row() -> None:
    begun = begin(["ann"], [row(offset=12)], {user_hash("ann"): MARKER}, NEVER, H)
    assert begun.states["offset"].tolist() == [[12, 12, 12]]
    assert not begun.erased.any()


def test_nothing_is_stored_of_an_erased_user_without_new_events() -> None:
    begun = begin(["ann", "bob"], [None, None], {user_hash("ann"): MARKER}, NEVER, H)
    keys, rows = end(begun, [b"ann", b"bob"], begun.states)
    assert keys == [b"bob"]
    assert len(rows) == 1
    moved = begun.states.copy()
    moved["events"] = 1
    assert end(begun, [b"ann", b"bob"], moved)[0] == [b"ann", b"bob"]


def test_an_expired_row_begins_anew() -> None:
    values: list[bytes | None] = [row(last_time_ms=999), row(last_time_ms=1000), None]
    begun = begin(["ann", "bob", "eve"], values, {}, 1000, H)
    assert begun.states["events"].tolist() == [0, 3, 0]
    assert begun.states["offset"][0].tolist() == [-1, -1, -1]
    assert np.array_equal(begun.states[0], new_rows(1, H)[0])


def test_an_erased_user_whose_new_row_expired_keeps_the_offsets_of_the_marker() -> None:
    begun = begin(["ann"], [row(last_time_ms=999)], {user_hash("ann"): MARKER}, 1000, H)
    assert begun.states["offset"].tolist() == [[9, 4, -1]]


def test_rows_of_another_hidden_size_are_refused_before_a_batch() -> None:
    check_size([], H)
    check_size([(b"ann", row())], H)
    check_size([(marker_key(user_hash("bob")), encode_marker(MARKER))], H)
    with pytest.raises(StoreError, match="start with the checkpoint the rows were made with"):
        check_size([(b"ann", row())], H // 2)
