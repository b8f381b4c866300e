"""What counting says about the next item: the floors that a list has to beat.

A *query* is a user's history, newest item last; a baseline scores every item for it. The floor is
a mix of Markov transitions, of item-based nearest neighbours, of the user's own items and of
popularity, tuned on a later slice of the same log.
Dimensions: Q queries, I items, N steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from model.counting import (
    by_user,
    follow_pairs,
    follow_shares,
    together_cosines,
    together_pairs,
)
from model.events import EventBatch
from model.learning import Progress

NEIGHBOURS = 100
LATEST = 20
"""Items of a history that count, newest first."""
RECENT_SHARE = 0.1
BLOCK_ENTRIES = 2_000_000
"""Scores held together: queries of a block times items."""
LATE_QUERIES = 2000
MARKOV_DECAYS = (0.3, 0.6, 0.8)
KNN_WEIGHTS = (0.0, 0.3, 1.0, 3.0)
KNN_DECAYS = (0.8, 0.95)
OWN_WEIGHTS = (0.0, 0.1, 0.5, 2.0)
OWN_DECAY = 0.8
POPULAR_WEIGHTS = (0.01, 0.1)


@dataclass(frozen=True)
class Queries:
    """Histories of Q queries: query q knows ``item[start[q]:end[q]]``, in order of time.

    item   (N,) int64 items of the steps by user, 0 = none
    """

    item: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: np.ndarray | slice) -> Queries:
        """The queries at ``index``."""
        return Queries(self.item, self.start[index], self.end[index])

    def latest(self, count: int) -> np.ndarray:
        """The latest items of each query, newest first, 0 = none: (Q, count)."""
        at = self.end[:, None] - 1 - np.arange(count)
        inside = at >= self.start[:, None]
        return np.where(inside, self.item[np.where(inside, at, 0)], 0)


@dataclass(frozen=True)
class Mix:
    """Weights of the floor's parts; decays are per step back.

    knn, own, popular   weights beside that of the Markov part, which is 1
    """

    markov_decay: float = 0.6
    knn: float = 0.3
    knn_decay: float = 0.9
    own: float = 0.1
    popular: float = 0.01


class ItemFloor:
    """Markov transitions, item-based kNN, own items and popularity, counted on N steps of a log."""

    def __init__(self, steps: EventBatch, items: int, named: int, horizon_s: int) -> None:
        """``named``: items from this index on have no name and are never listed."""
        steps = by_user(steps.take(steps.item > 0))
        self.items, self.named = items, named
        follows = follow_shares(follow_pairs(steps, items, horizon_s), items)
        together = together_cosines(together_pairs(steps, items), items)
        self.next_item, self.next_weight = follows.best(items, NEIGHBOURS)
        self.near_item, self.near_weight = together.best(items, NEIGHBOURS)
        total = np.bincount(steps.item, minlength=items).astype(np.float64)
        newest = steps.time_ms >= np.quantile(steps.time_ms, 1 - RECENT_SHARE)
        recent = np.bincount(steps.item[newest], minlength=items)
        self.popular = np.sqrt(recent / max(recent.max(), 1)) + 1e-3 * total / total.max()
        self.popular[0] = 0

    def tune(
        self, queries: Queries, target: np.ndarray, unseen: bool, progress: Progress, at: int = 10
    ) -> Mix:
        """The mix whose lists have the highest NDCG at ``at`` on later queries (Q,)."""
        mixes = [
            Mix(*values)
            for values in product(
                MARKOV_DECAYS, KNN_WEIGHTS, KNN_DECAYS, OWN_WEIGHTS, POPULAR_WEIGHTS
            )
            if not (values[1] == 0 and values[2] != KNN_DECAYS[0])
            and not (unseen and values[3] != 0)
        ]
        total = np.zeros(len(mixes))
        for part in self._blocks(len(queries)):
            block, goal = queries.take(part), target[part]
            latest = block.latest(LATEST)
            markov = {decay: self._markov(latest, decay) for decay in MARKOV_DECAYS}
            knn = {decay: self._knn(latest, decay) for decay in KNN_DECAYS}
            own = self._own(latest)
            hidden = self._hidden(block, unseen)
            row = np.arange(len(goal))
            for number, mix in enumerate(mixes):
                score = markov[mix.markov_decay] + np.float32(mix.popular) * self._popularity
                if mix.knn:
                    score += np.float32(mix.knn) * knn[mix.knn_decay]
                if mix.own:
                    score += np.float32(mix.own) * own
                score[hidden] = -1
                rank = (score > score[row, goal][:, None]).sum(1)
                total[number] += np.where(rank < at, 1 / np.log2(rank + 2.0), 0).sum()
            progress("floor", int(part.stop), len(queries))
        return mixes[int(total.argmax())]

    def lists(self, queries: Queries, mix: Mix, k: int, unseen: bool) -> np.ndarray:
        """The k best items of each query, best first, 0 where there are fewer: (Q, k)."""
        found = [np.zeros((0, k), np.int64)]
        for part in self._blocks(len(queries)):
            block = queries.take(part)
            latest = block.latest(LATEST)
            score = self._markov(latest, mix.markov_decay)
            score += np.float32(mix.popular) * self._popularity
            if mix.knn:
                score += np.float32(mix.knn) * self._knn(latest, mix.knn_decay)
            if mix.own:
                score += np.float32(mix.own) * self._own(latest)
            score[self._hidden(block, unseen)] = -1
            top = np.argpartition(-score, min(k, score.shape[1] - 1), axis=1)[:, :k]
            top.sort(axis=1)
            value = np.take_along_axis(score, top, 1)
            order = np.argsort(-value, axis=1, kind="stable")
            top, value = np.take_along_axis(top, order, 1), np.take_along_axis(value, order, 1)
            found.append(np.where(value > 0, top, 0))
        return np.concatenate(found)

    def repeat_last(self, queries: Queries, k: int) -> np.ndarray:
        """The user's latest distinct items, newest first, filled up with popular ones: (Q, k).

        An item that the counted steps lack has a number behind theirs.
        """
        popular = np.argsort(-self.popular[: self.named], kind="stable")[: 2 * k].tolist()
        found = np.zeros((len(queries), k), np.int64)
        for row, latest in enumerate(queries.latest(5 * k).tolist()):
            known = (i for i in latest if 0 < i < self.named or i >= self.items)
            listed = list(dict.fromkeys([*known, *popular]))[:k]
            found[row, : len(listed)] = listed
        return found

    def most_popular(self, queries: Queries, k: int) -> np.ndarray:
        """The items that are popular of late, the same for all: (Q, k)."""
        best = np.argsort(-self.popular[: self.named], kind="stable")[:k]
        return np.tile(best, (len(queries), 1))

    @property
    def _popularity(self) -> np.ndarray:
        return self.popular.astype(np.float32)

    def _blocks(self, queries: int) -> Iterator[slice]:
        size = max(1, BLOCK_ENTRIES // self.items)
        for at in range(0, queries, size):
            yield slice(at, min(at + size, queries))

    def _dense(
        self, row: np.ndarray, item: np.ndarray, weight: np.ndarray, rows: int
    ) -> np.ndarray:
        size = rows * self.items
        dense = np.bincount(row * self.items + item, weight, minlength=size)
        dense = dense.reshape(rows, self.items).astype(np.float32)
        dense[:, 0] = 0
        return dense

    def _markov(self, latest: np.ndarray, decay: float) -> np.ndarray:
        return self._summed(self.next_item, self.next_weight, latest, decay)

    def _summed(
        self, neighbour: np.ndarray, weight: np.ndarray, latest: np.ndarray, decay: float
    ) -> np.ndarray:
        item = neighbour[latest]  # (Q, J, K)
        value = weight[latest] * (decay ** np.arange(latest.shape[1]))[:, None]
        row = np.broadcast_to(np.arange(len(latest))[:, None, None], item.shape)
        return self._dense(row.ravel(), item.ravel(), value.ravel(), len(latest))

    def _own(self, latest: np.ndarray) -> np.ndarray:
        weight = np.broadcast_to(OWN_DECAY ** np.arange(latest.shape[1]), latest.shape)
        row = np.broadcast_to(np.arange(len(latest))[:, None], latest.shape)
        return self._dense(row.ravel(), latest.ravel(), weight.ravel(), len(latest))

    def _knn(self, latest: np.ndarray, decay: float) -> np.ndarray:
        """What users have together with the latest items, by cosine: item-based kNN."""
        return self._summed(self.near_item, self.near_weight, latest, decay)

    def _hidden(self, queries: Queries, unseen: bool) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of what is not listed: unnamed items, and the seen ones where asked."""
        rows = len(queries)
        unnamed = np.r_[0, np.arange(self.named, self.items)]
        row, item = np.repeat(np.arange(rows), len(unnamed)), np.tile(unnamed, rows)
        if unseen:
            length = queries.end - queries.start
            at = np.repeat(queries.start - np.cumsum(length) + length, length)
            seen = queries.item[at + np.arange(length.sum())]
            row = np.concatenate((row, np.repeat(np.arange(rows), length)))
            item = np.concatenate((item, seen))
        return row, item


def tuned_floor(
    floor: ItemFloor,
    late: Queries,
    target: np.ndarray,
    progress: Progress,
    unseen: bool = False,
    seed: int = 0,
    at: int = 10,
) -> Mix:
    """The floor's mix, tuned on at most 2,000 of the late queries (Q,)."""
    if len(late) > LATE_QUERIES:
        chosen = np.random.default_rng(seed).choice(len(late), LATE_QUERIES, replace=False)
        chosen.sort()
        late, target = late.take(chosen), target[chosen]
    return floor.tune(late, target, unseen, progress, at) if len(late) else Mix()
