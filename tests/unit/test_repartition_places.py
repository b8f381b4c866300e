"""Where a mapped record comes from, and how far the outputs were at a commit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.repartition import places
from stream_app.repartition.places import (
    ADAPTED_FROM,
    LETTER,
    MAX_BATCH,
    Place,
    Seen,
    decode_ends,
    encode_ends,
    read_place,
)

ORDER = [("clicks", 0), ("clicks", 1), ("letters", 0)]


@pytest.mark.parametrize("number", [0, 24, LETTER])
def test_a_place_is_read_back_from_its_header(number: int) -> None:
    place = Place(("shop.events-1", 7), 0x1F3A90C4, 4711, number)
    assert read_place([("other", b"x"), place.header()]) == place


@given(st.none() | st.binary(max_size=40))
def test_any_other_header_is_no_place(value: bytes | None) -> None:
    assert read_place([(ADAPTED_FROM, value)]) is None
    assert read_place([]) is None


def test_the_ends_of_a_commit_are_read_back() -> None:
    ends = {("clicks", 0): 0, ("clicks", 1): 2**39, ("letters", 0): 12}
    assert decode_ends(encode_ends(0xFFFFFFFF, ends, ORDER), ORDER) == (0xFFFFFFFF, ends)


@pytest.mark.parametrize("metadata", [None, "", "AAAA", "%", "é", 7, "A" * 4000])
def test_other_metadata_begin_at_the_first_record(metadata: object) -> None:
    assert decode_ends(metadata, ORDER) == (None, dict.fromkeys(ORDER, 0))


def test_metadata_that_brokers_refuse_are_left_out() -> None:
    order = [(topic, n) for topic in "abcd" for n in range(140)]
    assert 0 < len(encode_ends(1, {}, order)) <= places.MAX_METADATA
    order = [(topic, n) for topic in "abcd" for n in range(160)]
    assert encode_ends(1, {}, order) == ""


def test_seen_knows_what_it_was_told_and_what_lies_a_batch_before() -> None:
    seen = Seen({})
    assert (0, 0) not in seen
    seen.add(2_000_000, 1)
    assert (2_000_000, 1) in seen
    assert (2_000_000, 0) not in seen
    assert (2_000_000 - MAX_BATCH, 0) in seen
    assert (2_000_001 - MAX_BATCH, 0) not in seen


def test_a_commit_says_where_the_look_began_until_all_that_it_found_lies_before() -> None:
    since, now = {ORDER[0]: 3}, {ORDER[0]: 90}
    seen = Seen(since)
    assert seen.to_look_from(0, now) == now
    seen.add(39, 0)
    assert seen.to_look_from(0, now) == since
    assert seen.to_look_from(39, now) == since
    assert seen.to_look_from(40, now) == now


def test_seen_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_BATCH", 10)
    seen = Seen({})
    for offset in range(1000):
        seen.add(offset, 0)
        assert len(seen._places) <= 40
    assert all((offset, 0) in seen for offset in range(1000))
