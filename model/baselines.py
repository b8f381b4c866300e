"""What counting alone says: the floors that a network has to beat.

Window baselines score categories of users at a cut-off; item baselines list the next items. A
window baseline is a *local* score of the user, mixed with popularity; the setting of the local
score and the weight of popularity are those with the best NDCG@10 on the window that ends at the
cut-off. Dimensions: U users, C categories, N steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from model.events import SESSION_GAP_S, EventBatch
from model.metrics import labels, ndcg_by_user
from model.windows import UserSteps

DAY_S = 86400
POPULARITY_WEIGHTS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
TUNING_USERS = 3000
"""Settings are compared on so many users, drawn once."""
NEIGHBOUR_USERS = 2000


@dataclass(frozen=True)
class History:
    """Steps before a cut-off, in replay order.

    steps       with ``user`` from 0 to ``users`` - 1
    cutoff_s    no step is at or after it
    event_type  what is predicted: steps of this type, None for all
    """

    steps: EventBatch
    users: int
    categories: int
    cutoff_s: int
    event_type: int | None = None

    def before(self, cutoff_s: int) -> History:
        """The part of the history before an earlier cut-off."""
        earlier = self.steps.take(self.steps.time_ms < cutoff_s * 1000)
        return replace(self, steps=earlier, cutoff_s=cutoff_s)

    def labels(self, cutoff_s: int, horizon_s: int) -> np.ndarray:
        """Categories that each user touches in a window of the history, (U, C) bool."""
        wanted = predicted(self.steps, self.event_type)
        return labels(wanted, self.users, self.categories, cutoff_s, horizon_s)

    def counts(self, half_life_s: float = np.inf, repeat_weight: float = 1.0) -> np.ndarray:
        """Counts of each user's categories, decayed up to the cut-off, (U, C); column 0 is 0.

        repeat_weight  of a step whose category the user's session has had before
        """
        age_s = self.cutoff_s - self.steps.time_ms / 1000
        key = self.steps.user * self.categories + self.steps.category
        weight = np.exp2(-age_s / half_life_s)
        if repeat_weight != 1.0:
            weight[self._repeats] *= repeat_weight
        counts = np.bincount(key, weight, minlength=self.users * self.categories)
        counts = counts.reshape(self.users, self.categories)
        counts[:, 0] = 0
        return np.asarray(counts)

    @cached_property
    def _repeats(self) -> np.ndarray:
        """Steps whose category the user's session has had before."""
        order = np.argsort(self.steps.user, kind="stable")
        return np.asarray(order[UserSteps(self.steps.take(order)).comes_again])

    def popularity(self, window_s: float) -> np.ndarray:
        """Users who touched each category in the last ``window_s``, as shares, (C,)."""
        steps = predicted(self.steps, self.event_type)
        recent = steps.time_ms >= (self.cutoff_s - window_s) * 1000
        touched = np.unique(steps.user[recent] * self.categories + steps.category[recent])
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


Local = Callable[[History, Any], np.ndarray]
"""The user's own score of each category under a setting, (U, C)."""


@dataclass(frozen=True)
class Baseline:
    """A local score and the settings that are tried."""

    name: str
    local: Local
    settings: Sequence[Any]

    def tuned(self, history: History, horizon_s: int, seed: int = 0) -> np.ndarray:
        """Scores at the cut-off with what was best on the window that ends there, (U, C)."""
        setting, weight = tune(history, horizon_s, self.local, self.settings, seed)
        popularity = history.popularity(horizon_s)
        return np.asarray(self.local(history, setting) + weight * popularity)


def tune(
    history: History, horizon_s: int, local: Local, settings: Sequence[Any], seed: int = 0
) -> tuple[Any, float]:
    """(setting, weight of popularity) with the best NDCG@10 on the window before the cut-off."""
    earlier = history.before(history.cutoff_s - horizon_s)
    label = history.labels(earlier.cutoff_s, horizon_s)
    users = np.flatnonzero(label.any(1))
    if len(users) > TUNING_USERS:
        drawn = np.random.default_rng(seed).choice(users, TUNING_USERS, replace=False)
        users = np.sort(drawn)
    if len(users) == 0:
        return settings[0], POPULARITY_WEIGHTS[0]
    popularity, label = earlier.popularity(horizon_s), label[users]
    best, chosen = -1.0, (settings[0], POPULARITY_WEIGHTS[0])
    for setting in settings:
        score = local(earlier, setting)[users]
        for weight in POPULARITY_WEIGHTS:
            ndcg = float(np.nanmean(ndcg_by_user(score + weight * popularity, label)))
            if ndcg > best:
                best, chosen = ndcg, (setting, weight)
    return chosen


def predicted(steps: EventBatch, event_type: int | None) -> EventBatch:
    """The steps of the type that is predicted."""
    return steps if event_type is None else steps.take(steps.event_type == event_type)


def decayed(history: History, half_life_s: float) -> np.ndarray:
    """Counts that fade."""
    return history.counts(half_life_s)


def session_counts(history: History, setting: tuple[float, float]) -> np.ndarray:
    """Counts that fade, of sessions rather than of steps.

    setting  (half-life in seconds, weight of a session's later steps with the same category)
    """
    half_life_s, repeat_weight = setting
    return history.counts(half_life_s, repeat_weight)


def gated_counts(history: History, setting: tuple[float, float]) -> np.ndarray:
    """Decayed shares against what everybody does, by a gate that opens with the user's events.

    setting  (half-life in seconds, events at which the gate is half open). The global side is the
             popularity that every baseline is mixed with. After NAViS (node affinity by a virtual
             state, 2025), whose gate is learned; here it is tuned.
    """
    half_life_s, half_open = setting
    counts = history.counts(half_life_s)
    total = counts.sum(1, keepdims=True)
    return np.asarray(counts / (total + half_open))


def item_to_item(history: History, setting: tuple[float, float]) -> np.ndarray:
    """Categories whose users also touched what the user touched: cosine of their users.

    setting  (half-life of the user's side in seconds, weight of the user's own counts)
    """
    half_life_s, own = setting
    touched = (history.counts() > 0).astype(np.float32)
    norm = np.sqrt(touched.sum(0) + 1.0)
    counts = history.counts(half_life_s).astype(np.float32)
    scaled = touched / norm
    if history.categories <= history.users:
        together = scaled.T @ scaled  # (C, C)
        np.fill_diagonal(together, 0.0)
        score = counts @ together
    else:  # (U, U): the same sums in another order, the diagonal taken out after
        score = (counts @ scaled.T) @ scaled - counts * (scaled**2).sum(0)
    total = np.maximum(counts.sum(1, keepdims=True), 1e-9)
    return np.asarray(score / total + own * counts)


def markov(history: History, setting: tuple[float, float]) -> np.ndarray:
    """What followed the user's last categories in anybody's history.

    setting  (factor per step back, weight of the user's own counts)
    """
    factor, own = setting
    steps = history.steps.take(history.steps.category > 0)
    order = np.argsort(steps.user, kind="stable")
    user, category = steps.user[order], steps.category[order]
    same = np.flatnonzero((user[1:] == user[:-1]) & (category[1:] != category[:-1]))
    pairs, count = np.unique(
        category[same] * history.categories + category[same + 1], return_counts=True
    )
    source, target = np.divmod(pairs, history.categories)
    share = count / (np.bincount(source, count, minlength=history.categories)[source] + 1.0)
    start = np.searchsorted(source, np.arange(history.categories + 1))
    score = np.zeros((history.users, history.categories))
    ends = np.searchsorted(user, np.arange(history.users), side="right")
    for back in range(1, 11):
        at = ends - back
        held = np.flatnonzero(at >= np.searchsorted(user, np.arange(history.users)))
        last = category[at[held]]
        length = start[last + 1] - start[last]
        row = np.repeat(held, length)
        place = np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)
        entry = np.repeat(start[last], length) + place
        np.add.at(score, (row, target[entry]), share[entry] * factor ** (back - 1))
    return np.asarray(score + own * history.counts())


def session_neighbours(history: History, setting: tuple[int, float]) -> np.ndarray:
    """What the most similar users' sessions held, by cosine of the categories (session kNN).

    setting  (number of neighbours, weight of the user's own counts). A session lasts until a
             pause of 30 minutes; the user's side are the categories of their last session, and of
             all before it with a weight that halves per session. At most 2,000 of the latest
             sessions of several categories are compared.
    """
    k, own = setting
    steps = history.steps.take(history.steps.category > 0)
    order = np.argsort(steps.user, kind="stable")
    user, category, time_ms = steps.user[order], steps.category[order], steps.time_ms[order]
    fresh = np.ones(len(user), dtype=bool)
    fresh[1:] = (user[1:] != user[:-1]) | (np.diff(time_ms) > SESSION_GAP_S * 1000)
    session = np.cumsum(fresh) - 1
    owner = user[fresh]
    last_of_user = np.zeros(history.users, dtype=np.int64)
    np.maximum.at(last_of_user, user, session)
    weight = np.exp2(-(last_of_user[user] - session).astype(float))
    profile = np.zeros((history.users, history.categories), np.float32)
    np.add.at(profile, (user, category), weight)
    held = np.unique(session * history.categories + category)
    number, kind = np.divmod(held, history.categories)
    size = np.bincount(number, minlength=len(owner))
    wide = np.flatnonzero(size > 1)
    started = time_ms[fresh]
    chosen = wide[np.argsort(-started[wide], kind="stable")[:NEIGHBOUR_USERS]]
    place = np.full(len(owner), -1)
    place[chosen] = np.arange(len(chosen))
    inside = place[number] >= 0
    others = np.zeros((len(chosen), history.categories), np.float32)
    others[place[number[inside]], kind[inside]] = 1.0
    if len(chosen) == 0:
        return own * history.counts()
    others_norm = np.sqrt(others.sum(1))
    norm = np.sqrt((profile**2).sum(1, keepdims=True)) + 1e-9
    score = np.empty(profile.shape)
    for at in range(0, history.users, 1024):
        part = slice(at, at + 1024)
        similar = profile[part] @ others.T / (norm[part] * others_norm)  # (B, S)
        similar[np.arange(history.users)[part, None] == owner[chosen]] = 0.0
        if k < len(chosen):
            least = np.partition(similar, -k, axis=1)[:, -k, None]
            similar[similar < least] = 0.0
        score[part] = similar @ others / k
    return np.asarray(score + own * history.counts())


def half_lives(horizon_s: int) -> list[float]:
    """The half-lives that are tried: from a fraction of the horizon to no decay at all."""
    return [share * horizon_s for share in (0.03, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 12.0)] + [np.inf]


def window_baselines(horizon_s: int) -> list[Baseline]:
    """The baselines whose settings are tuned, for windows of a length."""
    lives = half_lives(horizon_s)
    own = (0.0, 0.01, 0.1, 1.0)
    of_sessions = [(life, repeat_weight) for life in lives for repeat_weight in (0.1, 0.3)]
    return [
        Baseline("decayed counts", decayed, lives),
        Baseline("session counts", session_counts, of_sessions),
        Baseline("gated counts", gated_counts, [(life, n) for life in lives for n in (1.0, 10.0)]),
        Baseline("item to item", item_to_item, [(life, w) for life in lives[4::2] for w in own]),
        Baseline("Markov", markov, [(factor, w) for factor in (0.5, 0.9) for w in own]),
        Baseline("session kNN", session_neighbours, [(k, w) for k in (50, 200) for w in own]),
    ]


OWN_EDGES = np.array([0.01, 0.1, 0.3, 0.7, 1.5, 3.0, 6.0])
ACTIVITY_EDGES = np.array([1.0, 3.0, 10.0, 30.0, 100.0])
POPULARITY_BUCKETS = 12
FACTOR_PRIOR = 20.0


@dataclass(frozen=True)
class FactorModel:
    """The article's P(I | F) = product over i of P(i | F): one Bernoulli per category.

    The factors F of a user and a category are how often the user touched it (decayed by the
    horizon, in buckets), how active the user is (in buckets), and how popular it is (in buckets).
    P(i | F) is the share of pairs with these factors that came true, drawn towards that of the
    same count and popularity by ``FACTOR_PRIOR`` pairs.

    table  (own, activity, popularity) probabilities
    edges  (B,) of the popularity buckets
    """

    table: np.ndarray
    edges: np.ndarray

    @classmethod
    def fitted(cls, history: History, horizon_s: int) -> FactorModel:
        """Counted on the window that ends at the cut-off."""
        earlier = history.before(history.cutoff_s - horizon_s)
        label = history.labels(earlier.cutoff_s, horizon_s)
        popularity = earlier.popularity(horizon_s)
        lowest = float(popularity[popularity > 0].min(initial=1.0))
        edges = np.geomspace(lowest, max(float(popularity.max()), 2 * lowest), POPULARITY_BUCKETS)
        known = np.bincount(earlier.steps.user, minlength=earlier.users) > 0
        cell = _factors(earlier, horizon_s, edges)[known]  # (K, C - 1)
        shape = (len(OWN_EDGES) + 1, len(ACTIVITY_EDGES) + 1, POPULARITY_BUCKETS + 1)
        size = int(np.prod(shape))
        seen = np.bincount(cell.ravel(), minlength=size).reshape(shape).astype(float)
        hits = cell[label[known, 1:]]
        true = np.bincount(hits, minlength=size).reshape(shape).astype(float)
        total = (true.sum() + 1) / (seen.sum() + 2)
        parent = (true.sum(1) + FACTOR_PRIOR * total) / (seen.sum(1) + FACTOR_PRIOR)
        table = (true + FACTOR_PRIOR * parent[:, None]) / (seen + FACTOR_PRIOR)
        return cls(table, edges)

    def probabilities(self, history: History, horizon_s: int) -> np.ndarray:
        """P(i | F) of every user and category, (U, C); column 0 is 0."""
        p = np.zeros((history.users, history.categories))
        p[:, 1:] = self.table.ravel()[_factors(history, horizon_s, self.edges)]
        return p


def _factors(history: History, horizon_s: int, edges: np.ndarray) -> np.ndarray:
    """Number of the cell of ``FactorModel.table`` of each user and category, (U, C - 1)."""
    counts = history.counts(horizon_s)
    own = np.searchsorted(OWN_EDGES, counts[:, 1:], side="right")
    activity = np.searchsorted(ACTIVITY_EDGES, counts.sum(1), side="right")
    popular = np.searchsorted(edges, history.popularity(horizon_s)[1:], side="right")
    per_user = own * (len(ACTIVITY_EDGES) + 1) + activity[:, None]
    return np.asarray(per_user * (len(edges) + 1) + popular)
