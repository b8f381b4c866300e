"""The item of the next event, from the lists that the lane would give.

The checkpoint is trained on what came before the cut-off (the caller sees to it); a user's own row
goes on after it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model import baselines
from model.checkpoint import Checkpoint
from model.event_log import EventLog
from model.events import EventBatch, Source
from model.learning import Progress
from model.metrics import Interval, bootstrap
from model.prediction import event_cuts, move
from model.transition import transition

TOP = 10


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
