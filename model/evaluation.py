"""Figures of a checkpoint on a log, from rows that the one transition makes.

Everything is split by time at a cut-off: the checkpoint is trained on what came before (the caller
sees to it), rows move through what came before, and labels come from after it.
Dimensions: U users, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from model import baselines
from model.baselines import History
from model.checkpoint import Checkpoint
from model.event_log import EventLog
from model.events import EventBatch, Source
from model.learning import Progress
from model.metrics import Interval, bootstrap, labels, ndcg_by_user, window_figures
from model.prediction import event_cuts, move, probabilities, touched_pairs
from model.transition import transition

TOP = 10
DAY_MS = 86_400_000
DRIFT_WITHIN = (10, 20, 50)


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


@dataclass(frozen=True)
class NextItemReport:
    """HR@10 and NDCG@10 of the next event's item, by predictor, over ``events`` events.

    named   share of these events whose item the vocabulary names: no other can be listed
    """

    figures: dict[str, dict[str, float]]
    gain: tuple[float, Interval]
    events: int
    named: float


def evaluate_next_item(
    log: EventLog, checkpoint: Checkpoint, cutoff_ms: int, progress: Progress, seed: int = 0
) -> NextItemReport:
    """The item of each event whose user's event before is at or after the cut-off.

    The row goes on with the events, everything else is frozen. Candidates are those of the lane.
    The gain is over the user's last items filled up with popular ones, bootstrapped over users.
    """
    moved = move(log, checkpoint, progress, cutoff_ms)
    batch, names = log.batch(checkpoint.vocabulary)
    item_after = _next_event_item(batch)
    rows = moved.rows
    every = replace(checkpoint, recommend_every=1, top_k=TOP)
    popular = baselines.popular_items(moved.batch, TOP)
    popular_list = popular.tolist()
    held = _items_by_user(moved.batch, len(names))
    late = np.flatnonzero(batch.time_ms >= cutoff_ms)
    hits: dict[str, list[int]] = {"model": [], "most popular": [], "last items": []}
    users: list[int] = []
    named = 0
    rest = batch.take(late)
    for start, end in event_cuts(rest, 5000):
        part = rest.take(slice(start, end))
        rows, outputs = transition(rows, part, Source(), every)
        lists = outputs.recommendations.item
        for step, listed in zip(outputs.recommend_step.tolist(), lists, strict=True):
            user, target = int(part.user[step]), int(item_after[late[start + step]])
            first = step
            while part.line[first] > 0:
                first -= 1
            held[user].extend(int(i) for i in part.item[first : step + 1] if i > 0)
            if target == 0:
                continue
            users.append(user)
            named += target < checkpoint.vocabulary.first_item_bucket
            hits["model"].append(_place(listed.tolist(), target))
            hits["most popular"].append(_place(popular_list, target))
            last = baselines.last_items(held[user][-50:], popular, TOP)
            hits["last items"].append(_place(last, target))
        progress("events", end, len(rest))
    gain = {name: _gain(np.array(places, dtype=np.int64)) for name, places in hits.items()}
    figures = {
        name: {"HR@10": float((g > 0).mean()), "NDCG@10": float(g.mean())}
        for name, g in gain.items()
        if len(g)
    }
    owner = np.array(users, dtype=np.int64)
    difference = _mean_by_user(gain["model"] - gain["last items"], owner)
    return NextItemReport(
        figures=figures,
        gain=(float(np.nanmean(difference)), bootstrap(difference, seed)),
        events=len(users),
        named=named / max(len(users), 1),
    )


def _next_event_item(batch: EventBatch) -> np.ndarray:
    """The first item of the same user's next event, at each event's last step, else 0: (N,)."""
    order = np.argsort(batch.user, kind="stable")
    user, item = batch.user[order], batch.item[order]
    after = np.zeros(len(batch), dtype=np.int64)
    same = user[1:] == user[:-1]
    after[order[:-1]] = np.where(same & batch.last_line[order[:-1]], item[1:], 0)
    return after


def _items_by_user(batch: EventBatch, users: int) -> list[list[int]]:
    held: list[list[int]] = [[] for _ in range(users)]
    for user, item in zip(batch.user.tolist(), batch.item.tolist(), strict=True):
        if item > 0:
            held[user].append(item)
    return held


def _place(listed: list[int], target: int) -> int:
    return listed.index(target) if target in listed else -1


def _gain(place: np.ndarray) -> np.ndarray:
    return np.where(place >= 0, 1 / np.log2(np.maximum(place, 0) + 2), 0.0)


def _mean_by_user(values: np.ndarray, user: np.ndarray) -> np.ndarray:
    if len(values) == 0:
        return np.full(1, np.nan)
    known, index = np.unique(user, return_inverse=True)
    return np.asarray(np.bincount(index, values) / np.bincount(index, minlength=len(known)))


@dataclass(frozen=True)
class DriftReport:
    """Alarms against planted changes.

    recall, chance          within so many events: found, and found by alarms at random moments
    delay_events            median events from a change to the first alarm within 50
    right_to                share of found changes whose ``to`` is among the categories that came
    false_per_1000_30d      alarms per 1,000 users and 30 days of users without a change
    """

    changes: int
    alarms: int
    recall: dict[int, float]
    chance: dict[int, float]
    delay_events: float
    right_to: float
    false_per_1000_30d: float


def evaluate_drift(alarms: pa.Table, truth: pa.Table, log: EventLog) -> DriftReport:
    """Scores a ``drift`` table against the truth that the simulator wrote."""
    by_user: dict[str, list[tuple[int, str | None]]] = {}
    for user, index, to in zip(
        alarms["user_id"].to_pylist(),
        alarms["event_index"].to_pylist(),
        alarms["to"].to_pylist(),
        strict=True,
    ):
        by_user.setdefault(user, []).append((index, to))
    planted = truth.to_pylist()
    delays: list[int] = []
    right = 0
    for change in planted:
        after = [(i - change["event_index"], to) for i, to in by_user.get(change["user_id"], [])]
        after = [(delay, to) for delay, to in after if 0 <= delay <= max(DRIFT_WITHIN)]
        if after:
            delays.append(after[0][0])
            right += after[0][1] in change["to_categories"]
    changed = {change["user_id"] for change in planted}
    days, events, false = _quiet_users(log, changed, by_user)
    rate = false / max(events, 1)
    changes = max(len(planted), 1)
    return DriftReport(
        changes=len(planted),
        alarms=alarms.num_rows,
        recall={n: sum(d <= n for d in delays) / changes for n in DRIFT_WITHIN},
        chance={n: 1 - (1 - rate) ** (n + 1) for n in DRIFT_WITHIN},
        delay_events=float(np.median(delays)) if delays else float("nan"),
        right_to=right / max(len(delays), 1),
        false_per_1000_30d=false / max(days, 1e-9) * 30_000,
    )


def _quiet_users(
    log: EventLog, changed: set[str], alarms: dict[str, list[tuple[int, str | None]]]
) -> tuple[float, int, int]:
    """(days between first and last event, events, alarms) of the users without a change."""
    days, events, false = 0.0, 0, 0
    order = np.argsort(log.user, kind="stable")
    starts = np.searchsorted(log.user[order], np.arange(len(log.users) + 1))
    for code, name in enumerate(log.users):
        if name in changed:
            continue
        rows = order[starts[code] : starts[code + 1]]
        if len(rows):
            days += float(np.ptp(log.time_ms[rows])) / DAY_MS
            events += len(np.unique(log.event[rows]))
            false += len(alarms.get(name, []))
    return days, events, false
