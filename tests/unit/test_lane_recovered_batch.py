"""Changelog records applied all at once give what they give one by one."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.state import new_rows, pack
from stream_app.lane import recovered_batch
from stream_app.lane.history_mark import COMPLETE, MARK, MARK_KEY, encode_mark
from stream_app.lane.recovered_batch import recover_batch
from stream_app.lane.recovered_rows import POSITION_HEADER, Position, encode_position, recover
from stream_app.lane.stored_rows import Marker, encode_marker, key_hash, marker_key

USERS = [b"ann", b"ben", b"cem", b"dee"]


class Record(NamedTuple):
    """As much of a record as a recovery looks at."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] | None = ()


def row(offsets: tuple[int, ...], epochs: tuple[int, ...], time_ms: int) -> bytes:
    rows = new_rows(1, 8)
    rows["offset"], rows["epoch"], rows["last_time_ms"] = offsets, epochs, time_ms
    return pack(rows)[0]


offsets = st.tuples(*[st.integers(-1, 2)] * 3)
epochs = st.sampled_from([(0, 0, 0), (7, 7, 7), (7, 8, 7)])
values = st.one_of(
    st.builds(row, offsets, epochs, st.integers(0, 1)),
    st.builds(row, st.just((-1, -1, -1)), st.just((0, 0, 0)), st.integers(0, 1)),
    st.sampled_from([b"", b"short"]),
)
positions = st.builds(Position, offsets, epochs)
headers = st.one_of(
    st.sampled_from([None, (), (("other", b"x"),), ((POSITION_HEADER, b"none of ours"),)]),
    positions.map(lambda position: ((POSITION_HEADER, encode_position(position)),)),
)
markers = st.builds(
    lambda position: Marker(4, position.epochs, position.offsets, 0, 0),  # type: ignore[arg-type]
    positions,
)
records = st.one_of(
    st.builds(Record, st.sampled_from(USERS), values),
    st.builds(Record, st.sampled_from(USERS), st.none(), headers),
    st.builds(
        lambda user, marker: Record(marker_key(key_hash(user)), encode_marker(marker)),
        st.sampled_from(USERS),
        markers,
    ),
    st.builds(Record, st.sampled_from([marker_key(key_hash(user)) for user in USERS]), st.none()),
)
rows_alone = st.builds(Record, st.sampled_from(USERS), values)
stores = st.dictionaries(st.sampled_from(USERS), st.one_of(st.none(), values))
known = st.dictionaries(st.sampled_from([key_hash(user) for user in USERS]), markers, max_size=2)


def one_by_one(changes: list[Record], stored: Any, erased: Any) -> Any:
    pairs = [(one.key, one.value, dict(one.headers or ()).get(POSITION_HEADER)) for one in changes]
    return recover(pairs, stored, erased)


@given(
    st.one_of(
        st.lists(records, max_size=8),
        st.lists(rows_alone, max_size=8),
        st.lists(rows_alone, max_size=4, unique_by=lambda one: one.key),
    ),
    stores,
    known,
)
def test_gives_what_the_records_give_one_by_one(
    changes: list[Record], stored: dict[bytes, bytes | None], erased: dict[bytes, Marker]
) -> None:
    erased_too = dict(erased)
    expected = one_by_one(changes, stored, erased_too)
    found = recover_batch(changes, stored, erased)
    assert found.values == expected.values
    assert found.stale == expected.stale
    assert erased == erased_too


MARKED = {MARK: Marker(4, (0, 0, 0), (-1, -1, -1), COMPLETE, 0)}
ERASED = {key_hash(b"eve"): Marker(4, (7, 7, 7), (1, 1, 1), 0, 0)}


@pytest.mark.parametrize("markers", [{}, MARKED, ERASED])
@pytest.mark.parametrize("stored", [{}, {b"ben": row((2, 2, 2), (7, 7, 7), 0)}])
def test_rows_whose_keys_come_once_are_not_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch, stored: dict[bytes, bytes | None], markers: dict[bytes, Marker]
) -> None:
    looked_at: list[Any] = []

    def watched(changes: list[Any], *arguments: Any) -> Any:
        looked_at.extend(changes)
        return recover(changes, *arguments)

    monkeypatch.setattr(recovered_batch, "recover", watched)
    changes = [Record(user, row((1, 1, 1), (7, 7, 7), 0)) for user in USERS]
    found = recover_batch(changes, stored, dict(markers))
    assert found.values.keys() == set(USERS) - stored.keys()
    assert found.stale == stored.keys()
    assert looked_at == []


def test_the_mark_among_the_rows_is_kept_and_makes_no_other_key_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[Any] = []

    def watched(changes: list[Any], *arguments: Any) -> Any:
        looked_at.extend(key for key, *_ in changes)
        return recover(changes, *arguments)

    monkeypatch.setattr(recovered_batch, "recover", watched)
    mark = Record(MARK_KEY, encode_mark(4, COMPLETE, 0))
    changes = [*(Record(user, row((1, 1, 1), (7, 7, 7), 0)) for user in USERS), mark]
    markers: dict[bytes, Marker] = {}
    assert recover_batch(changes, {}, markers).values.keys() == {*USERS, MARK_KEY}
    assert markers.keys() == {MARK}
    assert looked_at == [MARK_KEY]
