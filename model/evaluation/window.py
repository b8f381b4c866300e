"""Categories of the window after a cut-off, beside what counting and hand features say.

The checkpoint is trained on what came before the cut-off, rows move through what came before, and
labels come from after it. Figures are means over rolling cut-offs. Dimensions: U users with a
history, K of them that are scored, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from model import baselines, interests
from model.baselines import FactorModel, History
from model.checkpoint import Checkpoint
from model.evaluation import trees
from model.evaluation.intervals import Coverage, coverage_table, coverages
from model.evaluation.protocols import Options
from model.evaluation.report import Cell, Curve, Figures, Report
from model.event_log import EventLog, read_event_log
from model.events import EventType
from model.learning import Progress
from model.metrics import (
    bootstrap,
    calibration,
    interest_correlation,
    labels,
    ndcg_by_user,
    top_cases,
    window_figures,
)
from model.prediction import Moved, move, predict_categories, probabilities
from model.training import horizon_of, train

CUTS = 3
SHORT_LOG_HORIZONS = 8
"""In a log of fewer horizons the cut-offs lie half a horizon apart."""
MAX_USERS = 6000
"""So many users are scored at a cut-off, drawn at random; baselines learn from all."""
PROBABLE = ("model", "most popular", "factor model", "logistic", "trees", "blend")
"""Predictors whose scores are probabilities."""
NEWCOMER_EVENTS = 20
BUCKET_NAMES = ("0-2", "3-5", "6-10", "11-30", "31-100", "above 100")


@dataclass(frozen=True)
class Cut:
    """What was predicted at one cut-off, and what came.

    users     (K,) names of the scored users
    scores    predictor -> (K, C); column 0 is no category
    label     (K, C) bool, touched in the window
    observed  (K, C) events in the window
    touched   (K, C) bool, touched before the cut-off
    events    (K,) events before the cut-off
    coverage  how often the model's intervals held, by size of group
    """

    cutoff_ms: int
    users: Sequence[str]
    scores: Mapping[str, np.ndarray]
    label: np.ndarray
    observed: np.ndarray
    touched: np.ndarray
    events: np.ndarray
    coverage: Sequence[Coverage] = ()

    def new_only(self) -> Cut:
        """The same without the categories that a user has touched."""
        scores = {name: np.where(self.touched, -np.inf, s) for name, s in self.scores.items()}
        label, observed = self.label & ~self.touched, np.where(self.touched, 0, self.observed)
        return replace(self, scores=scores, label=label, observed=observed)


def protocol(options: Options, progress: Progress) -> Report:
    """Figures of the rolling cut-offs; the predictions are those of the last cut-off."""
    trees.check_library()
    log = read_event_log(options.data)
    horizon_s = options.horizon_s or horizon_of(log, options.config.horizon_s)
    event_type = None if options.event_type is None else EventType[options.event_type.upper()]
    cuts, moved, checkpoint = [], None, options.checkpoint
    times_ms = cutoffs_ms(log, horizon_s) if options.cutoff_ms is None else [options.cutoff_ms]
    times_ms = times_ms[-1:] if options.quick else times_ms
    for cutoff_ms in times_ms:
        if options.checkpoint is None:
            config = replace(options.config, horizon_s=horizon_s, target=event_type)
            checkpoint = train(log, config, progress, cutoff_ms, options.data.name).checkpoint
        assert checkpoint is not None
        moved = move(log, checkpoint, progress, cutoff_ms)
        cuts.append(
            score_cut(log, moved, checkpoint, cutoff_ms, horizon_s, event_type, options.seed)
        )
        progress("cut-offs", len(cuts), len(times_ms))
    assert moved is not None
    assert checkpoint is not None
    table = predict_categories(
        moved, cuts[-1].cutoff_ms, checkpoint, horizon_s, new_only=options.new_only
    )
    return report(cuts, options.new_only, table, options.seed)


def cutoffs_ms(log: EventLog, horizon_s: int) -> list[int]:
    """The start of the log's last whole window and of the two before it."""
    span_s = int(log.time_ms.max() - log.time_ms.min()) // 1000
    step_s = horizon_s if span_s >= SHORT_LOG_HORIZONS * horizon_s else horizon_s // 2
    last_ms = last_window_ms(log, horizon_s)
    return [last_ms - back * step_s * 1000 for back in reversed(range(CUTS))]


def last_window_ms(log: EventLog, horizon_s: int) -> int:
    """The start of the log's last whole window, which is one of whole seconds."""
    return (int(log.time_ms.max()) // 1000 + 1 - horizon_s) * 1000


def score_cut(
    log: EventLog,
    moved: Moved,
    checkpoint: Checkpoint,
    cutoff_ms: int,
    horizon_s: int,
    event_type: int | None = None,
    seed: int = 0,
) -> Cut:
    """Scores of the model and of all baselines for the users with a history at the cut-off.

    ``moved`` holds the rows of ``checkpoint`` after the events before the cut-off.
    """
    cutoff_s, categories = cutoff_ms // 1000, checkpoint.vocabulary.categories
    known = moved.rows["events"] > 0
    number = np.cumsum(known) - 1
    steps = replace(moved.batch, user=number[moved.batch.user])
    history = History(steps, int(known.sum()), categories, cutoff_s, event_type)
    chosen = np.arange(history.users)
    if len(chosen) > MAX_USERS:
        random = np.random.default_rng(seed)
        chosen = np.sort(random.choice(chosen, MAX_USERS, replace=False))
    place = np.full(len(moved.users), -1)
    place[np.flatnonzero(known)[chosen]] = np.arange(len(chosen))
    whole, names = log.batch(checkpoint.vocabulary)
    index = {name: i for i, name in enumerate(moved.users)}
    mine = np.array([index.get(name, -1) for name in names])
    after = whole.take(whole.time_ms >= cutoff_ms)
    after = replace(after, user=np.where(mine[after.user] >= 0, place[mine[after.user]], -1))
    after = baselines.predicted(after.take(after.user >= 0), event_type)
    label = labels(after, len(chosen), categories, cutoff_s, horizon_s)
    inside = (after.time_ms < cutoff_ms + horizon_s * 1000) & (after.category > 0)
    observed = np.zeros(label.shape)
    np.add.at(observed, (after.user[inside], after.category[inside]), 1.0)
    rows = moved.rows[np.flatnonzero(known)[chosen]]
    scores = {"model": probabilities(rows, cutoff_ms, checkpoint, horizon_s)}
    scores |= {name: s[chosen] for name, s in all_baselines(history, horizon_s, seed).items()}
    machine = trees.learned(history, horizon_s, chosen, seed)
    scores |= {"logistic": machine.logistic, "trees": machine.trees, "blend": machine.blend}
    return Cut(
        cutoff_ms=cutoff_ms,
        users=[moved.users[i] for i in np.flatnonzero(known)[chosen]],
        scores=scores,
        label=label,
        observed=observed,
        touched=history.counts()[chosen] > 0,
        events=rows["events"].astype(np.int64),
        coverage=coverages(top_cases(scores["model"], label), checkpoint),
    )


def all_baselines(history: History, horizon_s: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Every baseline of counting by name, tuned before the cut-off, each (U, C)."""
    found = {
        "most popular": baselines.most_popular(history, horizon_s),
        "last": baselines.last_touched(history, horizon_s),
        "history frequency": baselines.history_frequency(history, horizon_s),
        "factor model": FactorModel.fitted(history, horizon_s).probabilities(history, horizon_s),
    }
    for baseline in baselines.window_baselines(horizon_s):
        found[baseline.name] = baseline.tuned(history, horizon_s, seed)
    return found


def report(cuts: Sequence[Cut], new_only: bool, predictions: pa.Table, seed: int = 0) -> Report:
    """Tables of several cut-offs of one log; see the module's README section."""
    tables: list[Figures] = []
    figures: dict[str, float] = {}
    samples: dict[str, list[float]] = {}
    parts = [("new to the user", [cut.new_only() for cut in cuts])]
    if not new_only:
        parts = [("all", list(cuts)), *parts]
    for name, part in parts:
        found = _ranking(part)
        tables.append(_table(f"Categories, {name}: users who return", found, _counts(part)))
        figures |= {f"{name}: {p}: {k}": v for p, row in found.items() for k, v in row.items()}
        best = max((p for p in found if p != "model"), key=lambda p: found[p]["NDCG@10"])
        gains, of_user = _gains(part, list(found), seed)
        tables.append(
            Figures(
                f"Gain of the model in NDCG@10, {name}",
                ["over", "mean", "95 % from", "to", "relative"],
                [
                    [p, mean, low, high, f"{100 * mean / max(found[p]['NDCG@10'], 1e-9):+.1f} %"]
                    for p, (mean, low, high) in gains.items()
                ],
                f"Paired by user, each user the mean of their cut-offs. Best floor: {best}.",
            )
        )
        samples[f"NDCG@10 over the best floor, {name}"] = of_user[best]
        figures[f"{name}: gain over the best floor"] = gains[best][0]
        figures[f"{name}: gain from"] = gains[best][1]
    every = _all_users(cuts, seed)
    tables.append(_table("All users with a history", every, _counts(cuts)))
    figures |= {f"all users: {p}: {k}": v for p, row in every.items() for k, v in row.items()}
    tables.append(_by_bucket(cuts, seed))
    intervals, held = coverage_table([(cut.cutoff_ms, cut.coverage) for cut in cuts])
    tables.append(intervals)
    figures |= held
    newcomers = _newcomers(cuts, seed)
    tables.append(newcomers)
    return Report(
        tables=tables,
        figures=figures,
        samples=samples,
        curves=[_reliability(cuts, seed), _first_events(newcomers)],
        predictions=predictions,
    )


def _ranking(cuts: Sequence[Cut]) -> dict[str, dict[str, float]]:
    """Figures over users with a label, means over the cut-offs."""
    found: dict[str, list[dict[str, float]]] = {}
    for cut in cuts:
        users = cut.label.any(1)
        for name, score in cut.scores.items():
            figures = window_figures(score[users], cut.label[users], name in PROBABLE)
            found.setdefault(name, []).append(figures)
    return {name: _mean_of(rows) for name, rows in found.items()}


def _all_users(cuts: Sequence[Cut], seed: int) -> dict[str, dict[str, float]]:
    """Figures over all users with a history; correlation over those who return."""
    found: dict[str, list[dict[str, float]]] = {}
    for cut in cuts:
        returning = cut.label.any(1)
        for name, score in cut.scores.items():
            whole = window_figures(score, cut.label, name in PROBABLE)
            row = {
                "NDCG@10": float(np.nan_to_num(ndcg_by_user(score, cut.label)).mean()),
                **{k: whole[k] for k in ("macro AUROC", "micro AUROC")},
            }
            row["Spearman"], row["Pearson"] = interest_correlation(
                score[returning], cut.observed[returning]
            )
            if name in PROBABLE:
                names = ("Brier", "log-loss", "log-loss of base rate", "log-loss / base")
                row |= {k: whole[k] for k in names}
                found_error = calibration(*top_cases(score, cut.label), seed=seed)
                row["ECE of ten highest"] = found_error.error
                row["perfect: to"] = found_error.band[1]
            found.setdefault(name, []).append(row)
    return {name: _mean_of(rows) for name, rows in found.items()}


def _mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _gains(
    cuts: Sequence[Cut], predictors: Sequence[str], seed: int
) -> tuple[dict[str, tuple[float, float, float]], dict[str, list[float]]]:
    """Predictor -> (mean gain of the model, its interval), and predictor -> gain of each user."""
    gains, samples = {}, {}
    ours: list[np.ndarray] = [ndcg_by_user(cut.scores["model"], cut.label) for cut in cuts]
    for name in predictors:
        if name == "model":
            continue
        by_user: dict[str, list[float]] = {}
        for cut, own in zip(cuts, ours, strict=True):
            difference = own - ndcg_by_user(cut.scores[name], cut.label)
            for user, value in zip(cut.users, difference.tolist(), strict=True):
                if not np.isnan(value):
                    by_user.setdefault(user, []).append(value)
        values = np.array([np.mean(each) for each in by_user.values()])
        low, high = bootstrap(values, seed)
        mean = float(values.mean()) if len(values) else float("nan")
        gains[name] = (mean, low, high)
        samples[name] = values.tolist()
    return gains, samples


def _by_bucket(cuts: Sequence[Cut], seed: int) -> Figures:
    """Calibration of the model's ten highest probabilities by the user's number of events."""
    rows: list[list[Cell]] = []
    for bucket, name in enumerate(BUCKET_NAMES):
        p, true = _cases(cuts, bucket)
        found = calibration(p, true, seed=seed)
        inside = "–" if found.cases <= 1000 else "yes" if found.is_inside else "no"
        rows.append([name, f"{found.cases:,}", found.error, *found.band, inside])
    columns = ["events", "cases", "ECE", "perfect: from", "to", "inside"]
    return Figures("Calibration of the model by the user's events", columns, rows)


def _cases(cuts: Sequence[Cut], bucket: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for cut in cuts:
        users = np.ones(len(cut.label), dtype=bool)
        if bucket is not None:
            users = interests.event_bucket(cut.events) == bucket
        parts.append(top_cases(cut.scores["model"][users], cut.label[users]))
    return np.concatenate([p for p, _ in parts]), np.concatenate([t for _, t in parts])


def _reliability(cuts: Sequence[Cut], seed: int) -> Curve:
    bins = calibration(*_cases(cuts), seed=seed).bins
    top = max((max(point) for point in bins), default=1.0)
    return Curve(
        "Calibration of each user's ten highest probabilities",
        "predicted probability",
        "share that came true",
        {"model": bins, "perfect": [(0.0, 0.0), (top, top)]},
    )


def _newcomers(cuts: Sequence[Cut], seed: int) -> Figures:
    """NDCG@10 of users with few events before the cut-off, beside popularity."""
    rows: list[list[Cell]] = []
    for count in range(1, NEWCOMER_EVENTS + 1):
        parts = []
        for cut in cuts:
            users = cut.events == count
            label = cut.label[users]
            ours, popular = (
                ndcg_by_user(cut.scores[name][users], label) for name in ("model", "most popular")
            )
            parts.append(np.stack((ours, popular, ours - popular), 1))
        values = np.concatenate(parts)
        values = values[~np.isnan(values[:, 0])]
        if len(values):
            low, high = bootstrap(values[:, 2], seed)
            rows.append([str(count), f"{len(values):,}", *values.mean(0).tolist(), low, high])
    columns = ["events", "users", "model", "most popular", "gain", "95 % from", "to"]
    return Figures("NDCG@10 of new users who return", columns, rows)


def _first_events(newcomers: Figures) -> Curve:
    lines: dict[str, list[tuple[float, float]]] = {"model": [], "most popular": []}
    for events, _, ours, popular, *_ in newcomers.rows:
        lines["model"].append((float(events), float(ours)))
        lines["most popular"].append((float(events), float(popular)))
    return Curve("New users", "events before the cut-off", "NDCG@10", lines)


def _counts(cuts: Sequence[Cut]) -> str:
    returning = "/".join(f"{cut.label.any(1).sum():,}" for cut in cuts)
    known = "/".join(f"{len(cut.label):,}" for cut in cuts)
    return f"{len(cuts)} cut-offs with {returning} users who return, of {known} with a history."


def _table(title: str, rows: Mapping[str, Mapping[str, float]], note: str) -> Figures:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells: list[list[Cell]] = [
        [name, *[row.get(c, float("nan")) for c in columns]] for name, row in rows.items()
    ]
    return Figures(title, ["", *columns], cells, note)
