"""Ranking, calibration and bootstrap figures. Dimensions: U users, C categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.events import EventBatch
from model.interests import best

TOP = 10
RECALL_AT = 5
BOOTSTRAPS = 1000
CALIBRATION_BINS = 15
CALIBRATION_DRAWS = 1000
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
    # a column that is taken stands below all
    return best(np.maximum(score, np.finfo(score.dtype).min), k)


def ndcg_by_user(score: np.ndarray, label: np.ndarray, k: int = TOP) -> np.ndarray:
    """NDCG@k of each user, NaN for users without a label, (U,). Column 0 is no category."""
    top = best_columns(score[:, 1:], k)
    gain = np.take_along_axis(label[:, 1:], top, 1) @ DISCOUNT[: top.shape[1]]
    wanted = label[:, 1:].sum(1)
    ideal = np.cumsum(DISCOUNT)[np.clip(wanted, 1, k) - 1]
    return np.asarray(np.where(wanted > 0, gain / ideal, np.nan))


def window_figures(
    score: np.ndarray, label: np.ndarray, probability: bool = True
) -> dict[str, float]:
    """All figures of one predictor. Brier score and log-loss only where scores are probabilities.

    NDCG@5, NDCG@10, recall@5 and mAP are means over users with a label; macro AUROC is the mean
    over categories with both outcomes, micro AUROC over all pairs; Brier and log-loss are means
    over all pairs, and stand beside the log-loss of predicting each category's own rate in the
    very window (a base rate that knows the future, so that being below it says something).
    Pairs with a score of minus infinity are left out of everything.
    """
    score, label = score[:, 1:], label[:, 1:]
    wanted = label.any(1)
    asked = score > -np.inf
    top = best_columns(score[wanted], RECALL_AT)
    found = np.take_along_axis(label[wanted], top, 1).sum(1)
    figures = {
        "NDCG@10": float(_mean(ndcg_by_user(_with_none(score), _with_none(label)))),
        "NDCG@5": float(_mean(ndcg_by_user(_with_none(score), _with_none(label), RECALL_AT))),
        "recall@5": float(_mean(found / np.maximum(label[wanted].sum(1), 1))),
        "mAP": _mean_average_precision(score[wanted], label[wanted]),
        "macro AUROC": _macro_auroc(score, label),
        "micro AUROC": _auroc(score[asked], label[asked]),
    }
    if probability:
        p, true = np.clip(score[asked], 1e-7, 1 - 1e-7), label[asked]
        count = np.maximum(asked.sum(0), 1)
        rate = np.clip(label.sum(0) / count, 1e-9, 1 - 1e-9)
        base = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        figures["Brier"] = float(((p - true) ** 2).mean())
        figures["log-loss"] = float(-np.where(true, np.log(p), np.log1p(-p)).mean())
        figures["log-loss of base rate"] = float((base * count).sum() / count.sum())
        figures["log-loss / base"] = figures["log-loss"] / figures["log-loss of base rate"]
    return figures


def interest_correlation(score: np.ndarray, observed: np.ndarray) -> tuple[float, float]:
    """(Spearman, Pearson) of predicted and observed interest, means over users with an interest.

    score     (U, C) predicted; a pair with minus infinity is left out
    observed  (U, C) events of each category in the window; a user's interest is their share
    """
    found = []
    for predicted, events in zip(score[:, 1:], observed[:, 1:], strict=True):
        asked = predicted > -np.inf
        x, y = predicted[asked], events[asked] / max(events[asked].sum(), 1e-9)
        if y.any() and np.ptp(x) > 0 and np.ptp(y) > 0:
            found.append((_pearson(_ranks(x), _ranks(y)), _pearson(x, y)))
    if not found:
        return float("nan"), float("nan")
    spearman, pearson = np.mean(found, axis=0)
    return float(spearman), float(pearson)


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / np.sqrt((x @ x) * (y @ y)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, equal values sharing their mean rank."""
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[inverse])


@dataclass(frozen=True)
class Calibration:
    """Expected calibration error beside what a perfectly calibrated model would show.

    error     mean over cases of |mean probability - observed share| of their bin
    band      the error's 2.5 % and 97.5 % quantile when labels are drawn from the probabilities
    bins      (mean probability, observed share) of each bin with a case
    cases     number of cases
    """

    error: float
    band: Interval
    bins: list[tuple[float, float]]
    cases: int

    @property
    def is_inside(self) -> bool:
        """Whether the error is no larger than chance explains."""
        return self.error <= self.band[1]


def calibration(
    probability: np.ndarray, true: np.ndarray, bins: int = CALIBRATION_BINS, seed: int = 0
) -> Calibration:
    """Calibration of N cases in bins of equal numbers of cases."""
    if len(probability) == 0:
        return Calibration(float("nan"), (float("nan"), float("nan")), [], 0)
    order = np.argsort(probability, kind="stable")
    p, y = probability[order].astype(float), true[order].astype(float)
    starts = np.unique(np.arange(min(bins, len(p))) * len(p) // min(bins, len(p)))
    size = np.diff(np.append(starts, len(p)))
    mean = np.add.reduceat(p, starts) / size

    def error(labels: np.ndarray) -> tuple[float, np.ndarray]:
        share = np.add.reduceat(labels, starts) / size
        return float((np.abs(share - mean) * size).sum() / len(p)), share

    random = np.random.default_rng(seed)
    drawn = [error((random.random(len(p)) < p).astype(float))[0] for _ in range(CALIBRATION_DRAWS)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    found, share = error(y)
    points = [(float(x), float(s)) for x, s in zip(mean, share, strict=True)]
    return Calibration(found, (float(low), float(high)), points, len(p))


def top_cases(probability: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each user's ten highest probabilities and whether they came true, one after the other."""
    top = best_columns(probability[:, 1:], TOP)
    p = np.take_along_axis(probability[:, 1:], top, 1).ravel()
    true = np.take_along_axis(label[:, 1:], top, 1).ravel()
    return p[p > -np.inf], true[p > -np.inf]


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


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
    areas = []
    for column in np.flatnonzero(label.any(0)):
        asked = score[:, column] > -np.inf
        areas.append(_auroc(score[asked, column], label[asked, column]))
    return _mean(np.array(areas))


def _auroc(score: np.ndarray, label: np.ndarray) -> float:
    positive = int(label.sum())
    if positive in (0, len(label)):
        return float("nan")
    rank = _ranks(score)
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
