"""Deletes the rows of users who were away for longer than the time to live, a slice at a time.

That a row has expired is decided by the journal (`swept_ms`): a batch begins such a user anew,
whether the row is still stored or not. The sweep only takes the bytes away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.state import unpack_unchecked
from stream_app.lane.merge import NEVER, Triple
from stream_app.lane.recovered_rows import Position, position_of
from stream_app.lane.stored_rows import is_marker

EXPIRE_PARTS = 16
SLICE_ROWS = 2000
"""Looked at between two batches: some milliseconds."""


def swept_after(latest_ms: int, ttl_ms: int, swept_ms: int) -> int:
    """The event time before which rows have expired, once an event of `latest_ms` is applied.

    Args:
        latest_ms: the latest event time of the partition.
        ttl_ms: age at which rows expire; they do so a sixteenth of it at once.
        swept_ms: the event time before which rows had expired until then.
    """
    oldest_ms = latest_ms - ttl_ms
    return oldest_ms if oldest_ms - ttl_ms // EXPIRE_PARTS >= swept_ms else swept_ms


class Sweep:
    """How far the rows of one partition are swept.

    Args:
        swept_ms: rows whose last event is older have expired.
        hidden: hidden size of the rows.
    """

    def __init__(self, swept_ms: int, hidden: int) -> None:
        self._swept_ms = swept_ms
        self._hidden = hidden
        self.position = b""
        self.is_done = swept_ms == NEVER
        self._left_some = False

    def note(self, swept_ms: int) -> None:
        """Begin again when more rows have expired."""
        if swept_ms != self._swept_ms:
            self._swept_ms = swept_ms
            self._begin()

    def committed(self) -> bool:
        """Begin again when rows were left because their offsets were not committed yet."""
        begins = self.is_done and self._left_some
        if begins:
            self._begin()
        return begins

    def _begin(self) -> None:
        self.position = b""
        self.is_done = self._left_some = False

    def next_expired(
        self, found: Sequence[tuple[bytes, bytes]], committed: Sequence[int], epochs: Triple
    ) -> dict[bytes, Position]:
        """The keys to delete of the next slice, with their positions, and go on behind it.

        Args:
            found: at most `SLICE_ROWS` rows from `position` on.
            committed: offsets of the input topics; a row with later ones stays.
            epochs: of the input topics.

        Raises:
            StateError: a value is no row of ours.
        """
        rows = [(key, value) for key, value in found if not is_marker(key)]
        if not rows or len(rows) < len(found) or len(found) < SLICE_ROWS:
            self.is_done = True
        if not rows:
            return {}
        self.position = rows[-1][0] + b"\0"
        values = unpack_unchecked([value for _, value in rows], self._hidden)
        known = values["epoch"] == np.asarray(epochs, dtype=np.uint32)
        is_committed = (~known | (values["offset"] < np.asarray(committed))).all(axis=1)
        expired = values["last_time_ms"] < self._swept_ms
        self._left_some |= bool((expired & ~is_committed).any())
        gone = [rows[index] for index in np.flatnonzero(expired & is_committed).tolist()]
        return {key: position_of(value) for key, value in gone}
