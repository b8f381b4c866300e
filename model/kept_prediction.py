"""Predictions that rows keep until their window has passed, and how they came out.

At a recommendation whose event falls into the sample, a row that keeps none takes the three
likeliest categories with their probabilities, as the recommendation says them, and the end of
the horizon. The user's first step after that end scores them: which of the categories the user
has touched in between. That is read off the row's slots, which say when each category was last
touched, so that nothing has to be noted on the way. The window begins with the second after the
prediction; a category whose slot was taken by a 65th one counts as untouched.

All of it is a function of row and events: it does not depend on how batches are cut. Whoever
never comes back scores nothing here; ``due_rows`` is for those.

Dimensions: U rows, N steps, T predictions taken and S scored in a batch, R rows read out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model import interests
from model.checkpoint import Checkpoint
from model.events import taken
from model.interests import Fields, Interests
from model.state import KEPT, MAX_PROBABILITY, StateBatch

SAMPLE = 16
"""One of so many recommendations, by the hash of its event, may be kept."""
CHUNK_ROWS = 256
_NO_TIME_S = 2**32 - 1
_FIELDS = ("window_due_s", "window_category", "window_probability")


@dataclass(frozen=True)
class Scored:
    """S predictions whose window has passed.

    step         (S,) index of the step that came after the window, in its batch
    due_s        (S,) event time at which the window ended
    category     (S, 3) int64, 0 = none
    probability  (S, 3) float64
    happened     (S, 3) bool: the user touched the category within the window
    """

    step: np.ndarray
    due_s: np.ndarray
    category: np.ndarray
    probability: np.ndarray
    happened: np.ndarray

    def __len__(self) -> int:
        return len(self.step)

    def take(self, index: np.ndarray) -> Scored:
        """The predictions at ``index``."""
        return taken(self, index)


class KeptPredictions:
    """The kept predictions of U rows while a batch goes over them.

    What a prediction says is known only when the lists of the batch are made, at its end, so until
    ``settle`` a row holds the end of the window alone.

    Args:
        fields: of the rows, which are changed in place.
        clock_s: the users' clocks after each step (N,), in seconds.
        horizon_s: length of a window.
    """

    def __init__(self, fields: Fields, clock_s: np.ndarray, horizon_s: int) -> None:
        self._fields = fields
        self._horizon_s = horizon_s
        due_s, latest_s = fields["window_due_s"], int(clock_s.max(initial=0))
        spans = latest_s - int(clock_s.min(initial=latest_s)) > horizon_s
        self._may_end = spans or bool(((due_s > 0) & (due_s < latest_s)).any())
        self._number = np.full(len(due_s), -1)  # of the prediction that a row took in this batch
        self._count = 0
        self._taken: list[tuple[np.ndarray, np.ndarray]] = []
        self._ended: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def end(self, step: np.ndarray, user: np.ndarray, time_s: np.ndarray, rows: np.ndarray) -> None:
        """Takes out what is due before these steps (B,) of distinct users; ``rows`` opaque."""
        if not self._may_end:
            return
        due_s = self._fields["window_due_s"][user]
        ended = np.flatnonzero((due_s > 0) & (time_s > due_s))
        if len(ended):
            of = user[ended]
            self._ended.append((step[ended], rows[of], self._number[of]))
            self._number[of] = -1
            for name in _FIELDS:
                self._fields[name][of] = 0

    def take(
        self, step: np.ndarray, user: np.ndarray, time_s: np.ndarray, rows: np.ndarray
    ) -> None:
        """Begins a window at recommendations of the sample (B,) for rows that keep none."""
        free = np.flatnonzero(self._fields["window_due_s"][user] == 0)
        if len(free):
            of = user[free]
            self._taken.append((step[free], rows[of]))
            self._number[of] = np.arange(self._count, self._count + len(of))
            self._count += len(of)
            self._fields["window_due_s"][of] = np.minimum(
                time_s[free] + self._horizon_s, _NO_TIME_S
            )

    @property
    def taken_step(self) -> np.ndarray:
        """(T,) the steps after which predictions were taken."""
        return np.concatenate([np.zeros(0, np.int64), *[step for step, _ in self._taken]])

    def last_rows(self, dtype: np.dtype) -> StateBatch:
        """The rows as they were when they took what they still keep, for ``settle_last``."""
        _, number = self._last()
        if not len(number):
            return np.zeros(0, dtype)
        return np.concatenate([rows for _, rows in self._taken])[number].view(dtype)

    def settle_last(self, likely: Interests) -> None:
        """Writes what the rows of ``last_rows`` predict; what has ended meanwhile is forgotten."""
        kept, _ = self._last()
        self._write(kept, *_stored(likely))

    def settle(self, likely: Interests, dtype: np.dtype) -> Scored:
        """Writes the predictions taken (T,) into their rows, and scores those that have ended."""
        category, probability = _stored(likely)  # (T, 3)
        kept, last = self._last()
        self._write(kept, category[last], probability[last])
        if not self._ended:
            return none_scored()
        step, parts, number = (np.concatenate(column) for column in zip(*self._ended, strict=True))
        rows = parts.view(dtype)
        here = np.flatnonzero(number >= 0)  # taken and ended in the same batch
        rows["window_category"][here] = category[number[here]]
        rows["window_probability"][here] = probability[number[here]]
        order = np.argsort(step, kind="stable")
        return outcomes(rows[order], step[order], self._horizon_s)

    def _last(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows that keep a prediction of this batch, and its number among those taken."""
        if not self._count:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        kept = np.flatnonzero((self._number >= 0) & (self._fields["window_due_s"] > 0))
        return kept, self._number[kept]

    def _write(self, kept: np.ndarray, category: np.ndarray, probability: np.ndarray) -> None:
        self._fields["window_category"][kept] = category
        self._fields["window_probability"][kept] = probability


def none_scored() -> Scored:
    """No prediction."""
    none = np.zeros((0, KEPT))
    steps = np.zeros(0, np.int64)
    return Scored(steps, steps, none.astype(np.int64), none, none.astype(bool))


def outcomes(rows: StateBatch, step: np.ndarray, horizon_s: int) -> Scored:
    """How the predictions kept in rows (S,) came out, read after their window and before a step."""
    category = rows["window_category"]  # (S, 3)
    due_s = rows["window_due_s"].astype(np.int64)
    within = rows["slot_time_s"] > (due_s - horizon_s)[:, None]  # (S, 64)
    same = rows["slot_category"][:, None, :] == category[:, :, None]  # (S, 3, 64)
    happened = (same & within[:, None, :]).any(2) & (category > 0)
    probability = rows["window_probability"].astype(np.float64)
    return Scored(step, due_s, category.astype(np.int64), probability, happened)


def due_rows(rows: StateBatch, after_s: int, until_s: int, checkpoint: Checkpoint) -> Scored:
    """The predictions of rows of users who have not come back, due after one time and by another.

    The steps are the places of the rows (U,).
    """
    due_s = rows["window_due_s"].astype(np.int64)
    known = rows["checkpoint"] == checkpoint.number
    found = np.flatnonzero(known & (due_s > max(after_s, 0)) & (due_s <= until_s))
    return outcomes(rows[found], found, checkpoint.horizon_s)


def likely_categories(rows: StateBatch, checkpoint: Checkpoint) -> Interests:
    """What a recommendation would say of rows (R,) at their last event, without making its list."""
    named = checkpoint.vocabulary.first_category_bucket
    none = np.zeros((0, KEPT))
    found = [Interests(none.astype(np.int64), none, none)] if len(rows) == 0 else []
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        out = interests.hidden_readout(part, checkpoint)
        logits = interests.category_logits(part, out, part["last_time_ms"] // 1000, checkpoint)
        found.append(interests.top_interests(logits, named, KEPT))
    return Interests(
        np.concatenate([one.category for one in found]),
        np.concatenate([one.probability for one in found]),
        np.concatenate([one.uncertainty for one in found]),
    )


def _stored(likely: Interests) -> tuple[np.ndarray, np.ndarray]:
    """Categories and probabilities as rows keep them, (T, 3); 0 where there are fewer."""

    def first(values: np.ndarray) -> np.ndarray:
        found = values[:, :KEPT]
        return np.pad(found, ((0, 0), (0, KEPT - found.shape[1])))

    probability = np.minimum(first(likely.probability), MAX_PROBABILITY)
    return first(likely.category).astype(np.uint16), probability.astype(np.float16)
