"""The mark of rows from a file: kept by a recovery, and no worker starts with rows made in part."""

from __future__ import annotations

import pytest

from model.state import new_rows, pack
from stream_app.errors import RecoveryError
from stream_app.lane.history_mark import (
    BEGUN,
    COMPLETE,
    MARK,
    MARK_KEY,
    check_complete,
    decode_mark,
    encode_mark,
)
from stream_app.lane.recovered_rows import recover
from stream_app.lane.stored_rows import Markers, begin, is_marker


def recovered(*states: int) -> Markers:
    markers: Markers = {}
    changes = [(MARK_KEY, encode_mark(4, state, 5), None) for state in states]
    recover([*changes, (b"ann", pack(new_rows(1, 64))[0], None)], {}, markers)
    return markers


def test_rows_made_in_part_are_refused() -> None:
    check_complete({})
    check_complete(recovered(BEGUN, COMPLETE))
    with pytest.raises(RecoveryError, match="published in part only; run interest-stream replay"):
        check_complete(recovered(BEGUN))


def test_the_mark_stands_among_the_markers_and_is_of_no_user() -> None:
    assert is_marker(MARK_KEY)
    assert [decode_mark(encode_mark(4, state, 5)) for state in (BEGUN, COMPLETE)] == [0, 1]
    markers = recovered(BEGUN, COMPLETE)
    assert list(markers) == [MARK]
    begun = begin(["ann"], [None], markers, -1, 64)
    assert not begun.erased.any()
