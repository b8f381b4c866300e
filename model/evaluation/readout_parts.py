"""What the parts of the categories' readout are worth: each is left out of trained checkpoints.

Each is judged in the log's last window of 90 days by checkpoints that are trained on what comes
before it. Dimensions: U users, C categories.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace

import numpy as np
from rich.console import Console

from model.checkpoint import Checkpoint
from model.evaluation.report import Cell, Figures
from model.evaluation.window import last_window_ms
from model.event_log import EventLog
from model.interest_lstm import DAY_S
from model.metrics import bootstrap, labels, ndcg_by_user
from model.prediction import Moved, move, probabilities, touched_pairs
from model.training import TrainingConfig, horizon_of, no_progress, train

HORIZON_S = 90 * DAY_S
ALL = "all parts"

PARTS: Mapping[str, Sequence[str]] = {
    "no LSTM": ("interest.weight", "interest.bias", "activity.weight", "activity.bias"),
    "no profile": ("profile_logit",),
    "nothing near the categories of recent steps": ("near_share",),
    "nothing near the items of recent steps": ("near_item_share",),
    "neither profile nor anything near": ("profile_logit", "near_share", "near_item_share"),
    "no share of the user's own": ("share_weight",),
    "no counts and no share of the user's own": ("count_weight", "share_weight"),
}
"""Weights that are set to 0; what is left is not learned anew."""


def readout_table(log: EventLog, seeds: int, config: TrainingConfig, console: Console) -> Figures:
    """NDCG@10 without each part, and how far it changes, with 95 % intervals over users."""
    horizon_s = horizon_of(log, HORIZON_S)
    cutoff_ms = last_window_ms(log, horizon_s)
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        began = time.monotonic()
        asked = replace(config, seed=seed, horizon_s=horizon_s)
        checkpoint = train(log, asked, no_progress, cutoff_ms).checkpoint
        moved = move(log, checkpoint, no_progress, cutoff_ms)
        label = _labels(log, checkpoint, moved, cutoff_ms // 1000)
        touched = np.zeros(label.shape, dtype=bool)
        touched.flat[touched_pairs(moved.batch, *label.shape)] = True
        for name, weights in {ALL: (), **PARTS}.items():
            p = probabilities(moved.rows, cutoff_ms, without(checkpoint, weights))
            new = ndcg_by_user(np.where(touched, -np.inf, p), label & ~touched)
            found.setdefault(name, []).append(np.stack((ndcg_by_user(p, label), new), 1))
        took = time.monotonic() - began
        console.print(f"seed {seed}, categories: {took:,.0f} s", highlight=False)
    rows = [
        [name, *_cells(values, found[ALL], 0), *_cells(values, found[ALL], 1)]
        for name, values in found.items()
    ]
    columns = ("without", "NDCG@10", "change", "NDCG@10, new to the user", "change of it")
    days = horizon_s / DAY_S
    note = f"Users who return within {days:.3g} days; paired by user, each the mean of the seeds."
    return Figures(f"Categories, {seeds} seeds", columns, rows, note)


def without(checkpoint: Checkpoint, weights: Sequence[str]) -> Checkpoint:
    """The checkpoint with these weights of its network at 0."""
    network = deepcopy(checkpoint.network)
    state = network.state_dict()
    for name in weights:
        state[name].zero_()
    return replace(checkpoint, network=network)


def _cells(
    values: Sequence[np.ndarray], base: Sequence[np.ndarray], column: int
) -> tuple[Cell, Cell]:
    """The mean over users and seeds, and its difference to the base with an interval."""
    mine, whole = (np.mean([each[:, column] for each in arrays], 0) for arrays in (values, base))
    change = (mine - whole)[~np.isnan(mine)]
    if not change.any():
        return float(np.nanmean(mine)), ""
    low, high = bootstrap(change, 0)
    return float(np.nanmean(mine)), f"{change.mean():+.4f} ({low:+.4f} to {high:+.4f})"


def _labels(log: EventLog, checkpoint: Checkpoint, moved: Moved, cutoff_s: int) -> np.ndarray:
    """The categories that the users of ``moved`` touch in the window, (U, C) bool."""
    batch, names = log.batch(checkpoint.vocabulary)
    place = {name: number for number, name in enumerate(moved.users)}
    user = np.array([place.get(name, -1) for name in names])[batch.user]
    steps = replace(batch, user=user).take(user >= 0)
    categories = checkpoint.vocabulary.categories
    return labels(steps, len(moved.users), categories, cutoff_s, checkpoint.horizon_s)
