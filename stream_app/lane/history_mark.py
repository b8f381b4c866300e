"""The mark in a changelog partition which says that rows were made from a file.

It stands among the markers of erased users, under a hash that no user has, so that recovery and
compaction keep it. Before the first row it says that the rows are begun, and after the last row of
all partitions that they are complete.
"""

from __future__ import annotations

from stream_app.errors import RecoveryError
from stream_app.lane.stored_rows import Marker, Markers, decode_marker, encode_marker, marker_key

MARK = b"rows from a file"
MARK_KEY = marker_key(MARK)
BEGUN, COMPLETE = 0, 1
"""`control` of the mark."""


def encode_mark(partitions: int, state: int, now_ms: int) -> bytes:
    """The value of the mark; `now_ms` stands where an erasure has its time."""
    return encode_marker(Marker(partitions, (0, 0, 0), (-1, -1, -1), state, now_ms))


def decode_mark(value: bytes) -> int:
    """`BEGUN` or `COMPLETE`.

    Raises:
        StoreError: the value is no mark of ours.
    """
    return decode_marker(value).control


def check_complete(markers: Markers) -> None:
    """Refuse a partition whose rows are made in part.

    Raises:
        RecoveryError: rows from a file are being published, or that was interrupted.
    """
    mark = markers.get(MARK)
    if mark is not None and mark.control != COMPLETE:
        raise RecoveryError(
            "The rows of a history in a file are published in part only; run interest-stream "
            "replay --offline FILE to its end, and start the worker then."
        )
