"""The next click of a session, period by period: predicted first, then learned from.

A file of periods has the columns ``period, session, item``, rows in order of time. The model is
trained on the first period; every later one is predicted with what came before it, and then moves
the model on (model/continual.py). ``seq`` is the 0-based number of a click among those of its
period that have an earlier click of their session in it, in the order of the file. Beside the model
stands a floor of counting that keeps the sessions of all earlier periods, and in the last period a
model that is trained anew on all of them. *Known items* are those that an earlier period has.
Dimensions: Q clicks, K list length.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from model.checkpoint import Checkpoint
from model.continual import EXEMPLARS, UPDATES, first_memory, moved_on
from model.errors import EventLogError
from model.evaluation.item_lists import LIST_ITEMS, MRR_20, list_tables, places
from model.evaluation.next_item import EVER_MS, lists_before, targets_from
from model.evaluation.protocols import Options
from model.evaluation.report import Cell, Curve, Figures, Report
from model.evaluation.sessions import (
    FLOOR,
    SESSION_MS,
    named_lists,
    session_config,
    session_floor,
    session_log,
    session_mix,
)
from model.event_log import EventLog
from model.events import EventBatch
from model.fusion import fit_ranking
from model.held_lists import held_lists
from model.item_baselines import Queries
from model.learning import Progress
from model.log_items import log_items
from model.training import train

QUICK_PERIODS = 3
QUICK_UPDATES = 10
MODEL = "model"
KNOWN = "known items"
GROUPS = ("all", KNOWN)
NOTE = (
    "ADER (Mi, Lin and Faltings, RecSys 2020) states .5021 and .1732, of known items: its protocol "
    "takes the others out of the tests. A floor that was measured elsewhere, of session kNN, rules "
    "and own items that keep all sessions, has .5092 and .1910. The floor of this run keeps all "
    "sessions, too."
)


@dataclass(frozen=True)
class Period:
    """Q clicks of a period that have an earlier one of their session, in the order of the file.

    session   (Q,)
    item      (Q,) numbers of the items, as in the lists
    is_known  (Q,) whether an earlier period has the item
    lists     (Q, K) the model's, made right before the click
    queries   (Q,) what the floor knows then
    names     of the items
    """

    session: np.ndarray
    item: np.ndarray
    is_known: np.ndarray
    lists: np.ndarray
    queries: Queries
    names: list[str]


def protocol(options: Options, progress: Progress) -> Report:
    """Mean over the periods after the first one."""
    logs, rows = read_periods(options.data)
    if options.quick:
        logs = logs[:QUICK_PERIODS]
    config = session_config(options.config)
    began = time.perf_counter()
    checkpoint = train(logs[0], config, progress, None, options.data.name).checkpoint
    memory = first_memory(checkpoint, logs[0], options.seed)
    seconds = [time.perf_counter() - began]
    updates = QUICK_UPDATES if options.quick else UPDATES
    learning = replace(config.learning, max_steps=updates)
    periods: list[Period] = []
    found: list[dict[str, np.ndarray]] = []  # places by predictor
    tables: list[pa.Table] = []
    mix = session_mix(logs[0].batch(checkpoint.vocabulary)[0], checkpoint, options.seed, progress)
    for number, log in enumerate(logs[1:], start=1):
        period = _listed(log, checkpoint, rows[number], progress)
        floor = session_floor(_steps_of(logs[:number], checkpoint), checkpoint)
        counted = floor.lists(period.queries, mix, LIST_ITEMS, False)
        periods.append(period)
        lists = {MODEL: period.lists, FLOOR: counted}
        found.append({name: places(each, period.item) for name, each in lists.items()})
        table = {"period": np.full(len(period.item), number), "seq": np.arange(len(period.item))}
        tables.append(pa.table({**table, "items": named_lists(period.lists, period.names)}))
        began = time.perf_counter()
        batch, _ = log.batch(checkpoint.vocabulary)
        every = np.ones(len(batch), dtype=bool)
        asked = held_lists(checkpoint, batch, every, config.lists, options.seed + number)
        ranking = fit_ranking(checkpoint, asked, progress)
        checkpoint, memory = moved_on(
            checkpoint, memory, log, ranking, learning, progress, options.seed + number
        )
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    again = train(_joined(logs[:-1]), config, progress, None, options.data.name).checkpoint
    took_s = time.perf_counter() - began
    anew = _listed(logs[-1], again, rows[-1], progress)
    report = _report(periods, found, tables, seconds, options.seed)
    moved, retrained = found[-1][MODEL], places(anew.lists, anew.item)
    beside = _against_retraining(periods[-1], moved, retrained, seconds, took_s)
    return replace(report, tables=[*report.tables, beside])


def read_periods(path: Path) -> tuple[list[EventLog], list[np.ndarray]]:
    """A log per period, and where each of its steps stands in the period's rows of the file."""
    try:
        table = parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise EventLogError(f"The periods {path} cannot be read: {reason}") from error
    for column in ("period", "session", "item"):
        if column not in table.column_names:
            raise EventLogError(f"{path} has no column {column}; a file of periods needs it.")
    period = table["period"].to_numpy()
    session = table["session"].to_numpy()
    item = np.asarray(table["item"].cast(pa.string()).to_numpy())
    logs: list[EventLog] = []
    rows: list[np.ndarray] = []
    for number in np.unique(period).tolist():
        at = np.flatnonzero(period == number)
        _, first, of = np.unique(session[at], return_index=True, return_inverse=True)
        begun = np.argsort(np.argsort(first, kind="stable"), kind="stable")[of]
        order = np.argsort(begun, kind="stable")
        earlier = sum(len(log.users) for log in logs)
        stem = f"{path.stem}-{number}"
        logs.append(session_log(begun[order], item[at[order]], stem, earlier))
        rows.append(order)
    if len(logs) < 2:
        raise EventLogError(f"{path} has fewer than two periods; there is none to predict.")
    return logs, rows


def _steps_of(logs: Sequence[EventLog], checkpoint: Checkpoint) -> EventBatch:
    """All steps of several periods, each session a user of its own."""
    batches = [log.batch(checkpoint.vocabulary)[0] for log in logs]
    sessions = np.cumsum([0, *(len(log.users) for log in logs)])
    return EventBatch.joined(batches, sessions[:-1])


def _joined(logs: Sequence[EventLog]) -> EventLog:
    """One log of several periods."""
    session = np.concatenate([log.time_ms // SESSION_MS for log in logs])
    item = np.concatenate([np.asarray(log.items)[log.item] for log in logs])
    return session_log(session, item, "periods")


def _listed(log: EventLog, checkpoint: Checkpoint, rows: np.ndarray, progress: Progress) -> Period:
    """The clicks of a period, foreseen.

    ``log`` stands by session; ``rows`` says where its steps stand in the file.
    """
    batch, users = log.batch(checkpoint.vocabulary)
    items = log_items(log, batch.item, checkpoint.vocabulary)
    targets = targets_from(replace(batch, item=items.number), EVER_MS)
    order = np.arange(len(batch))
    lists = lists_before(batch, order, targets, EVER_MS, len(users), checkpoint, progress)
    lists = items.completed(lists, targets.step - 1)
    by_file = np.argsort(rows[targets.step], kind="stable")
    item = targets.item[by_file]
    return Period(
        session=targets.user[by_file],
        item=item,
        is_known=item < checkpoint.vocabulary.first_item_bucket,
        lists=lists[by_file],
        queries=Queries(batch.item, targets.start, targets.step).take(by_file),
        names=items.names,
    )


def _against_retraining(
    last: Period,
    moved: np.ndarray,
    retrained: np.ndarray,
    seconds: Sequence[float],
    retrained_s: float,
) -> Figures:
    """The last period, by the places (Q,) of a model that was moved on and of one made anew."""
    rows: list[Sequence[Cell]] = []
    for name, place, took_s in (
        ("moved on, period by period", moved, seconds[-2]),
        ("trained anew on all earlier periods", retrained, retrained_s),
    ):
        hit, gain = MRR_20.values(place[last.is_known])
        rows.append([name, float(hit.mean()), float(gain.mean()), f"{took_s:.0f}"])
    columns = ["", MRR_20.hits, MRR_20.gain, "seconds for it"]
    note = f"{KNOWN.capitalize()}. Moving on keeps at most {EXEMPLARS:,} histories."
    title = "Next click of the last period: moving on beside retraining"
    return Figures(title, columns, rows, note)


def _report(
    periods: Sequence[Period],
    places_of: Sequence[Mapping[str, np.ndarray]],
    tables: list[pa.Table],
    seconds: Sequence[float],
    seed: int,
) -> Report:
    title, names = "Next click, period by period", (MRR_20.hits, MRR_20.gain)
    predictors = MODEL, FLOOR
    means = np.array(
        [_means(p, found) for p, found in zip(periods, places_of, strict=True)]
    )  # (P, groups, predictors, names)
    rows: list[list[Cell]] = [
        [
            f"{number}",
            f"{len(period.item):,}",
            f"{period.is_known.mean():.1%}",
            *map(float, mean[GROUPS.index(KNOWN)].ravel()),
            f"{seconds[number]:.0f}",
        ]
        for number, (period, mean) in enumerate(zip(periods, means, strict=True), start=1)
    ]
    columns = ["period", "clicks", "known"]
    columns += [f"{predictor}, {name}" for predictor in predictors for name in names]
    note = (
        "Figures are of known items. Training on the first period took "
        f"{seconds[0]:.0f} s, moving on {np.mean(seconds[1:]):.0f} s a period."
    )
    by_period = Figures(title, [*columns, "seconds to move on"], rows, note)
    mean = means.mean(0)
    rows = [
        [group, predictor, *map(float, mean[i, j])]
        for i, group in enumerate(GROUPS)
        for j, predictor in enumerate(predictors)
    ]
    over_periods = Figures(f"{title}, mean over periods", ["", "", *names], rows, NOTE)
    shift = np.cumsum([0, *(int(period.session.max(initial=0)) + 1 for period in periods)])
    session = np.concatenate([p.session + at for p, at in zip(periods, shift, strict=False)])
    known = np.concatenate([period.is_known for period in periods])
    found = {name: np.concatenate([each[name] for each in places_of]) for name in predictors}
    masks = dict(zip(GROUPS, (np.ones(len(known), dtype=bool), known), strict=True))
    pooled, figures = list_tables(f"{title}, pooled", found, session, masks, MRR_20, seed)
    figures |= {
        f"mean over periods, {group}, {predictor}, {name}": float(mean[i, j, k])
        for i, group in enumerate(GROUPS)
        for j, predictor in enumerate(predictors)
        for k, name in enumerate(names)
    }
    lines = {
        f"{predictor}, {name}": list(enumerate(means[:, GROUPS.index(KNOWN), j, k].tolist(), 1))
        for j, predictor in enumerate(predictors)
        for k, name in enumerate(names)
    }
    curve = Curve(f"{title}, {KNOWN}", "period", "mean", lines)
    tables_of = [by_period, over_periods, *pooled]
    return Report(tables_of, figures, curves=[curve], predictions=pa.concat_tables(tables))


def _means(period: Period, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """Means of both figures by group and predictor: (2, 2, 2)."""
    masks = np.ones(len(period.item), dtype=bool), period.is_known
    values = [MRR_20.values(found[predictor]) for predictor in (MODEL, FLOOR)]
    return np.array([[[v[mask].mean() for v in both] for both in values] for mask in masks])
