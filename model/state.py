"""The row: everything that is known about one user, in a fixed number of bytes.

Byte layout of version 2 for hidden size H = 64 (offsets grow with H; little endian, every field
on a multiple of its item size):

======================  ===============  ======  ==================================================
field                   type             bytes   meaning
======================  ===============  ======  ==================================================
last_time_ms            int64                 8  latest event time seen
session_mask            uint64                8  slots touched in the running session, one bit each
offset                  int64 x 3            24  last applied offset per input topic, -1 = none
event_hash              uint64 x 16         128  ring of the last applied events' id hashes
epoch                   uint32 x 3           12  epoch of the input topic each offset belongs to
checkpoint              uint32                4  which weights the hidden state belongs to
events                  uint32                4  applied events
steps                   uint32                4  applied steps (line items counted)
drift_steps             uint32                4  steps since the drift test was restarted
drift_time_s            uint32                4  event time of the last drift alarm, 0 = none
slot_time_s             uint32 x 64         256  when a slot's counts were last decayed
recent_item             uint32 x 16          64  ring of the last steps: item
recent_time_s           uint32 x 16          64  ... event time
unit_offset             uint32 x 24          96  ring of the last drift units: low 32 bits of
                                                 offset, 2**32 - 1 of an event without one
unit_time_s             uint32 x 24          96  ... event time
units                   uint32                4  units since the drift test was restarted
version                 uint16                2  layout version
partitions              uint16                2  partition count of the input topics
since_recommendation    uint16                2  events since the last recommendation
drifts                  uint16                2  drift alarms so far
h, c                    float16 x 2H        256  LSTM state
anchor_h, anchor_c      float16 x 2H        256  LSTM state before the last (steps mod 16) steps
slot_category           uint16 x 64         128  category of a slot, 0 = free
slot_count              float16 x 3 x 64    384  decayed counts per rate
slot_units              uint16 x 64         128  drift units since the restart, window included
recent_category         uint16 x 16          32  ring of the last steps: category
recent_kind             uint8 x 16           16  ... kind; 128 is added when the step was a unit
recent_slot             uint8 x 16           16  ... slot of the category, 255 = none
unit_slot               uint8 x 24           24  ring of the last units: slot + 64 * event type
spare                   uint8 x 4             4  zero; keeps rows of an array on 8-byte borders
window_due_s            uint32                4  event time after which the kept prediction is
                                                 scored, 0 = none is kept; see kept_prediction.py
window_category         uint16 x 3            6  its likeliest categories, 0 = none
window_probability      float16 x 3           6  ... probabilities, below 1
======================  ===============  ======  ==================================================

Version 1 ends before window_due_s: its rows are read as rows that keep no prediction.

float16 holds counts up to 2,048 exactly; a count stops growing there.
Ring positions: event_hash at events mod 16, recent_* at steps mod 16, unit_* at units mod 24.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np

from model.errors import StateError

VERSION = 2
SLOTS = 64
RATES = 3
RECENT = 16
HASHES = 16
UNITS = 24
KEPT = 3
MAX_ROW_BYTES = 2048
UNIT_FLAG = 128
NO_SLOT = 255
MAX_COUNT = 2048.0
"""Of a decayed count: where float16 stops counting."""
MAX_TIME_MS = 2**32 * 1000 - 1
"""A row keeps seconds in 32 bits; the transition relies on fewer than 43 bits of milliseconds."""
_UNIT_CODES = SLOTS * 3  # slot + 64 * event type
_KINDS = 6
_EXPONENT_BITS = 0x7C00
_ADDED_BYTES = 4 + KEPT * 4
"""What rows of version 2 have behind those of version 1."""
MAX_PROBABILITY = float(np.nextafter(np.float16(1), np.float16(0)))
"""Of a kept prediction: the highest float16 below 1, so that its loss is finite."""
_MAX_PROBABILITY_BITS = int(np.float16(MAX_PROBABILITY).view(np.uint16))
_MAX_COUNT_BITS = int(np.float16(MAX_COUNT).view(np.uint16))

StateBatch = np.ndarray
"""Rows as a structured array of shape (U,) with dtype ``row_dtype(H)``."""


@cache
def row_dtype(hidden_size: int) -> np.dtype:
    """The row's dtype for hidden size H; StateError when a row would exceed 2,048 bytes."""
    hidden = (hidden_size,)
    dtype = np.dtype(
        [
            ("last_time_ms", "<i8"),
            ("session_mask", "<u8"),
            ("offset", "<i8", (3,)),
            ("event_hash", "<u8", (HASHES,)),
            ("epoch", "<u4", (3,)),
            ("checkpoint", "<u4"),
            ("events", "<u4"),
            ("steps", "<u4"),
            ("drift_steps", "<u4"),
            ("drift_time_s", "<u4"),
            ("slot_time_s", "<u4", (SLOTS,)),
            ("recent_item", "<u4", (RECENT,)),
            ("recent_time_s", "<u4", (RECENT,)),
            ("unit_offset", "<u4", (UNITS,)),
            ("unit_time_s", "<u4", (UNITS,)),
            ("units", "<u4"),
            ("version", "<u2"),
            ("partitions", "<u2"),
            ("since_recommendation", "<u2"),
            ("drifts", "<u2"),
            ("h", "<f2", hidden),
            ("c", "<f2", hidden),
            ("anchor_h", "<f2", hidden),
            ("anchor_c", "<f2", hidden),
            ("slot_category", "<u2", (SLOTS,)),
            ("slot_count", "<f2", (RATES, SLOTS)),
            ("slot_units", "<u2", (SLOTS,)),
            ("recent_category", "<u2", (RECENT,)),
            ("recent_kind", "u1", (RECENT,)),
            ("recent_slot", "u1", (RECENT,)),
            ("unit_slot", "u1", (UNITS,)),
            ("spare", "u1", (4,)),
            ("window_due_s", "<u4"),
            ("window_category", "<u2", (KEPT,)),
            ("window_probability", "<f2", (KEPT,)),
        ]
    )
    if dtype.itemsize > MAX_ROW_BYTES:
        raise StateError(
            f"A row with hidden size {hidden_size} takes {dtype.itemsize} bytes and may take "
            f"{MAX_ROW_BYTES}; train with a smaller hidden size."
        )
    return dtype


def new_rows(count: int, hidden_size: int) -> StateBatch:
    """``count`` rows of users nobody has seen yet."""
    rows = np.zeros(count, dtype=row_dtype(hidden_size))
    rows["version"] = VERSION
    rows["offset"] = -1
    return rows


def opaque(rows: StateBatch) -> np.ndarray:
    """The rows as single values of as many bytes: numpy copies those eight times as fast."""
    return rows.view(np.dtype((np.void, rows.dtype.itemsize)))


def pack(rows: StateBatch) -> list[bytes]:
    """One ``bytes`` per row, as stored and sent to the changelog."""
    size = rows.dtype.itemsize
    data = np.ascontiguousarray(rows).tobytes()
    return [data[start : start + size] for start in range(0, len(data), size)]


def unpack(values: list[bytes | None], hidden_size: int) -> StateBatch:
    """Rows from stored values, None giving a new row; StateError when a value is no row of ours.

    What the values say is within the bounds of the layout; whether it fits a vocabulary is left to
    ``check_indices``.
    """
    rows = unpack_unchecked(values, hidden_size)
    _check_contents(rows)
    return rows


def unpack_unchecked(values: list[bytes | None], hidden_size: int) -> StateBatch:
    """The same without a look at what the values say: for who only compares them."""
    dtype = row_dtype(hidden_size)
    size = dtype.itemsize
    blank = new_rows(1, hidden_size).tobytes()
    older = [at for at, value in enumerate(values) if value is not None and len(value) != size]
    if older:
        values = list(values)
        for at in older:
            values[at] = _padded(values[at] or b"", size)
    joined = bytearray().join([blank if value is None else value for value in values])
    rows = np.frombuffer(joined, dtype=dtype) if joined else np.zeros(0, dtype=dtype)
    version = rows["version"]
    expected: int | np.ndarray = VERSION
    if older:
        expected = np.full(len(rows), VERSION)
        expected[older] = 1
    if (version != expected).any():
        raise StateError(
            f"A stored row has a layout other than versions 1 to {VERSION}; "
            "see CHANGELOG.md for what reads it."
        )
    if older:
        version[older] = VERSION
    return rows


def _padded(value: bytes, size: int) -> bytes:
    """A row of version 1, which keeps no prediction, at the length of version 2."""
    if len(value) != size - _ADDED_BYTES:
        raise StateError(
            f"A stored row has {len(value)} bytes and the checkpoint's rows have {size}; "
            "start with the checkpoint the rows were made with."
        )
    return value + bytes(_ADDED_BYTES)


def check_indices(
    fields: Mapping[str, np.ndarray], user: np.ndarray, items: int, categories: int
) -> None:
    """StateError when the rows ``user`` name an item or category that the vocabulary lacks.

    For rows of the checkpoint at hand: those of another one are numbered otherwise.
    """
    for name, size in (
        ("recent_item", items),
        ("recent_category", categories),
        ("slot_category", categories),
        ("window_category", categories),
    ):
        if (fields[name][user] >= size).any():
            raise _damaged(name)


def _check_contents(rows: StateBatch) -> None:
    """StateError when a value would index outside of its array, or spoil the arithmetic."""
    for name in ("h", "c", "anchor_h", "anchor_c"):
        # On the bits of a float16: neither infinite nor NaN. Eight times as fast as isfinite.
        if ((rows[name].view("<u2") & _EXPONENT_BITS) == _EXPONENT_BITS).any():
            raise _damaged(name)
    # The bits of a float16 order as it does, from +0 on; a sign, infinity and NaN come above.
    if (rows["slot_count"].view("<u2") > _MAX_COUNT_BITS).any():
        raise _damaged("slot_count")
    if (rows["window_probability"].view("<u2") > _MAX_PROBABILITY_BITS).any():
        raise _damaged("window_probability")
    latest_ms = rows["last_time_ms"]
    if ((latest_ms < 0) | (latest_ms > MAX_TIME_MS)).any():
        raise _damaged("last_time_ms")
    if (rows["slot_time_s"] > (latest_ms // 1000)[:, None]).any():
        raise _damaged("slot_time_s")
    if (rows["offset"] < -1).any():
        raise _damaged("offset")
    slot = rows["recent_slot"]
    if ((slot >= SLOTS) & (slot != NO_SLOT)).any():
        raise _damaged("recent_slot")
    if (rows["unit_slot"] >= _UNIT_CODES).any():
        raise _damaged("unit_slot")
    if ((rows["recent_kind"] & ~np.uint8(UNIT_FLAG)) >= _KINDS).any():
        raise _damaged("recent_kind")


def _damaged(field: str) -> StateError:
    return StateError(
        f"A stored row is damaged (its {field} is out of bounds); rebuild the rows from the "
        "changelog, or from the input topics."
    )
