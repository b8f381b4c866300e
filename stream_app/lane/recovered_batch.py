"""The same as recovered_rows.py for thousands of changelog records at once, by arrays.

`recover` there says record by record what is the later state. Here the records whose key comes once
and that are rows are compared all at a time; the others, which are few, go through `recover`.

Pure: no Kafka, no store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from model.state import row_dtype
from stream_app.lane.history_mark import MARK
from stream_app.lane.recovered_rows import POSITION_HEADER, Change, Recovered, recover
from stream_app.lane.stored_rows import MARKER_PREFIX, Markers, is_marker, key_hash

Rows = Mapping[bytes, bytes | None]

_ROW = row_dtype(1)
_FIELDS = _ROW.fields
assert _FIELDS is not None
_START, _END = _FIELDS["offset"][1], _FIELDS["epoch"][1] + _FIELDS["epoch"][0].itemsize
_POSITION = np.dtype(
    {
        "names": ["offset", "epoch"],
        "formats": [_FIELDS["offset"][0], _FIELDS["epoch"][0]],
        "offsets": [0, _FIELDS["epoch"][1] - _START],
        "itemsize": _END - _START,
    }
)
"""Where a row has its position; a value that ends before `_END` has none."""


def recover_batch(records: Sequence[Any], stored: Rows, markers: Markers) -> Recovered:
    """Apply changelog records in their order, but for those that are older than what is there.

    Args:
        records: of one partition, with the attributes key, value and headers.
        stored: what the store has under their keys; a key without a row may be left out.
        markers: of the erased users; markers among the records are added.
    """
    values = {record.key: record.value for record in records}
    erased = _erased(values, markers)
    if not erased and _are_rows_of_new_users(records, values, stored):
        return Recovered(values)
    apart = _apart(records, values, stored, erased)
    found = recover([_change(record) for record in records if record.key in apart], stored, markers)
    for key in apart:
        del values[key]
    stale = _stale(values, stored)
    for key in stale:
        del values[key]
    values.update(found.values)
    return Recovered(values, stale | found.stale)


def _erased(values: Rows, markers: Markers) -> set[bytes]:
    """Hashes of the users who have a marker, or get one among the records."""
    found = markers.keys() - {MARK}
    if max(values, default=b"") >= MARKER_PREFIX:
        found |= {key[len(MARKER_PREFIX) :] for key in values if is_marker(key)}
    return found


def _are_rows_of_new_users(records: Sequence[Any], values: Rows, stored: Rows) -> bool:
    """Whether nothing can be older: each key comes once, has no row, and is not deleted."""
    return len(values) == len(records) and not any(stored.values()) and None not in values.values()


def _apart(records: Sequence[Any], values: Rows, stored: Rows, erased: set[bytes]) -> set[bytes]:
    """Keys whose records are to be looked at one by one; the markers are among them."""
    apart = {
        key
        for key, value in values.items()
        if value is None
        or len(value) < _END
        or ((row := stored.get(key)) is not None and len(row) < _END)
        or (row is None and erased and key_hash(key) in erased)
    }
    if erased:
        apart.update(key for key in values if is_marker(key))
    if len(values) < len(records):
        times = Counter(record.key for record in records)
        apart.update(key for key, count in times.items() if count > 1)
    return apart


def _change(record: Any) -> Change:
    return record.key, record.value, dict(record.headers or ()).get(POSITION_HEADER)


def _stale(values: Rows, stored: Rows) -> set[bytes]:
    """Keys of rows that are earlier than those of the store, as `Position.is_before` has it."""
    pairs = [(key, value, row) for key, value in values.items() if (row := stored.get(key))]
    if not pairs:
        return set()
    keys, come, have = zip(*pairs, strict=True)
    mine, theirs = _positions(come), _positions(have)  # (R,), fields (R, 3)
    at, other = mine["offset"], theirs["offset"]
    comparable = (mine["epoch"] == theirs["epoch"]) & (at >= 0) & (other >= 0)
    behind = (comparable & (at < other)).any(axis=1) & ~(comparable & (at > other)).any(axis=1)
    nowhere = (at == -1).all(axis=1) & (mine["epoch"] == 0).all(axis=1)
    before = np.where(nowhere, other.max(axis=1) >= 0, behind)
    return {keys[index] for index in np.flatnonzero(before).tolist()}


def _positions(rows: Sequence[bytes]) -> npt.NDArray[Any]:
    return np.frombuffer(b"".join([row[_START:_END] for row in rows]), _POSITION)
