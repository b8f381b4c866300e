"""Ranking, calibration and bootstrap figures. Dimensions: U users, C categories."""

from __future__ import annotations

import numpy as np

from model.events import EventBatch

TOP = 10
RECALL_AT = 5
BOOTSTRAPS = 1000
DISCOUNT = 1 / np.log2(np.arange(2, TOP + 2))

Interval = tuple[float, float]


def labels(
    steps: EventBatch, users: int, categories: int, cutoff_s: int, horizon_s: int
) -> np.ndarray:
    """Categories that each user touches from the cut-off until the horizon's end, (U, C) bool."""
    start_ms, end_ms = cutoff_s * 1000, (cutoff_s + horizon_s) * 1000
    inside = (steps.time_ms >= start_ms) & (steps.time_ms < end_ms) & (steps.category > 0)
    label = np.zeros((users, categories), dtype=bool)
    label[steps.user[inside], steps.category[inside]] = True
    return label


def best_columns(score: np.ndarray, k: int) -> np.ndarray:
    """Columns of the k highest scores of each row, best first; ties go to the lower column."""
    return np.argsort(-score, axis=1, kind="stable")[:, :k]


def ndcg_by_user(score: np.ndarray, label: np.ndarray) -> np.ndarray:
    """NDCG@10 of each user, NaN for users without a label, (U,). Column 0 is no category."""
    top = best_columns(score[:, 1:], TOP)
    gain = np.take_along_axis(label[:, 1:], top, 1) @ DISCOUNT[: top.shape[1]]
    wanted = label[:, 1:].sum(1)
    ideal = np.cumsum(DISCOUNT)[np.clip(wanted, 1, TOP) - 1]
    return np.asarray(np.where(wanted > 0, gain / ideal, np.nan))


def window_figures(
    score: np.ndarray, label: np.ndarray, probability: bool = True
) -> dict[str, float]:
    """All figures of one predictor. Brier score and log-loss only where scores are probabilities.

    NDCG@10, recall@5 and mAP are means over users with a label; macro AUROC is the mean over
    categories with both outcomes; Brier and log-loss are means over all pairs, and stand beside
    the log-loss of predicting each category's own rate in the very window (a base rate that knows
    the future, so that being below it says something).
    """
    score, label = score[:, 1:], label[:, 1:]
    wanted = label.any(1)
    top = best_columns(score[wanted], RECALL_AT)
    found = np.take_along_axis(label[wanted], top, 1).sum(1)
    figures = {
        "NDCG@10": float(np.nanmean(ndcg_by_user(_with_none(score), _with_none(label)))),
        "recall@5": float((found / np.maximum(label[wanted].sum(1), 1)).mean()),
        "mAP": _mean_average_precision(score[wanted], label[wanted]),
        "macro AUROC": _macro_auroc(score, label),
    }
    if probability:
        p = np.clip(score, 1e-7, 1 - 1e-7)
        rate = np.clip(label.mean(0), 1e-9, 1 - 1e-9)
        figures["Brier"] = float(((p - label) ** 2).mean())
        figures["log-loss"] = float(-np.where(label, np.log(p), np.log1p(-p)).mean())
        figures["log-loss of base rate"] = float(
            -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate)).mean()
        )
    return figures


def _with_none(array: np.ndarray) -> np.ndarray:
    return np.concatenate((np.zeros((len(array), 1), array.dtype), array), 1)


def _mean_average_precision(score: np.ndarray, label: np.ndarray) -> float:
    if len(score) == 0:
        return float("nan")
    order = np.argsort(-score, axis=1, kind="stable")
    hit = np.take_along_axis(label, order, 1)
    precision = np.cumsum(hit, 1) / np.arange(1, hit.shape[1] + 1)
    return float(((precision * hit).sum(1) / hit.sum(1)).mean())


def _macro_auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Mean over categories of P(a user with the label scores above one without), ties half."""
    positives = label.sum(0)
    columns = np.flatnonzero((positives > 0) & (positives < len(label)))
    areas = [_auroc(score[:, c], label[:, c]) for c in columns]
    return float(np.mean(areas)) if areas else float("nan")


def _auroc(score: np.ndarray, label: np.ndarray) -> float:
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[inverse]  # mean rank of ties, from 1
    positive = int(label.sum())
    below = rank[label].sum() - positive * (positive + 1) / 2
    return float(below / (positive * (len(label) - positive)))


def bootstrap(values: np.ndarray, seed: int = 0) -> Interval:
    """95 % interval of the mean over users, by resampling users; NaN values are left out."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(BOOTSTRAPS)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
