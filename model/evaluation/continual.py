"""The next click of a session, period by period: predicted first, then learned from.

A file of periods has the columns ``period, session, item``, rows in order of time. The model is
trained on the first period; every later one is predicted with what came before it, and then moves
the model on (model/continual.py). ``seq`` is the 0-based number of a click among those of its
period that have an earlier click of their session in it, in the order of the file.
Dimensions: Q clicks, K list length.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from model.checkpoint import Checkpoint
from model.continual import UPDATES, first_memory, moved_on
from model.errors import EventLogError
from model.evaluation.item_lists import MRR_20, list_tables, places
from model.evaluation.next_item import EVER_MS, lists_before, targets_from
from model.evaluation.protocols import Options
from model.evaluation.report import Cell, Curve, Figures, Report
from model.evaluation.sessions import named_lists, session_config, session_log
from model.event_log import EventLog
from model.fusion import fit_ranking
from model.held_lists import held_lists
from model.learning import Progress
from model.log_items import log_items
from model.training import train

QUICK_PERIODS = 3
QUICK_UPDATES = 10
FLOOR_NOTE = (
    "A floor that was measured elsewhere, of session kNN, rules and own items that keep all "
    "sessions: R@20 .5092, MRR@20 .1910; ADER states .5021 and .1732."
)


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
    parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    tables: list[pa.Table] = []
    for period, log in enumerate(logs[1:], start=1):
        session, item, known, lists, names = _listed(log, checkpoint, rows[period], progress)
        parts.append((period, session, item, known, places(lists, item)))
        table = {"period": np.full(len(item), period), "seq": np.arange(len(item))}
        tables.append(pa.table({**table, "items": named_lists(lists, names)}))
        began = time.perf_counter()
        batch, _ = log.batch(checkpoint.vocabulary)
        every = np.ones(len(batch), dtype=bool)
        asked = held_lists(checkpoint, batch, every, config.lists, options.seed + period)
        ranking = fit_ranking(checkpoint, asked, progress)
        checkpoint, memory = moved_on(
            checkpoint, memory, log, ranking, learning, progress, options.seed + period
        )
        seconds.append(time.perf_counter() - began)
    return _report(parts, tables, seconds, options.seed)


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


def _listed(
    log: EventLog, checkpoint: Checkpoint, rows: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """(session, item, whether training knows the item, list) of the clicks, in file order, and
    the names of the items.

    ``log`` stands by session; ``rows`` says where its steps stand in the file.
    """
    batch, users = log.batch(checkpoint.vocabulary)
    items = log_items(log, batch.item, checkpoint.vocabulary)
    targets = targets_from(replace(batch, item=items.number), EVER_MS)
    order = np.arange(len(batch))
    lists = lists_before(batch, order, targets, EVER_MS, len(users), checkpoint, progress)
    lists = items.completed(lists, targets.step - 1)
    sorted_by = np.argsort(rows[targets.step], kind="stable")
    item = targets.item[sorted_by]
    known = item < checkpoint.vocabulary.first_item_bucket
    return targets.user[sorted_by], item, known, lists[sorted_by], items.names


def _report(
    parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    tables: list[pa.Table],
    seconds: list[float],
    seed: int,
) -> Report:
    rows: list[list[Cell]] = []
    lines: dict[str, list[tuple[float, float]]] = {MRR_20.hits: [], MRR_20.gain: []}
    means = []
    for period, _, _, known, place in parts:
        hit, gain = MRR_20.values(place)
        both = [hit.mean(), gain.mean(), hit[known].mean(), gain[known].mean()]
        means.append(both)
        rows.append([f"{period}", f"{len(place):,}", *map(float, both), f"{seconds[period]:.0f}"])
        lines[MRR_20.hits].append((period, float(hit.mean())))
        lines[MRR_20.gain].append((period, float(gain.mean())))
    mean = np.mean(means, 0)
    rows.append(["mean", "", *map(float, mean), f"{np.mean(seconds[1:]):.0f}"])
    columns = ["period", "clicks", MRR_20.hits, MRR_20.gain]
    columns += [f"known items, {name}" for name in (MRR_20.hits, MRR_20.gain)]
    title = "Next click, period by period"
    note = f"{FLOOR_NOTE} Training on the first period took {seconds[0]:.0f} s."
    by_period = Figures(title, [*columns, "seconds to move on"], rows, note)
    shift = np.cumsum([0, *(int(part[1].max(initial=0)) + 1 for part in parts)])
    session = np.concatenate([part[1] + at for part, at in zip(parts, shift, strict=False)])
    known = np.concatenate([part[3] for part in parts])
    pooled, figures = list_tables(
        f"{title}, pooled",
        {"model": np.concatenate([part[4] for part in parts])},
        session,
        {"all": np.ones(len(known), dtype=bool), "known items": known},
        MRR_20,
        seed,
    )
    figures |= {f"mean over periods, {MRR_20.hits}": float(mean[0])}
    figures |= {f"mean over periods, {MRR_20.gain}": float(mean[1])}
    curve = Curve(title, "period", "mean", lines)
    return Report(
        [by_period, *pooled], figures, curves=[curve], predictions=pa.concat_tables(tables)
    )
