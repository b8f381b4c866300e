"""The next click of a session: every session is a user, and its row starts anew.

A file of sessions has the columns ``split`` (train or test) and ``items`` (a list, in order), its
train rows in order of time; a test row's last item is the target, and a list is the one that the
lane gives after the item before. It states no times: a session begins a minute after the one before
it, and an item follows a second later. Dimensions: Q test rows, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from model.checkpoint import Checkpoint
from model.errors import EventLogError
from model.evaluation.item_lists import LIST_ITEMS, MRR_20, list_tables, places
from model.evaluation.protocols import Options
from model.evaluation.report import Report
from model.event_log import EventLog, event_log
from model.events import EventBatch, Source
from model.item_baselines import ItemFloor, Mix, Queries, tuned_floor
from model.learning import Progress
from model.log_items import LogItems, log_items
from model.prediction import event_cuts
from model.ranking import rank
from model.state import new_rows
from model.training import LATE_SHARE, TrainingConfig, train
from model.transition import moved_rows

SESSION_MS = 60_000
STEP_MS = 1000
BATCH_STEPS = 20_000
HISTORY = 64
"""Items of a session that are looked through for a repeat."""
CATEGORY = "any"
"""Items of a file of sessions have no category; a name for all of them says as much."""
FLOOR = "Markov + kNN mix"
FLOOR_NOTE = (
    "A floor that was measured elsewhere on diginetica, of session kNN, sequential rules and own "
    "items: P@20 .5281, MRR@20 .1907."
)


def protocol(options: Options, progress: Progress) -> Report:
    """The last item of each test row, from the items before it."""
    train_log, test_log = read_sessions(options.data)
    checkpoint = options.checkpoint
    if checkpoint is None:
        config = session_config(options.config)
        checkpoint = train(train_log, config, progress, None, options.data.name).checkpoint
    target, lists, queries, items = session_lists(test_log, checkpoint, progress)
    floor = _floor(train_log, queries, checkpoint, options.seed, progress)
    found = {name: places(each, target) for name, each in {"model": lists, **floor}.items()}
    user = np.arange(len(target))
    before = replace(queries, item=items.number).latest(HISTORY)
    again = (before == target[:, None]).any(1)
    groups = {"all": target > 0, "repeats": again, "new to the session": ~again}
    title = "Next click of a session"
    tables, figures = list_tables(title, found, user, groups, MRR_20, options.seed, FLOOR_NOTE)
    table = pa.table({"seq": pa.array(user), "items": named_lists(lists, items.names)})
    return Report(tables, figures, predictions=table)


def session_config(config: TrainingConfig) -> TrainingConfig:
    """A training that spends nothing on windows: sessions end before any window does."""
    learning = replace(config.learning, window_weight=0.0, counter_steps=1)
    return replace(config, learning=learning, windows=100)


def read_sessions(path: Path) -> tuple[EventLog, EventLog]:
    """The train and the test rows as event logs; EventLogError where a column is missing."""
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise EventLogError(f"The sessions {path} cannot be read: {reason}") from error
    for column in ("split", "items"):
        if column not in table.column_names:
            raise EventLogError(f"{path} has no column {column}; a file of sessions needs it.")
    split = np.array(table["split"].to_pylist())
    lists = table["items"].combine_chunks()
    length = np.diff(np.asarray(lists.offsets))
    item = np.asarray(lists.flatten().cast(pa.string()).to_numpy(zero_copy_only=False))
    row = np.repeat(np.arange(len(length)), length)
    logs = []
    for name in ("train", "test"):
        wanted = split[row] == name
        if not wanted.any():
            raise EventLogError(f"{path} has no row whose split is {name}.")
        logs.append(session_log(row[wanted], item[wanted], path.stem))
    return logs[0], logs[1]


def session_log(session: np.ndarray, item: np.ndarray, stem: str, earlier: int = 0) -> EventLog:
    """An event log of sessions: ``session`` (N,) numbers them in order, items stand in order.

    Sessions are numbered anew from 0 as they come; users are their numbers as text. ``earlier``
    sessions came before the first one.
    """
    _, number = np.unique(session, return_inverse=True)
    order = np.argsort(number, kind="stable")
    number, item = number[order], item[order]
    step = np.arange(len(number)) - np.searchsorted(number, number)
    table = pa.table(
        {
            "user_id": pa.array(number).cast(pa.string()),
            "timestamp": pa.array((earlier + number) * SESSION_MS + step * STEP_MS),
            "event_type": pa.repeat("click", len(number)),
            "item_id": pa.array(item, pa.string()),
            "category": pa.repeat(CATEGORY, len(number)),
        }
    )
    return event_log(table, stem)


def session_lists(
    log: EventLog, checkpoint: Checkpoint, progress: Progress
) -> tuple[np.ndarray, np.ndarray, Queries, LogItems]:
    """(targets (Q,), the lane's lists before them (Q, K), what is known before them, items).

    The target of a session is its last item. Targets and lists have the numbers of ``LogItems``.
    """
    batch, users = log.batch(checkpoint.vocabulary)
    items = log_items(log, batch.item, checkpoint.vocabulary)
    start = np.searchsorted(batch.user, np.arange(len(users)))
    end = np.r_[start[1:], len(batch)] - 1
    target = items.number[end]
    known = np.ones(len(batch), dtype=bool)
    known[end] = False
    before = batch.take(known)
    rows = new_rows(len(users), checkpoint.hidden)
    for first, last in event_cuts(before, BATCH_STEPS):
        rows, _ = moved_rows(rows, before.take(slice(first, last)), Source(), checkpoint)
        progress("events", last, len(before))
    lists = rank(rows, rows["last_time_ms"], checkpoint, LIST_ITEMS, last_is_known=True).item
    lists = items.completed(lists, np.maximum(end - 1, start))
    return target, lists, Queries(batch.item, start, end), items


def named_lists(lists: np.ndarray, item_names: Sequence[str]) -> pa.Array:
    """The lists (Q, K) as lists of item ids, best first; item 0 ends one."""
    names = pa.array(item_names, pa.string())
    row, place = np.nonzero(lists > 0)
    offsets = np.r_[0, np.cumsum(np.bincount(row, minlength=len(lists)))].astype(np.int32)
    values = names.take(pa.array(lists[row, place] - 1))
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _floor(
    log: EventLog, queries: Queries, checkpoint: Checkpoint, seed: int, progress: Progress
) -> dict[str, np.ndarray]:
    """The lists of the floor."""
    batch, _ = log.batch(checkpoint.vocabulary)
    mix = session_mix(batch, checkpoint, seed, progress)
    return {FLOOR: session_floor(batch, checkpoint).lists(queries, mix, LIST_ITEMS, False)}


def session_floor(steps: EventBatch, checkpoint: Checkpoint) -> ItemFloor:
    """The floor, counted on steps that have the checkpoint's indices."""
    vocabulary = checkpoint.vocabulary
    return ItemFloor(steps, vocabulary.items, vocabulary.first_item_bucket, checkpoint.horizon_s)


def session_mix(steps: EventBatch, checkpoint: Checkpoint, seed: int, progress: Progress) -> Mix:
    """The floor's mix, tuned on the last items of the latest sessions of the steps."""
    sessions = int(steps.user.max()) + 1
    start = np.searchsorted(steps.user, np.arange(sessions))
    end = np.r_[start[1:], len(steps)] - 1
    late = int(sessions * (1 - LATE_SHARE))
    earlier = session_floor(steps.take(steps.user < late), checkpoint)
    asked = Queries(steps.item, start[late:], end[late:])
    target = steps.item[end[late:]]
    return tuned_floor(earlier, asked, target, progress, seed=seed, at=LIST_ITEMS)
