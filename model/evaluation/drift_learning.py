"""Learns the weights of the drift statistic, and writes model/drift_weights.py.

    python -m model.evaluation.drift_learning LOG...

In each log changes are planted in the control half of the users, whom the protocol never plants
any in; the same users with shuffled sessions are what no change looks like. Groups of categories
come from the other half. A logistic regression parts the two: each log weighs as much, changes as
much as none. The threshold is left to the calibration.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from model import drift, drift_weights
from model.calibration import rounds, shuffled_copies
from model.checkpoint import Checkpoint
from model.evaluation.planting import only, plant, split_users
from model.event_log import EventLog, read_event_log
from model.events import EventBatch
from model.grouping import category_groups
from model.prediction import event_numbers
from model.training import TrainingConfig, untrained_checkpoint

DRAWS = 4
COPIES = 4
LEAST_EVENTS, MOST_EVENTS = 3, 40
"""After a change: where the statistic should have risen."""
MAX_CASES = 60_000
RIDGE = 1e-4
NEWTON_STEPS = 30


def cases(log: EventLog, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(features after a change, features without one) of one log, each (N, F)."""
    others, own = split_users(log, seed)
    made = untrained_checkpoint(log, TrainingConfig())
    steps, _ = only(log, others).batch(made.vocabulary)
    group = category_groups(steps.user, steps.category, made.vocabulary.categories)
    made = replace(made, statistics=replace(made.statistics, category_group=group))
    planted = plant(log, own, DRAWS, seed + 1)
    batch, _ = planted.log.batch(made.vocabulary)
    seen, step = _features(batch, made)
    after = event_numbers(batch)[step] - planted.change[batch.user[step]]
    changed = seen[(after >= LEAST_EVENTS) & (after <= MOST_EVENTS)]
    steps, _ = only(log, own).batch(made.vocabulary)
    count = np.bincount(steps.user, minlength=len(log.users))
    steps = steps.take(count[steps.user] >= drift.MIN_STEPS)
    quiet, _ = _features(shuffled_copies(steps, COPIES, seed + 1), made)
    random = np.random.default_rng(seed)
    return random.permutation(changed)[:MAX_CASES], random.permutation(quiet)[:MAX_CASES]


def _features(steps: EventBatch, checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """(features, step) of every test over the steps, without an alarm."""
    parts, at = [], []
    groups = checkpoint.statistics.category_group
    for moved in rounds(steps, checkpoint):
        ready = drift.is_ready(moved.fields, moved.due)
        if ready.any():
            seen = drift.window_of(moved.fields, moved.due[ready], groups)
            parts.append(drift.features(seen).astype(np.float32))
            at.append(moved.step[ready])
    return np.concatenate(parts), np.concatenate(at)


def learn(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, float]:
    """(weights, intercept) of a logistic regression by Newton's method, with a small ridge."""
    x = np.concatenate([side for part in parts for side in part]).astype(np.float64)
    y = np.concatenate([np.r_[np.ones(len(a)), np.zeros(len(b))] for a, b in parts])
    weight = np.concatenate(
        [np.full(len(side), 0.5 / len(parts) / len(side)) for part in parts for side in part]
    )
    mean, scale = x.mean(0), x.std(0) + 1e-3
    x = np.c_[(x - mean) / scale, np.ones(len(x))]
    ridge = np.r_[np.full(x.shape[1] - 1, RIDGE), 0.0]
    beta = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(x @ beta)))
        gradient = x.T @ (weight * (p - y)) + ridge * beta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-9)
        beta -= np.linalg.solve(hessian, gradient)
    weights = beta[:-1] / scale
    return weights, float(beta[-1] - weights @ mean)


def main() -> None:
    """Learns from the logs named on the command line and writes the weights."""
    paths = [Path(name) for name in sys.argv[1:]]
    weights, intercept = learn([cases(read_event_log(path)) for path in paths])
    write(weights, intercept, [path.name for path in paths])


def write(weights: np.ndarray, intercept: float, sources: list[str]) -> None:
    """Writes model/drift_weights.py."""
    text = [
        '"""Weights of the drift statistic, in the order of ``drift.features``.',
        "",
        "``python -m model.evaluation.drift_learning`` makes them of control users of",
        f"{', '.join(sources)}.",
        '"""',
        "",
        "import numpy as np",
        "",
        "WEIGHTS = np.array(",
        "    [",
        *[f"        {weight:.4f}," for weight in weights],
        "    ]",
        ")",
        f"INTERCEPT = {intercept:.4f}",
    ]
    Path(drift_weights.__file__).write_text("\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
