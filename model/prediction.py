"""What ``predict`` and ``drift`` say about a log file: the worker's transition, run over a file.

Dimensions: U users of the log, C categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from model import drift, interests, ranking
from model.checkpoint import Checkpoint
from model.drift import Change
from model.event_log import EventLog
from model.events import EventBatch, Source
from model.learning import Progress
from model.log_items import log_items
from model.state import StateBatch, new_rows
from model.transition import transition

BATCH_STEPS = 20_000
READ_ROWS = 1024
NEVER = 1_000_000


@dataclass(frozen=True)
class Alarm:
    """One drift alarm: the step of the log's batch, the row then, and what changed."""

    step: int
    row: np.void
    change: Change


@dataclass(frozen=True)
class Moved:
    """Rows after a log: one per user of ``users``; users without an event have 0 events."""

    users: list[str]
    rows: StateBatch
    batch: EventBatch
    alarms: list[Alarm]


def move(
    log: EventLog,
    checkpoint: Checkpoint,
    progress: Progress,
    cutoff_ms: int | None = None,
    lists: bool = False,
) -> Moved:
    """Moves new rows through the events before ``cutoff_ms`` (all without one), in replay order.

    Without ``lists`` the regular recommendations are left out: nobody reads them, and they are
    most of the work. Rows then differ in ``since_recommendation`` alone.
    """
    if cutoff_ms is not None:
        log = log.before(cutoff_ms)
    batch, users = log.batch(checkpoint.vocabulary)
    rows = new_rows(len(users), checkpoint.hidden)
    used = checkpoint if lists else replace(checkpoint, recommend_every=NEVER)
    alarms: list[Alarm] = []
    for start, end in event_cuts(batch, BATCH_STEPS):
        rows, outputs = transition(rows, batch.take(slice(start, end)), Source(), used)
        found = outputs.drifts
        for step, row, change in zip(found.step.tolist(), found.rows, found.changes, strict=True):
            alarms.append(Alarm(start + step, row, change))
        progress("events", end, len(batch))
    return Moved(users, rows, batch, alarms)


def event_cuts(batch: EventBatch, steps: int) -> list[tuple[int, int]]:
    """Slices of about ``steps`` steps that part no event."""
    ends = np.flatnonzero(batch.last_line) + 1
    cuts = [0]
    while cuts[-1] < len(batch):
        wanted = int(np.searchsorted(ends, cuts[-1] + steps, side="right")) - 1
        end = int(ends[max(wanted, 0)])
        if end <= cuts[-1]:  # one event is longer than the wanted slice
            end = int(ends[np.searchsorted(ends, cuts[-1], side="right")])
        cuts.append(end)
    return list(pairwise(cuts))


def predict_categories(
    moved: Moved,
    now_ms: int,
    checkpoint: Checkpoint,
    horizon_s: int | None = None,
    top: int | None = None,
    new_only: bool = False,
) -> pa.Table:
    """``user_id, category, probability`` of the window after ``now_ms``, likeliest first.

    horizon_s   another window than the checkpoint's: probabilities follow the same daily rate
    top         so many categories of each user, all without it
    new_only    leaves out the categories that the user has touched before
    """
    vocabulary = checkpoint.vocabulary
    names = pa.array(vocabulary.category_names, pa.string())
    known = np.flatnonzero(moved.rows["events"] > 0)
    touched = touched_pairs(moved.batch, len(moved.users), vocabulary.categories)
    parts = []
    for at in range(0, len(known), READ_ROWS):
        user = known[at : at + READ_ROWS]
        p = probabilities(moved.rows[user], now_ms, checkpoint, horizon_s)[:, 1 : len(names) + 1]
        order = np.argsort(-p, axis=1, kind="stable")  # (U, C)
        p = np.take_along_axis(p, order, 1)
        kept = np.ones(p.shape, dtype=bool)
        if new_only:
            key = user[:, None] * vocabulary.categories + order + 1
            kept = ~np.isin(key, touched)
        if top is not None:
            kept &= np.cumsum(kept, 1) <= top
        row, place = np.nonzero(kept)
        parts.append((user[row], order[row, place], p[row, place]))
    users, category, probability = _columns(parts, (np.int64, np.int64, np.float64))
    return pa.table(
        {
            "user_id": _named(pa.array(moved.users, pa.string()), users),
            "category": _named(names, category),
            "probability": pa.array(probability.astype(np.float32)),
        }
    )


def probabilities(
    rows: StateBatch, now_ms: int, checkpoint: Checkpoint, horizon_s: int | None = None
) -> np.ndarray:
    """``interests.category_probabilities`` at one time, for any horizon: (R, C)."""
    p = interests.category_probabilities(rows, np.full(len(rows), now_ms), checkpoint)
    if horizon_s is None or horizon_s == checkpoint.horizon_s:
        return p
    with np.errstate(divide="ignore"):
        silence = np.log1p(-p) * (horizon_s / checkpoint.horizon_s)
    return np.asarray(-np.expm1(silence))


def touched_pairs(batch: EventBatch, users: int, categories: int) -> np.ndarray:
    """Sorted keys ``user * categories + category`` of what the steps touch."""
    named = batch.category > 0
    return np.unique(batch.user[named] * categories + batch.category[named])


def predict_items(
    moved: Moved, log: EventLog, now_ms: int, checkpoint: Checkpoint, k: int
) -> pa.Table:
    """``user_id, item_id, rank, score``: the lists that the worker would give at ``now_ms``.

    ``log`` is what was moved.
    """
    known = np.flatnonzero(moved.rows["events"] > 0)
    at = np.full(len(known), now_ms)
    lists = ranking.rank(moved.rows[known], at, checkpoint, k, last_is_known=True)
    items = log_items(log, moved.batch.item, checkpoint.vocabulary)
    last = np.zeros(len(moved.users), np.int64)
    np.maximum.at(last, moved.batch.user, np.arange(len(moved.batch)))
    item = items.completed(lists.item, last[known])
    row, place = np.nonzero(item > 0)
    names = pa.array(items.names, pa.string())
    return pa.table(
        {
            "user_id": _named(pa.array(moved.users, pa.string()), known[row]),
            "item_id": _named(names, item[row, place] - 1),
            "rank": pa.array(place + 1, pa.int32()),
            "score": pa.array(lists.score[row, place].astype(np.float32)),
        }
    )


def drift_table(moved: Moved, log: EventLog, checkpoint: Checkpoint) -> pa.Table:
    """``user_id, event_index, timestamp, statistic, threshold, from, to, evidence`` of the alarms.

    ``log`` is what was moved. event_index is the 0-based number of the event among the user's;
    from and to are the categories that lost and gained most; evidence lists event ids.
    """
    number = event_numbers(moved.batch)
    event_at = {
        (int(kind), int(offset)): int(event)
        for kind, offset, event in zip(
            moved.batch.event_type, moved.batch.offset, log.event, strict=True
        )
    }
    rows = []
    for alarm in moved.alarms:
        before, after = _moved_most(alarm.change, checkpoint)
        units = drift.evidence_units(alarm.row, alarm.change.evidence)
        rows.append(
            {
                "user_id": moved.users[int(moved.batch.user[alarm.step])],
                "event_index": int(number[alarm.step]),
                "timestamp": int(moved.batch.time_ms[alarm.step]),
                "statistic": alarm.change.statistic,
                "threshold": checkpoint.drift.threshold,
                "from": before,
                "to": after,
                "evidence": [log.event_ids[event_at[kind, at]] for kind, at, *_ in units],
            }
        )
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("event_index", pa.int64()),
            ("timestamp", pa.timestamp("ms", tz="UTC")),
            ("statistic", pa.float64()),
            ("threshold", pa.float64()),
            ("from", pa.string()),
            ("to", pa.string()),
            ("evidence", pa.list_(pa.string())),
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def event_numbers(batch: EventBatch) -> np.ndarray:
    """0-based number of each step's event among its user's events, (N,)."""
    order = np.argsort(batch.user, kind="stable")
    user, first = batch.user[order], batch.line[order] == 0
    count = np.cumsum(first) - 1
    starts = np.searchsorted(user, user)
    number = np.empty(len(batch), dtype=np.int64)
    number[order] = count - count[starts]
    return number


def _moved_most(change: Change, checkpoint: Checkpoint) -> tuple[str | None, str | None]:
    """Names of the listed categories whose share fell and rose most."""
    before, after = dict(change.before), dict(change.after)
    gain = {c: after.get(c, 0.0) - before.get(c, 0.0) for c in sorted({*before, *after})}
    if not gain:
        return None, None
    name = checkpoint.vocabulary.category_name
    return name(min(gain, key=lambda c: gain[c])), name(max(gain, key=lambda c: gain[c]))


def _columns(
    parts: Sequence[tuple[np.ndarray, ...]], types: tuple[type, ...]
) -> tuple[np.ndarray, ...]:
    if not parts:
        return tuple(np.zeros(0, kind) for kind in types)
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def _named(names: pa.Array, codes: np.ndarray) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), names)
