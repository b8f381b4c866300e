"""Scores the kept predictions of users who do not come back, by a walk through the rows.

A prediction is scored by its user's first event after the window. Who never comes back has touched
nothing, and to leave them out would make every prediction look too low. So once in a while the
rows of a partition are looked at, a slice at a time, for what became due since the last walk. The
rows stay as they are: which of the two has counted a prediction is told by the times and by how
far the walk is. What became due before the worker had the partition is counted by neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.checkpoint import Checkpoint
from model.kept_prediction import Scored, due_rows
from model.state import unpack_unchecked
from stream_app.lane.merge import NEVER
from stream_app.lane.stored_rows import is_marker

WALK_ROWS = 500
"""Looked at together: a few milliseconds."""
WALKS_OF_HORIZON = 30


class DueWalk:
    """How far the due predictions of one partition are counted.

    Args:
        latest_ms: the latest event time of the partition when the worker took it over, or `NEVER`.
        checkpoint: of the worker.
    """

    def __init__(self, latest_ms: int, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._after_s: int | None = None if latest_ms == NEVER else latest_ms // 1000
        self._until_s: int | None = None
        self.position = b""

    @property
    def is_done(self) -> bool:
        """Whether no walk is under way."""
        return self._until_s is None

    def note(self, latest_ms: int) -> None:
        """Begin a walk when event time has come far enough since the last one began."""
        if latest_ms == NEVER or not self.is_done:
            return
        latest_s = latest_ms // 1000
        if self._after_s is None:
            self._after_s = latest_s
        elif latest_s - self._after_s >= self._checkpoint.horizon_s / WALKS_OF_HORIZON:
            self._until_s = latest_s
            self.position = b""

    def next_due(self, found: Sequence[tuple[bytes, bytes]]) -> Scored:
        """What is due in the next slice, and go on behind it.

        Args:
            found: at most `WALK_ROWS` rows from `position` on.

        Raises:
            StateError: a value is no row of ours.
        """
        after_s, until_s = self._after_s or 0, self._until_s or 0
        rows = [(key, value) for key, value in found if not is_marker(key)]
        if len(rows) < WALK_ROWS:  # the markers stand behind all rows
            self._after_s, self._until_s = until_s, None
        else:
            self.position = rows[-1][0] + b"\0"
        values = unpack_unchecked([value for _, value in rows], self._checkpoint.hidden)
        return due_rows(values, after_s, until_s, self._checkpoint)

    def is_new(self, due_s: np.ndarray, keys: Sequence[bytes]) -> np.ndarray:
        """Which predictions (P,) that a batch has scored no walk has counted, and none gave up.

        Args:
            due_s: when each was due.
            keys: of their users.
        """
        new = np.ones(len(due_s), dtype=bool) if self._after_s is None else due_s > self._after_s
        if self._until_s is not None:
            passed = np.array([key < self.position for key in keys], dtype=bool)
            new &= ~passed | (due_s > self._until_s)
        return new
