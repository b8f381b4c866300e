"""The contest that tmall2014 comes from: which user buys which brand from 17 July on, micro F1.

Trained before the cut-off, users seen before it. A predictor names its best pairs, as many a user
as were best a month earlier, for a model that was trained before that. Dimensions: U users, C
categories (the brands).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from model.checkpoint import Checkpoint
from model.evaluation import trees
from model.evaluation.protocols import Options
from model.evaluation.report import Cell, Figures, Report
from model.evaluation.window import Cut, last_window_ms, score_cut
from model.event_log import EventLog, read_event_log
from model.events import EventType
from model.learning import Progress
from model.metrics import BOOTSTRAPS, Interval
from model.prediction import move
from model.training import train

CUTOFF_MS = 1_374_019_200_000
"""17 July of the year that the log assumes, 2013."""
HORIZON_S = 30 * 86400
PREDICTORS = ("model", "logistic", "trees", "blend", "decayed counts")
MOST_PAIRS_A_USER = 20
"""On average; more are not considered."""


def protocol(options: Options, progress: Progress) -> Report:
    """F1 of the pairs that are named, with intervals over users."""
    trees.check_library()
    log = read_event_log(options.data)
    horizon_s = options.horizon_s or HORIZON_S
    cutoff_ms = options.cutoff_ms
    if cutoff_ms is None:
        inside = log.time_ms.min() < CUTOFF_MS < log.time_ms.max()
        cutoff_ms = CUTOFF_MS if inside else last_window_ms(log, horizon_s)
    earlier_ms = cutoff_ms - horizon_s * 1000
    earlier, _ = _cut(log, options, horizon_s, earlier_ms, None, progress)
    cut, checkpoint = _cut(log, options, horizon_s, cutoff_ms, options.checkpoint, progress)
    rows: list[list[Cell]] = []
    figures: dict[str, float] = {}
    chosen: dict[str, np.ndarray] = {}
    for name in PREDICTORS:
        pairs_a_user = best_pairs_a_user(earlier.scores[name], earlier.label)
        chosen[name] = best_pairs(cut.scores[name], pairs_a_user)
        precision, recall, f1 = micro_f1(chosen[name], cut.label)
        low, high = f1_interval(chosen[name], cut.label, options.seed)
        hits = int((chosen[name] & cut.label).sum())
        pairs = f"{chosen[name].sum():,}"
        rows.append([name, f1, low, high, precision, recall, pairs, str(hits)])
        figures |= {f"{name}: F1": f1, f"{name}: F1 from": low, f"{name}: F1 to": high}
        figures |= {f"{name}: precision": precision, f"{name}: recall": recall}
    columns = ["", "F1", "95 % from", "to", "precision", "recall", "pairs", "hits"]
    note = (
        f"{len(cut.label):,} users seen before, {cut.label.sum():,} pairs bought. "
        "Published for tmall2014: linear SVC .0553, logistic regression .0532."
    )
    user, category = np.nonzero(chosen["model"][:, 1 : checkpoint.vocabulary.first_category_bucket])
    names = checkpoint.vocabulary.category_names
    return Report(
        tables=[
            Figures("Bought from the cut-off on, pairs of user and brand", columns, rows, note)
        ],
        figures=figures,
        predictions=pa.table(
            {
                "user_id": pa.array([cut.users[u] for u in user.tolist()], pa.string()),
                "category": pa.array([names[c] for c in category.tolist()], pa.string()),
            }
        ),
    )


def _cut(
    log: EventLog,
    options: Options,
    horizon_s: int,
    cutoff_ms: int,
    checkpoint: Checkpoint | None,
    progress: Progress,
) -> tuple[Cut, Checkpoint]:
    """Scores of purchases from a cut-off on, by models that were trained before it."""
    if checkpoint is None:
        config = replace(options.config, horizon_s=horizon_s, target=EventType.PURCHASE)
        checkpoint = train(log, config, progress, cutoff_ms, options.data.name).checkpoint
    moved = move(log, checkpoint, progress, cutoff_ms)
    bought = EventType.PURCHASE
    cut = score_cut(log, moved, checkpoint, cutoff_ms, horizon_s, bought, options.seed)
    return cut, checkpoint


def best_pairs_a_user(score: np.ndarray, label: np.ndarray) -> float:
    """How many of the best pairs have the best F1, a user; column 0 is no category."""
    flat, true = score[:, 1:].ravel(), label[:, 1:].ravel()
    most = min(len(score) * MOST_PAIRS_A_USER, len(flat))
    order = np.argsort(-flat, kind="stable")[:most]
    hits = np.cumsum(true[order])
    f1 = 2 * hits / (np.arange(1, most + 1) + true.sum())
    return float((f1.argmax() + 1) / len(score))


def best_pairs(score: np.ndarray, pairs_a_user: float) -> np.ndarray:
    """The pairs of the highest scores, so many a user on average, (U, C) bool."""
    columns = score.shape[1] - 1
    count = min(round(pairs_a_user * len(score)), len(score) * columns)
    best = np.argsort(-score[:, 1:].ravel(), kind="stable")[:count]
    chosen = np.zeros(score.shape, dtype=bool)
    chosen[best // columns, best % columns + 1] = True
    return chosen


def micro_f1(chosen: np.ndarray, label: np.ndarray) -> tuple[float, float, float]:
    """(precision, recall, F1) over all pairs."""
    hits = float((chosen & label).sum())
    precision, recall = hits / max(chosen.sum(), 1), hits / max(label.sum(), 1)
    return precision, recall, 2 * hits / max(float(chosen.sum() + label.sum()), 1.0)


def f1_interval(chosen: np.ndarray, label: np.ndarray, seed: int = 0) -> Interval:
    """95 % interval of the F1, by resampling users."""
    hits = (chosen & label).sum(1).astype(float)
    both = (chosen.sum(1) + label.sum(1)).astype(float)
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(hits), (BOOTSTRAPS, len(hits)))
    values = 2 * hits[drawn].sum(1) / np.maximum(both[drawn].sum(1), 1.0)
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
