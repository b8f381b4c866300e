"""What diversity costs: lists at several lambdas of the calibrated re-ranking (ranking.py).

Dimensions: R lists, K their length, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from model import interests
from model.checkpoint import Checkpoint
from model.evaluation.item_lists import NDCG_10, mean_intervals, places
from model.evaluation.report import Cell, Curve, Figures
from model.held_lists import HeldLists
from model.ranking import SMOOTHING, rank
from model.state import StateBatch

LAMBDAS = (0.0, 0.5, 0.8, 0.9, 0.97)
ROWS_TOGETHER = 256


def exchange(
    held: HeldLists, user: np.ndarray, checkpoint: Checkpoint, seed: int
) -> tuple[Figures, Curve, Mapping[str, float]]:
    """NDCG@10, diversity and miscalibration of the lists at each lambda.

    user  (R,) whose the lists are, for the intervals
    """
    gains: list[np.ndarray] = []
    spreads: list[tuple[float, float]] = []
    for weight in LAMBDAS:
        tuned = replace(checkpoint, ranking=replace(checkpoint.ranking, diversity=weight))
        found = rank(held.rows, held.now_ms, tuned, NDCG_10.at)
        _, gain = NDCG_10.values(places(found.item, held.target))
        gains.append(gain)
        divergence = miscalibration(held.rows, held.now_ms, found.item, checkpoint)
        spreads.append((float(found.diversity.mean()), float(divergence.mean())))
    lost = np.stack([gain - gains[0] for gain in gains], 1)  # (R, lambdas)
    intervals = mean_intervals(lost, user, seed)
    figures: dict[str, float] = {}
    points: list[tuple[float, float]] = []
    cells: list[list[Cell]] = []
    for weight, gain, change, interval, (spread, apart) in zip(
        LAMBDAS, gains, lost.T, intervals, spreads, strict=True
    ):
        name = f"{weight:g}"
        cells.append([name, float(gain.mean()), float(change.mean()), *interval, spread, apart])
        points.append((spread, float(gain.mean())))
        figures |= {
            f"diversity, lambda {name}, NDCG@10": float(gain.mean()),
            f"diversity, lambda {name}, diversity": spread,
            f"diversity, lambda {name}, KL": apart,
        }
    columns = ["lambda", "NDCG@10", "change", "95 % from", "to", "diversity", "miscalibration"]
    note = (
        f"{len(held):,} lists of {NDCG_10.at} items. Diversity is 1 - the sum of squared shares of "
        "the list's categories; miscalibration is KL(interests || list) in nats."
    )
    curve = Curve("NDCG and diversity", "diversity", "NDCG@10", {"calibrated re-ranking": points})
    return Figures("What diversity costs", columns, cells, note), curve, figures


def miscalibration(
    rows: StateBatch, now_ms: np.ndarray, item: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """KL(p || q) of each row's interests and its list (R, K), q with a hundredth of p: (R,)."""
    parts = [np.zeros(0)]
    named = checkpoint.vocabulary.first_category_bucket
    for at in range(0, len(rows), ROWS_TOGETHER):
        part = slice(at, at + ROWS_TOGETHER)
        out = interests.hidden_readout(rows[part], checkpoint)
        logits = interests.category_logits(rows[part], out, now_ms[part] // 1000, checkpoint)
        p = interests.shares(logits, named)  # (R, C)
        q = np.zeros_like(p)
        listed = item[part] > 0
        row = np.broadcast_to(np.arange(len(p))[:, None], listed.shape)[listed]
        np.add.at(q, (row, checkpoint.statistics.item_category[item[part][listed]]), 1.0)
        q /= np.maximum(listed.sum(1, keepdims=True), 1)
        q = (1 - SMOOTHING) * q + SMOOTHING * p
        there = p > 0
        ratio = np.log(p, where=there, out=np.zeros_like(p))
        ratio -= np.log(q, where=there, out=np.zeros_like(q))
        parts.append((p * ratio).sum(1))
    return np.concatenate(parts)
