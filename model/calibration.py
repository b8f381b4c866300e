"""The threshold of the drift test, found without labels.

Users whose *whole sessions* are shuffled keep their bursts and their mix of categories and have
no change in time; what alarms there is a false alarm. (Shuffling single events would make every
session look like a change and flatter the figure.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model import drift
from model.checkpoint import Checkpoint, DriftSettings
from model.events import EventBatch
from model.state import new_rows
from model.transition import schedule, step_interests, step_recent

DAY_MS = 86_400_000
MAX_STEPS = 200_000
BISECTIONS = 9
THRESHOLDS = (0.5, 12.0)


@dataclass(frozen=True)
class Alarms:
    """What one pass of the test over a log gives.

    step       (M,) index of the step of each alarm, ascending
    statistic  (M,) its statistic
    tested     number of steps past the warm-up of 20 steps and 10 units
    """

    step: np.ndarray
    statistic: np.ndarray
    tested: int

    @property
    def run_length(self) -> float:
        """Mean number of tested steps between alarms; infinite without an alarm."""
        return self.tested / len(self.step) if len(self.step) else float("inf")


def run_test(steps: EventBatch, checkpoint: Checkpoint, threshold: float) -> Alarms:
    """The drift test alone over steps in order, with the transition's own counts and units."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    rows = new_rows(users, checkpoint.hidden)
    fields = {name: rows[name].copy() for name in rows.dtype.names or ()}
    plan = schedule(fields, steps)
    steps = steps.take(plan.order)
    pending = np.zeros(users, dtype=bool)
    found: list[np.ndarray] = []
    values: list[np.ndarray] = []
    tested = 0
    for index in plan.rounds:
        user, time_s = steps.user[index], plan.clock_ms[index] // 1000
        slot = step_interests(fields, steps, index, time_s, plan.gap_s[index], pending, checkpoint)
        step_recent(fields, steps, index, time_s, slot)
        fields["last_time_ms"][user] = plan.clock_ms[index]
        ready = (fields["drift_steps"][user] >= drift.MIN_STEPS) & (
            fields["units"][user] >= drift.MIN_UNITS
        )
        tested += int(ready.sum())
        due = np.flatnonzero(pending[user] & steps.last_line[index])
        pending[user[due]] = False
        alarmed, value = drift.check(fields, user[due], threshold)
        found.append(plan.order[index.start + due[alarmed]])
        values.append(value[alarmed])
        drift.restart(fields, user[due[alarmed]], time_s[due[alarmed]])
    step = np.concatenate(found) if found else np.zeros(0, np.int64)
    statistic = np.concatenate(values) if values else np.zeros(0)
    order = np.argsort(step, kind="stable")
    return Alarms(step[order], statistic[order], tested)


def shuffle_sessions(steps: EventBatch, seed: int) -> EventBatch:
    """Each user's sessions in random order; the gaps between sessions and within them stay."""
    rng = np.random.default_rng(seed)
    order = np.argsort(steps.user, kind="stable")
    user, time_ms = steps.user[order], steps.time_ms[order]
    new_user = np.r_[True, user[1:] != user[:-1]]
    gap = np.r_[0, np.maximum(np.diff(time_ms), 0)]
    starts = np.flatnonzero(new_user | (gap > drift.SESSION_GAP_S * 1000))
    ends = np.r_[starts[1:], len(order)]
    session_user = user[starts]
    shuffled = np.lexsort((rng.random(len(starts)), session_user))
    pieces = [np.arange(starts[s], ends[s]) for s in shuffled.tolist()]
    moved = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
    # the k-th session of a user keeps the pause that stood before the k-th session
    pause = np.where(new_user[moved], 0, gap[moved])
    at = np.cumsum([0, *[len(piece) for piece in pieces[:-1]]])
    pause[at] = np.where(new_user[starts], 0, gap[starts])
    first_time = np.maximum.accumulate(np.where(new_user, np.arange(len(order)), 0))
    clock = np.cumsum(pause)
    user_start = np.flatnonzero(np.r_[True, user[moved][1:] != user[moved][:-1]])
    base = np.repeat(clock[user_start], np.diff(np.r_[user_start, len(moved)]))
    result = steps.take(order[moved])
    return replace(result, time_ms=time_ms[first_time] + clock - base)


def calibrate(
    steps: EventBatch, checkpoint: Checkpoint, average_run_length: float = 1000.0, seed: int = 0
) -> DriftSettings:
    """The lowest threshold with the wanted mean run length on shuffled sessions of these steps.

    average_run_length  mean number of tested steps between false alarms, at least
    """
    sample = _sample(steps, seed)
    shuffled = shuffle_sessions(sample, seed)
    low, high = THRESHOLDS
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if run_test(shuffled, checkpoint, middle).run_length >= average_run_length:
            high = middle
        else:
            low = middle
    threshold = round(high, 3)
    alarms = run_test(shuffled, checkpoint, threshold)
    if alarms.tested < average_run_length:  # too short a log to say anything
        return DriftSettings()
    days = _observed_days(sample)
    return DriftSettings(
        threshold=threshold,
        average_run_length=round(alarms.tested / max(len(alarms.step), 1), 1),
        false_alarms=round(len(alarms.step) / max(days, 1.0) * 30 * 1000, 3),
    )


def _sample(steps: EventBatch, seed: int) -> EventBatch:
    """All steps of as many users, drawn at random, as fit into ``MAX_STEPS``."""
    count = np.bincount(steps.user)
    drawn = np.random.default_rng(seed).permutation(len(count))
    kept = np.zeros(len(count), dtype=bool)
    kept[drawn[np.cumsum(count[drawn]) <= MAX_STEPS]] = True
    return steps.take(np.flatnonzero(kept[steps.user]))


def _observed_days(steps: EventBatch) -> float:
    """Sum over users of the days between their first and last step."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    first = np.full(users, np.iinfo(np.int64).max)
    last = np.full(users, np.iinfo(np.int64).min)
    np.minimum.at(first, steps.user, steps.time_ms)
    np.maximum.at(last, steps.user, steps.time_ms)
    return float(np.maximum(last - first, 0)[last >= first].sum()) / DAY_MS
