"""Protocol ``drift``: changes planted in a real log, found by the test that the worker runs.

Half of the users are changed (planting.py), the other half are controls: once as they are, once
with whole sessions shuffled. What is learned for one half comes from the users of the other; its
threshold is calibrated on its own shuffled sessions, without labels and with other shuffles than
those it is judged by. S streams, U users, E events within which a change is to be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa

from model import drift
from model.calibration import calibrate, observed_days, run_test, shuffled_copies
from model.checkpoint import Checkpoint
from model.evaluation import drift_floor, drift_tables
from model.evaluation.drift_tables import WITHIN, Judged
from model.evaluation.planting import Planted, only, plant, split_users
from model.evaluation.protocols import Options
from model.evaluation.report import Report
from model.event_log import EventLog, read_event_log
from model.events import EventBatch
from model.grouping import category_groups
from model.learning import Progress
from model.prediction import Alarm, Moved, drift_table, event_numbers
from model.state import new_rows
from model.training import untrained_checkpoint

DRAWS = 3
SHUFFLES = (20, 100)
"""Least and most copies of the controls with shuffled sessions."""
SHUFFLED_STEPS = 400_000
DAY_MS = 86_400_000
STATISTICS: Mapping[str, drift.Statistic] = {
    "model": drift.score,
    "floor: largest z of categories": drift_floor.largest_z,
}
SHUFFLE_SEED = 10_000
"""Far from the seeds of the calibration."""


def protocol(options: Options, progress: Progress) -> Report:
    """Recall, delay and false alarms of the drift test on one log."""
    log, seed = read_event_log(options.data), options.seed
    changed, control = split_users(log, seed)
    planted = plant(log, changed, 1 if options.quick else DRAWS, seed)
    if len(planted.user) == 0:
        return Report([], {"streams": 0.0})
    sides: dict[str, tuple[Checkpoint, Checkpoint]] = {}
    if options.checkpoint is not None:
        sides["model"] = (options.checkpoint, options.checkpoint)
    else:
        for name, statistic in STATISTICS.items():
            of_changed = _calibrated(log, changed, control, options, statistic)
            progress(f"calibrating {name}", 1, 2)
            sides[name] = (of_changed, _calibrated(log, control, changed, options, statistic))
            progress(f"calibrating {name}", 2, 2)
    judged: dict[str, Judged] = {}
    for name, (of_changed, of_control) in sides.items():
        arguments = (log, control, planted, of_changed, of_control, seed, STATISTICS[name])
        judged[name] = judge(*arguments)
        progress("judging", len(judged), len(sides))
    days = observed_days(only(log, control).batch(next(iter(sides.values()))[0].vocabulary)[0])
    stated = {name: of_control.drift for name, (_, of_control) in sides.items()}
    return Report(
        tables=drift_tables.tables(planted, judged, stated, days),
        figures=drift_tables.figures(planted, judged, stated, days),
        predictions=_predictions(planted, next(iter(sides.values()))[0], judged),
    )


def _calibrated(
    log: EventLog,
    own: np.ndarray,
    others: np.ndarray,
    options: Options,
    statistic: drift.Statistic,
) -> Checkpoint:
    """The names of the log, groups learned from the ``others``, a threshold for one's ``own``."""
    made = untrained_checkpoint(log, options.config)
    steps, _ = only(log, others).batch(made.vocabulary)
    group = category_groups(steps.user, steps.category, made.vocabulary.categories)
    made = replace(made, statistics=replace(made.statistics, category_group=group))
    steps, _ = only(log, own).batch(made.vocabulary)
    wanted = options.config.average_run_length
    most = options.config.calibration_steps
    settings = calibrate(steps, made, wanted, options.seed, statistic=statistic, max_steps=most)
    return replace(made, drift=settings)


def judge(
    log: EventLog,
    control: np.ndarray,
    planted: Planted,
    of_changed: Checkpoint,
    of_control: Checkpoint,
    seed: int,
    statistic: drift.Statistic = drift.score,
) -> Judged:
    """Runs one test over the planted streams and over the controls."""
    batch, _ = planted.log.batch(of_changed.vocabulary)
    found = run_test(batch, of_changed, with_rows=True, statistic=statistic)
    number = event_numbers(batch)
    after = number[found.step] - planted.change[found.user]  # (M,)
    streams = len(planted.user)
    delay, days = np.full(streams, np.nan), np.full(streams, np.nan)
    at_change = _change_times(batch, number, planted)
    for place in np.flatnonzero(after >= 0)[::-1].tolist():  # the first alarm holds
        stream = found.user[place]
        delay[stream] = after[place]
        days[stream] = (batch.time_ms[found.step[place]] - at_change[stream]) / DAY_MS
    beside = (after < 0) | (after > max(WITHIN))
    controls = _testable(only(log, control).batch(of_control.vocabulary)[0], len(log.users))
    copies = int(np.clip(SHUFFLED_STEPS // max(len(controls), 1), *SHUFFLES))
    moved = shuffled_copies(controls, copies, SHUFFLE_SEED + seed)
    return Judged(
        delay=delay,
        delay_days=days,
        other=np.bincount(found.user[beside], minlength=streams),
        left=np.bincount(batch.user[batch.last_line], minlength=streams) - planted.change,
        planted=found,
        real=run_test(controls, of_control, statistic=statistic),
        shuffled=run_test(moved, of_control, statistic=statistic),
        copies=copies,
    )


def _testable(steps: EventBatch, users: int) -> EventBatch:
    """The steps of users who can get past the warm-up; users keep their numbers."""
    return steps.take(np.bincount(steps.user, minlength=users)[steps.user] >= drift.MIN_STEPS)


def _change_times(batch: EventBatch, number: np.ndarray, planted: Planted) -> np.ndarray:
    at = np.flatnonzero((number == planted.change[batch.user]) & (batch.line == 0))
    times = np.zeros(len(planted.user), np.int64)
    times[batch.user[at]] = batch.time_ms[at]
    return times


def _predictions(
    planted: Planted, checkpoint: Checkpoint, judged: Mapping[str, Judged]
) -> pa.Table:
    """The alarms of the first test on the planted streams, as the command ``drift`` writes them."""
    found = next(iter(judged.values())).planted
    batch, names = planted.log.batch(checkpoint.vocabulary)
    rows = new_rows(0, checkpoint.hidden) if found.rows is None else found.rows
    alarms = [
        Alarm(step, row, drift.describe(row, checkpoint))
        for step, row in zip(found.step.tolist(), rows, strict=True)
    ]
    moved = Moved(names, new_rows(0, checkpoint.hidden), batch, alarms)
    return drift_table(moved, planted.log, checkpoint)
