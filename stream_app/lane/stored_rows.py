"""What a batch begins with and leaves: stored values to rows and back, erased and expired users.

Pure: the worker and the offline replay both come through here.

A user's row stands under the user id. What is left of an erased user is a marker under a hash of
the id: how far the inputs had been applied, so that a replay of them does not bring the user back.
Marker keys begin with a byte that UTF-8 never contains.

Layout of a marker, little endian, 64 bytes:

==========  ==========  ===========================================================================
version     uint16      1
partitions  uint16      partition count of the input topics
epoch       uint32 x 3  epoch of each input topic
offset      int64 x 3   last offset per input topic at or below which the user's events are skipped
control     int64       offset of the control record
erased_ms   int64       when it was asked for, epoch milliseconds
reserved    int64       0
==========  ==========  ===========================================================================
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from model.errors import StateError
from model.state import StateBatch, new_rows, pack, unpack
from stream_app.errors import StoreError
from stream_app.lane.merge import NEVER, Triple

MARKER_PREFIX = b"\xff"
VERSION = 1
CARRIED_OVER = -1
"""`control` of a marker that comes from other rows: every erasure among these is later."""
_LAYOUT = struct.Struct("<HH3I3qqqq")


@dataclass(frozen=True)
class Marker:
    """What is left of an erased user; see the layout above."""

    partitions: int
    epochs: Triple
    offsets: Triple
    control: int
    erased_ms: int


Markers = dict[bytes, Marker]
"""The markers of a partition by the hash of the user."""


def user_hash(user: str) -> bytes:
    """16 bytes that name a user without the user id."""
    return key_hash(user.encode())


def key_hash(key: bytes) -> bytes:
    """The same from the key of the user's row."""
    return hashlib.sha256(key).digest()[:16]


def is_marker(key: bytes) -> bool:
    """Whether a key of the store or the changelog is a marker's."""
    return key.startswith(MARKER_PREFIX)


def marker_key(erased: bytes) -> bytes:
    """The key of the marker of a user hash."""
    return MARKER_PREFIX + erased


def encode_marker(marker: Marker) -> bytes:
    """The stored value of a marker."""
    head = (VERSION, marker.partitions, *marker.epochs, *marker.offsets)
    return _LAYOUT.pack(*head, marker.control, marker.erased_ms, 0)


def decode_marker(value: bytes) -> Marker:
    """The marker in a stored value.

    Raises:
        StoreError: the value is no marker of ours.
    """
    if len(value) != _LAYOUT.size or value[:2] != VERSION.to_bytes(2, "little"):
        raise StoreError(
            "A stored marker of an erased user is none of ours; start the program that wrote it."
        )
    _, partitions, *numbers, control, erased_ms, _ = _LAYOUT.unpack(value)
    epochs, offsets = cast(Triple, tuple(numbers[:3])), cast(Triple, tuple(numbers[3:]))
    return Marker(partitions, epochs, offsets, control, erased_ms)


@dataclass(frozen=True)
class Begun:
    """The rows that a batch begins with.

    states      (U,) rows
    erased      (U,) bool: the row is new and of a user who was erased
    """

    states: StateBatch
    erased: np.ndarray


def begin(
    users: Sequence[str],
    values: Sequence[bytes | None],
    markers: Mapping[bytes, Marker],
    swept_ms: int,
    hidden: int,
) -> Begun:
    """Rows of the users of a batch.

    Args:
        users: user ids, (U,).
        values: their stored rows, None where there is none.
        markers: of the partition.
        swept_ms: rows whose last event is older have expired, whether they are stored or not.
        hidden: hidden size.

    Raises:
        StateError: a stored value is no row of ours.
    """
    return begin_with(unpack(list(values), hidden), users, markers, swept_ms, hidden)


def begin_with(
    states: StateBatch,
    users: Sequence[str],
    markers: Mapping[bytes, Marker],
    swept_ms: int,
    hidden: int,
) -> Begun:
    """The same from rows that are unpacked, which change in place."""
    begin_anew(states, swept_ms, hidden)
    erased = np.zeros(len(states), dtype=bool)
    if markers:
        for index in np.flatnonzero(states["events"] == 0).tolist():
            marker = markers.get(user_hash(users[index]))
            if marker is not None:
                erased[index] = True
                states[index]["offset"] = marker.offsets
                states[index]["epoch"] = marker.epochs
                states[index]["partitions"] = marker.partitions
    return Begun(states, erased)


def begin_anew(states: StateBatch, swept_ms: int, hidden: int) -> None:
    """Give users whose row has expired a new one, in place."""
    if swept_ms != NEVER:
        expired = np.flatnonzero((states["last_time_ms"] < swept_ms) & (states["events"] > 0))
        if len(expired):
            states[expired] = new_rows(1, hidden)[0]


def end(begun: Begun, keys: Sequence[bytes], moved: StateBatch) -> tuple[list[bytes], list[bytes]]:
    """Keys and values to store: all rows but those of erased users of whom nothing new came."""
    rows = pack(moved)
    if not begun.erased.any():
        return list(keys), rows
    kept = np.flatnonzero(~begun.erased | (moved["events"] > 0)).tolist()
    return [keys[i] for i in kept], [rows[i] for i in kept]


def has_expired(value: bytes, swept_ms: int, hidden: int) -> bool:
    """Whether a stored row has expired."""
    return bool(unpack([value], hidden)["last_time_ms"][0] < swept_ms)


def check_size(found: Sequence[tuple[bytes, bytes]], hidden: int) -> None:
    """Refuse stored rows of another hidden size, before rows of this one are written beside them.

    Args:
        found: keys and values of a partition; one row tells for all.
        hidden: hidden size of the checkpoint.

    Raises:
        StoreError: the values are no rows of this hidden size.
    """
    try:
        unpack([value for key, value in found if not is_marker(key)], hidden)
    except StateError as error:
        raise StoreError(str(error)) from error
