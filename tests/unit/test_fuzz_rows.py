"""Stored rows with wild contents are refused, or harm nobody beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import StateError
from model.state import MAX_TIME_MS, check_indices, new_rows, pack, row_dtype, unpack
from stream_app.lane import journal
from stream_app.lane.merge import NO_MAXIMA
from tests.fuzz_targets import VICTIM, a_row, feed_journal, feed_row, small_checkpoint

DTYPE = row_dtype(small_checkpoint().hidden)
FIELDS = [name for name in DTYPE.names or () if name != "version"]
EDGES = (0x00, 0x01, 0x3F, 0x40, 0x7C, 0x7F, 0x80, 0xBF, 0xC0, 0xFF)


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """The row of a user with a past, in which a few fields hold whatever fits into them."""
    row = np.frombuffer(bytearray(a_row()), DTYPE)
    for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3)):
        field = row[name].view(np.uint8).reshape(-1)
        start = draw(st.integers(0, len(field) - 1))
        byte = st.sampled_from(EDGES) | st.integers(0, 255)
        new = draw(st.lists(byte, min_size=1, max_size=16))[: len(field) - start]
        field[start : start + len(new)] = new
        row[name] = field.view(row[name].dtype).reshape(row[name].shape)
    return row.tobytes()


@given(rows())
@settings(max_examples=150, deadline=None)
def test_a_wild_row_is_refused_or_harms_nobody(row: bytes) -> None:
    feed_row(row)


@given(st.binary(max_size=DTYPE.itemsize + 8))
@settings(max_examples=100, deadline=None)
def test_bytes_of_any_length_are_refused(value: bytes) -> None:
    assert not feed_row(value)


def test_a_row_as_it_was_stored_is_applied() -> None:
    assert feed_row(a_row())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("h", np.nan),
        ("c", np.inf),
        ("anchor_h", -np.inf),
        ("anchor_c", np.nan),
        ("slot_count", np.nan),
        ("slot_count", -1.0),
        ("slot_count", 2050.0),
        ("last_time_ms", -1),
        ("last_time_ms", MAX_TIME_MS + 1),
        ("last_time_ms", 2**62),  # would lift the clock of all users behind it in the batch
        ("slot_time_s", 2**32 - 1),
        ("offset", -2),
        ("recent_slot", 64),
        ("recent_slot", 254),
        ("unit_slot", 192),
        ("recent_kind", 6),
        ("recent_kind", 255),
        ("window_probability", 1.0),
        ("window_probability", -0.5),
        ("window_probability", np.nan),
    ],
)
def test_each_bound_of_a_row(field: str, value: float) -> None:
    states = new_rows(3, 4)
    states["last_time_ms"] = 1_700_000_000_000
    states[field][VICTIM].flat[-1:] = value
    if states[field].ndim == 1:
        states[field][VICTIM] = value
    with pytest.raises(StateError, match=f"its {field} is out of bounds"):
        unpack(list(pack(states)), 4)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recent_item", 77),
        ("recent_category", 21),
        ("slot_category", 21),
        ("window_category", 21),
    ],
)
def test_each_bound_of_an_index(field: str, value: int) -> None:
    vocabulary = small_checkpoint().vocabulary
    sizes = (vocabulary.items, vocabulary.categories)
    assert sizes == (77, 21)
    states = new_rows(3, 4)
    fields: dict[str, Any] = {name: states[name] for name in states.dtype.names or ()}
    fields[field][VICTIM, -1] = value - 1
    check_indices(fields, np.arange(3), *sizes)
    fields[field][VICTIM, -1] = value
    check_indices(fields, np.array([0, 2]), *sizes)
    with pytest.raises(StateError, match=f"its {field} is out of bounds"):
        check_indices(fields, np.arange(3), *sizes)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_wild_journal_entry_is_refused_or_can_be_written(data: st.DataObject) -> None:
    entry = journal.JournalEntry(1, 4, (0, 0, 0), (5, 1, 2), NO_MAXIMA, NO_MAXIMA)
    value = bytearray(journal.encode(entry))
    start = data.draw(st.integers(0, len(value) - 1))
    new = data.draw(st.binary(max_size=24))[: len(value) - start]
    value[start : start + len(new)] = new
    feed_journal(bytes(value))
