"""What counting alone says: the floors that a network has to beat.

Window baselines score categories of users at a cut-off; item baselines list the next items.
Dimensions: U users, C categories, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.events import EventBatch
from model.metrics import labels, ndcg_by_user

DAY_S = 86400
HALF_LIVES_DAYS = (1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 120.0)
POPULARITY_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class History:
    """Steps before a cut-off, in replay order.

    steps      with ``user`` from 0 to ``users`` - 1
    cutoff_s   no step is at or after it
    """

    steps: EventBatch
    users: int
    categories: int
    cutoff_s: int

    def before(self, cutoff_s: int) -> History:
        """The part of the history before an earlier cut-off."""
        earlier = self.steps.take(self.steps.time_ms < cutoff_s * 1000)
        return History(earlier, self.users, self.categories, cutoff_s)

    def counts(self, half_life_s: float = np.inf) -> np.ndarray:
        """Counts of each user's categories, decayed up to the cut-off, (U, C); column 0 is 0."""
        age_s = self.cutoff_s - self.steps.time_ms / 1000
        key = self.steps.user * self.categories + self.steps.category
        weight = np.exp2(-age_s / half_life_s)
        counts = np.bincount(key, weight, minlength=self.users * self.categories)
        counts = counts.reshape(self.users, self.categories)
        counts[:, 0] = 0
        return np.asarray(counts)

    def popularity(self, window_s: float) -> np.ndarray:
        """Users who touched each category in the last ``window_s``, as shares, (C,)."""
        recent = self.steps.time_ms >= (self.cutoff_s - window_s) * 1000
        touched = np.unique(self.steps.user[recent] * self.categories + self.steps.category[recent])
        share = np.bincount(touched % self.categories, minlength=self.categories).astype(float)
        share[0] = 0
        return share / max(self.users, 1)


def most_popular(history: History, horizon_s: int) -> np.ndarray:
    """The same for everybody: how many users touched a category in the last horizon, (U, C)."""
    return np.tile(history.popularity(horizon_s), (history.users, 1))


def last_touched(history: History, horizon_s: int) -> np.ndarray:
    """The latest categories first, then the popular ones, (U, C)."""
    latest = np.zeros((history.users, history.categories))
    steps = history.steps
    np.maximum.at(latest, (steps.user, steps.category), 1.0 + np.arange(len(steps)))
    latest[:, 0] = 0
    return latest + history.popularity(horizon_s) / 2


def history_frequency(history: History, horizon_s: int) -> np.ndarray:
    """How often the user touched a category, popularity breaking ties, (U, C)."""
    return history.counts() + history.popularity(horizon_s) / 2


@dataclass(frozen=True)
class DecayedCounts:
    """Counts that fade, mixed with popularity; both numbers are chosen on an earlier window."""

    half_life_s: float
    popularity_weight: float

    def scores(self, history: History, horizon_s: int) -> np.ndarray:
        """(U, C)."""
        mixed = self.popularity_weight * history.popularity(horizon_s)
        return np.asarray(history.counts(self.half_life_s) + mixed)


def tune_decayed_counts(history: History, horizon_s: int) -> DecayedCounts:
    """The half-life and mix with the best NDCG@10 on the window that ends at the cut-off."""
    earlier = history.before(history.cutoff_s - horizon_s)
    label = labels(history.steps, history.users, history.categories, earlier.cutoff_s, horizon_s)
    best, chosen = -1.0, DecayedCounts(horizon_s, POPULARITY_WEIGHTS[0])
    popularity = earlier.popularity(horizon_s)
    for days in HALF_LIVES_DAYS:
        half_life_s = days * DAY_S * min(1.0, horizon_s / (30 * DAY_S))
        counts = earlier.counts(half_life_s)
        for weight in POPULARITY_WEIGHTS:
            ndcg = float(np.nanmean(ndcg_by_user(counts + weight * popularity, label)))
            if ndcg > best:
                best, chosen = ndcg, DecayedCounts(half_life_s, weight)
    return chosen


def popular_items(steps: EventBatch, k: int) -> np.ndarray:
    """The k most frequent items, best first."""
    count = np.bincount(steps.item[steps.item > 0])
    return np.argsort(-count, kind="stable")[:k]


def last_items(items: list[int], popular: np.ndarray, k: int) -> list[int]:
    """The user's latest distinct items, newest first, filled up with popular ones."""
    return list(dict.fromkeys([*reversed(items), *popular.tolist()]))[:k]
