"""Which of two changelog records of a user is the later state, whatever their order is.

A worker that was stopped and wakes up may append a row older than the one before it. Rows of a user
follow the one order of the journal, so the offsets in them tell which is older; a record
without a value carries the offsets of what it deletes in its header.

Pure: no Kafka, no store.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from model.state import row_dtype
from stream_app.lane.stored_rows import (
    MARKER_PREFIX,
    Marker,
    Markers,
    decode_marker,
    is_marker,
    key_hash,
)

POSITION_HEADER = "position"

_FIELDS = row_dtype(1).fields
assert _FIELDS is not None
_OFFSETS_AT, _EPOCHS_AT = _FIELDS["offset"][1], _FIELDS["epoch"][1]
_OFFSETS, _EPOCHS = struct.Struct("<3q"), struct.Struct("<3I")
_POSITION = struct.Struct("<3q3I")


@dataclass(frozen=True)
class Position:
    """How far a user's events are applied: offset (-1 for none) and epoch per input topic."""

    offsets: tuple[int, ...]
    epochs: tuple[int, ...]

    def is_before(self, other: Position) -> bool:
        """Whether it is earlier; false when nothing tells.

        A row that was made from a file is nowhere, and earlier than what the topics made of it.
        """
        if self == NOWHERE:
            return max(other.offsets) >= 0
        pairs = [
            (mine, theirs)
            for mine, theirs, a, b in zip(
                self.offsets, other.offsets, self.epochs, other.epochs, strict=True
            )
            if a == b and mine >= 0 and theirs >= 0
        ]
        return any(a < b for a, b in pairs) and not any(a > b for a, b in pairs)


NOWHERE = Position((-1, -1, -1), (0, 0, 0))


def position_of(row: bytes) -> Position:
    """The position in a stored row; nowhere for a value that is none."""
    if len(row) < _EPOCHS_AT + _EPOCHS.size:
        return NOWHERE
    return Position(_OFFSETS.unpack_from(row, _OFFSETS_AT), _EPOCHS.unpack_from(row, _EPOCHS_AT))


def marker_position(marker: Marker) -> Position:
    """The position up to which an erased user's events are skipped."""
    return Position(marker.offsets, marker.epochs)


def encode_position(position: Position) -> bytes:
    """The value of the header of a record without a value."""
    return _POSITION.pack(*position.offsets, *position.epochs)


def decode_position(value: bytes) -> Position | None:
    """The position in a header, None when it is none of ours."""
    if len(value) != _POSITION.size:
        return None
    numbers = _POSITION.unpack(value)
    return Position(numbers[:3], numbers[3:])


@dataclass
class Recovered:
    """What a slice of a changelog partition changes.

    values   rows, markers, and None for what is deleted, by key
    stale    keys whose last record is older than what we have
    """

    values: dict[bytes, bytes | None] = field(default_factory=dict)
    stale: set[bytes] = field(default_factory=set)


Change = tuple[bytes, bytes | None, bytes | None]
"""Key, value, and the header `POSITION_HEADER` of a changelog record."""


def recover(
    changes: Iterable[Change], stored: Mapping[bytes, bytes | None], markers: Markers
) -> Recovered:
    """Apply changelog records in their order, but for those that are older than what is there.

    Args:
        changes: of one partition.
        stored: what the store has under their keys.
        markers: of the erased users; markers among the changes are added.
    """
    found = Recovered()
    for key, value, header in changes:
        if is_marker(key):
            if value is not None:
                markers[key[len(MARKER_PREFIX) :]] = decode_marker(value)
            found.values[key] = value
            continue
        current = found.values[key] if key in found.values else stored.get(key)
        if _is_stale(value, header, current, key, markers):
            found.stale.add(key)
        else:
            found.values[key] = value
            found.stale.discard(key)
    return found


def _is_stale(
    value: bytes | None,
    header: bytes | None,
    current: bytes | None,
    key: bytes,
    markers: Markers,
) -> bool:
    if value is None:
        deleted = None if header is None else decode_position(header)
        return (
            deleted is not None and current is not None and deleted.is_before(position_of(current))
        )
    if current is not None:
        return position_of(value).is_before(position_of(current))
    if not markers:
        return False
    marker = markers.get(key_hash(key))
    return marker is not None and _is_covered(position_of(value), marker_position(marker))


def _is_covered(row: Position, marker: Position) -> bool:
    """Whether an erasure came after the last event of the row."""
    return all(
        at <= erased
        for at, erased, a, b in zip(
            row.offsets, marker.offsets, row.epochs, marker.epochs, strict=True
        )
        if a == b
    )
