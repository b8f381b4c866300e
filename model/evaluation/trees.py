"""The article's "traditional machine learning": logistic regression and boosted trees on counts.

Hand features of each pair of user and category, made of the user's history before a time; fitted
with scikit-learn (extra ``bench``) on the two windows before the cut-off, the settings chosen on
the later one. Dimensions: U users, C categories, P pairs, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from model.baselines import History, item_to_item, markov, most_popular
from model.errors import ModelError
from model.events import Kind
from model.metrics import ndcg_by_user

NEGATIVES = 200_000
"""Pairs of users with categories that they have not touched, at most; they carry the weight of
all such pairs."""
TREES = ((15, 100), (31, 200))
BLENDS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Learned:
    """Probabilities at the cut-off, each (U, C)."""

    logistic: np.ndarray
    trees: np.ndarray
    blend: np.ndarray


def check_library() -> None:
    """ModelError when scikit-learn is not installed: before anything is trained."""
    if find_spec("sklearn") is None:
        raise ModelError(
            "The baselines of this protocol need scikit-learn, which is not installed; "
            "install interest-stream[bench]."
        )


def learned(history: History, horizon_s: int, users: np.ndarray, seed: int = 0) -> Learned:
    """Fits on the windows before the cut-off and predicts for ``users`` (K,): arrays (K, C).

    Where no window before the cut-off holds both outcomes, popularity stands in. One thread: torch
    brings an OpenMP of its own, and teams of both wait for each other's processors.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return _learned(history, horizon_s, users, seed)


def _learned(history: History, horizon_s: int, users: np.ndarray, seed: int) -> Learned:
    random = np.random.default_rng(seed)
    times = [history.cutoff_s - (2 - i) * horizon_s for i in range(2)]
    windows = [_pairs(history, time_s, horizon_s, random) for time_s in times]
    parts = [window for window in windows if 0 < window[1].sum() < len(window[1])]
    if not parts:
        popular = most_popular(history, horizon_s)[users]
        return Learned(popular, popular, popular)
    choice = _features(history.before(times[1]), horizon_s)
    label = history.labels(times[1], horizon_s)
    wanted = np.flatnonzero(label.any(1))[:2000]
    best, leaves, share = -1.0, TREES[0], BLENDS[0]
    line = _logistic(*parts[0])
    by_line = _predict(line, choice, wanted)
    for setting in TREES:
        by_trees = _predict(_trees(setting, *parts[0], seed), choice, wanted)
        for each in BLENDS:
            mixed = each * by_trees + (1 - each) * by_line
            ndcg = float(np.nanmean(ndcg_by_user(mixed, label[wanted])))
            if ndcg > best:
                best, leaves, share = ndcg, setting, each
    features, label, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    now = _features(history, horizon_s)
    by_line = _predict(_logistic(features, label, weight), now, users)
    by_trees = _predict(_trees(leaves, features, label, weight, seed), now, users)
    return Learned(
        *(_sigmoid(x) for x in (by_line, by_trees, share * by_trees + (1 - share) * by_line))
    )


def _pairs(
    history: History, time_s: int, horizon_s: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features (P, F), label (P,), weight (P,)) of one window."""
    earlier = history.before(time_s)
    label = history.labels(time_s, horizon_s)
    features = _features(earlier, horizon_s)
    known = np.bincount(earlier.steps.user, minlength=earlier.users) > 0
    touched = earlier.counts() > 0
    kept = (touched | label) & known[:, None]
    kept[:, 0] = False
    rest = np.flatnonzero((~kept & known[:, None])[:, 1:].ravel())
    drawn = random.choice(rest, min(NEGATIVES, len(rest)), replace=False)
    user, category = np.divmod(drawn, history.categories - 1)
    rows, columns = np.nonzero(kept)
    row = np.concatenate((rows, user))
    column = np.concatenate((columns, category + 1))
    weight = np.ones(len(row))
    weight[len(rows) :] = len(rest) / max(len(drawn), 1)
    return _stack(features, row, column), label[row, column], weight


def _features(history: History, horizon_s: int) -> dict[str, np.ndarray]:
    """Dense features by name, each (U, C), (U, 1) or (1, C)."""
    found: dict[str, np.ndarray] = {}
    for share in (0.1, 0.3, 1.0, 4.0, np.inf):
        counts = history.counts(share * horizon_s)
        total = counts.sum(1, keepdims=True)
        found[f"count {share}"] = np.log1p(counts).astype(np.float32)
        found[f"share {share}"] = (counts / np.maximum(total, 1e-9)).astype(np.float32)
        found[f"total {share}"] = np.log1p(total).astype(np.float32)
    steps = history.steps
    latest = np.full((history.users, history.categories), -np.inf)
    np.maximum.at(latest, (steps.user, steps.category), steps.time_ms / 1000)
    age = np.minimum((history.cutoff_s - latest) / horizon_s, 100.0)
    found["age"] = np.log(np.maximum(age, 0) + 0.01).astype(np.float32)
    for kind in (Kind.FAVOURITE, Kind.CART, Kind.PURCHASE):
        of_kind = History(
            steps.take(steps.kind == kind), history.users, history.categories, history.cutoff_s
        )
        found[kind.name] = np.log1p(of_kind.counts(2 * horizon_s)).astype(np.float32)
    found["breadth"] = np.log1p((latest > -np.inf).sum(1, keepdims=True)).astype(np.float32)
    for share in (0.3, 1.0, 4.0):
        popularity = history.popularity(share * horizon_s)
        found[f"popularity {share}"] = np.log(popularity + 1e-5).astype(np.float32)[None]
    together = item_to_item(history, (4.0 * horizon_s, 0.0))
    found["together"] = np.log(np.maximum(together, 0) + 1e-4).astype(np.float32)
    found["after"] = np.log(markov(history, (0.8, 0.0)) + 1e-4).astype(np.float32)
    return found


def _stack(features: dict[str, np.ndarray], row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Features of pairs, (P, F)."""
    parts = [
        values[row if len(values) > 1 else 0, column if values.shape[1] > 1 else 0]
        for values in features.values()
    ]
    return np.stack([np.broadcast_to(part, row.shape) for part in parts], 1)


def _logistic(features: np.ndarray, label: np.ndarray, weight: np.ndarray) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return model.fit(features, label, logisticregression__sample_weight=weight)


def _trees(
    setting: tuple[int, int], features: np.ndarray, label: np.ndarray, weight: np.ndarray, seed: int
) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    leaves, rounds = setting
    model = HistGradientBoostingClassifier(
        max_leaf_nodes=leaves,
        max_iter=rounds,
        learning_rate=0.06,
        min_samples_leaf=50,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    return model.fit(features, label, sample_weight=weight)


def _predict(model: Any, features: dict[str, np.ndarray], users: np.ndarray) -> np.ndarray:
    """Logits of users and categories, (K, C)."""
    categories = features["count inf"].shape[1]
    found = np.full((len(users), categories), -30.0)
    column = np.arange(1, categories)
    step = max(1, 500_000 // categories)
    for at in range(0, len(users), step):
        part = users[at : at + step]
        pairs = _stack(features, np.repeat(part, len(column)), np.tile(column, len(part)))
        found[at : at + step, 1:] = model.decision_function(pairs).reshape(len(part), -1)
    return found


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))
