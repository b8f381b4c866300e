"""Categories of the window after a cut-off, beside what counting says.

The checkpoint is trained on what came before the cut-off (the caller sees to it), rows move through
what came before, and labels come from after it. Dimensions: U users, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model import baselines
from model.baselines import History
from model.checkpoint import Checkpoint
from model.evaluation.protocols import Options
from model.evaluation.report import Figures, Report
from model.event_log import EventLog, read_event_log
from model.learning import Progress
from model.metrics import Interval, bootstrap, labels, ndcg_by_user, window_figures
from model.prediction import move, predict_categories, probabilities, touched_pairs
from model.training import train


@dataclass(frozen=True)
class WindowReport:
    """Figures by predictor, and the paired gain in NDCG@10 of the model over each other one.

    figures    predictor -> figure -> value
    intervals  predictor -> 95 % interval of NDCG@10
    gains      baseline -> (mean gain, its 95 % interval)
    users      users with a label in the window, and all users with a history
    """

    figures: dict[str, dict[str, float]]
    intervals: dict[str, Interval]
    gains: dict[str, tuple[float, Interval]]
    users: tuple[int, int]


def evaluate_window(
    log: EventLog,
    checkpoint: Checkpoint,
    cutoff_ms: int,
    progress: Progress,
    horizon_s: int | None = None,
    new_only: bool = False,
    seed: int = 0,
) -> WindowReport:
    """Categories of the window after a cut-off, for users with a history.

    Ranking figures are over users who touch something in the window, the others over all pairs.
    new_only scores the categories that the user has not touched before.
    """
    horizon_s = horizon_s or checkpoint.horizon_s
    cutoff_s = cutoff_ms // 1000
    whole, names = log.batch(checkpoint.vocabulary)
    moved = move(log, checkpoint, progress, cutoff_ms)
    known = moved.rows["events"] > 0
    categories = checkpoint.vocabulary.categories
    label = labels(whole, len(names), categories, cutoff_s, horizon_s)[known]
    number = np.cumsum(known) - 1
    before = moved.batch
    history = History(
        replace(before, user=number[before.user]), int(known.sum()), categories, cutoff_s
    )
    decayed = baselines.tune_decayed_counts(history, horizon_s)
    scores: dict[str, np.ndarray] = {
        "model": probabilities(moved.rows[known], cutoff_ms, checkpoint, horizon_s),
        "most popular": baselines.most_popular(history, horizon_s),
        "last": baselines.last_touched(history, horizon_s),
        "history frequency": baselines.history_frequency(history, horizon_s),
        "decayed counts": decayed.scores(history, horizon_s),
    }
    if new_only:
        seen = touched_pairs(history.steps, history.users, categories)
        user, category = np.divmod(seen, categories)
        label[user, category] = False
        for score in scores.values():
            score[user, category] = -1.0
    ndcg = {name: ndcg_by_user(score, label) for name, score in scores.items()}
    figures = {
        name: window_figures(score, label, probability=name in ("model", "most popular"))
        for name, score in scores.items()
    }
    return WindowReport(
        figures=figures,
        intervals={name: bootstrap(values, seed) for name, values in ndcg.items()},
        gains={
            name: (
                float(np.nanmean(ndcg["model"] - values)),
                bootstrap(ndcg["model"] - values, seed),
            )
            for name, values in ndcg.items()
            if name != "model"
        },
        users=(int(label.any(1).sum()), len(label)),
    )


def protocol(options: Options, progress: Progress) -> Report:
    """Categories of the window after one cut-off: by default the last whole window of the log."""
    log = read_event_log(options.data)
    horizon_s = options.horizon_s or options.config.horizon_s
    cutoff_ms = options.cutoff_ms
    if cutoff_ms is None:
        cutoff_ms = int(log.time_ms.max()) + 1 - horizon_s * 1000
    checkpoint = options.checkpoint
    if checkpoint is None:
        config = replace(options.config, horizon_s=horizon_s)
        checkpoint = train(log, config, progress, cutoff_ms, options.data.name).checkpoint
    found = evaluate_window(
        log, checkpoint, cutoff_ms, progress, horizon_s, options.new_only, options.seed
    )
    moved = move(log, checkpoint, progress, cutoff_ms)
    columns = list(dict.fromkeys(name for row in found.figures.values() for name in row))
    return Report(
        tables=[
            Figures(
                f"Categories of the window, {found.users[0]:,} of {found.users[1]:,} users",
                ["", *columns],
                [
                    [name, *[row.get(column, float("nan")) for column in columns]]
                    for name, row in found.figures.items()
                ],
            )
        ],
        figures={f"{p} {k}": v for p, row in found.figures.items() for k, v in row.items()},
        predictions=predict_categories(
            moved, cutoff_ms, checkpoint, horizon_s, new_only=options.new_only
        ),
    )
