"""The threshold of the drift test, found without labels.

Users whose *whole sessions* are shuffled keep their bursts and their mix of categories and have
no change in time; what alarms there is a false alarm. (Shuffling single events would make every
session look like a change and flatter the figure.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from model import drift
from model.checkpoint import Checkpoint, DriftSettings
from model.events import SESSION_GAP_S, EventBatch
from model.interests import Fields
from model.learning import Progress
from model.state import StateBatch, new_rows
from model.transition import schedule, step_interests, step_recent

DAY_MS = 86_400_000
MAX_STEPS = 400_000
"""Of all copies together."""
MAX_COPIES = 100
BISECTIONS = 10
BOOTSTRAPS = 500
SHUFFLE_ERRORS = 2.0
"""Standard errors that are added to the number of alarms: the lowest threshold that will do is also
the luckiest in its shuffles."""
LOWER_SHARE = 0.88
"""Of the wanted run length: where the lower end of its interval lies, at least. Somewhat above the
four fifths that it shall have on shuffles that the calibration has not seen."""
THRESHOLDS = (-2.0, 14.0)
HISTORY_PARTS = 10
HISTORY_ERRORS = 2.0
"""Standard errors of a part's number of alarms by which the band of the history is widened."""


@dataclass(frozen=True)
class Alarms:
    """What one pass of the test over a log gives. M alarms, U users.

    step       (M,) index of the step of each alarm, ascending
    user       (M,) its user
    statistic  (M,) its statistic
    tested     (U,) steps of each user past the warm-up of 20 steps and 10 units
    tested_ms  (T,) time of each of these T steps, by the user's clock
    rows       (M,) the rows as they were when the alarms were raised, None unless asked for
    """

    step: np.ndarray
    user: np.ndarray
    statistic: np.ndarray
    tested: np.ndarray
    tested_ms: np.ndarray
    rows: StateBatch | None = None

    @property
    def run_length(self) -> float:
        """Mean number of tested steps between alarms; infinite without an alarm."""
        tested = float(self.tested.sum())
        return tested / len(self.step) if len(self.step) else float("inf")

    def per_user(self) -> np.ndarray:
        """Alarms of each user, (U,)."""
        return np.bincount(self.user, minlength=len(self.tested))


@dataclass(frozen=True)
class Round:
    """One step of some users, applied; what is due for a test.

    fields   the rows of all users
    user     users of the round
    due      of these, the users whose event has ended and holds a new unit
    step     index of their step, time_s its time
    """

    fields: Fields
    user: np.ndarray
    due: np.ndarray
    step: np.ndarray
    time_s: np.ndarray


def rounds(steps: EventBatch, checkpoint: Checkpoint) -> Iterator[Round]:
    """Counts and units of the transition, without hidden states, over steps in order."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    rows = new_rows(users, checkpoint.hidden)
    row_fields = {name: rows[name].copy() for name in rows.dtype.names or ()}
    plan = schedule(row_fields, steps)
    steps = steps.take(plan.order)
    pending = np.zeros(users, dtype=bool)
    for index in plan.rounds:
        user, time_s = steps.user[index], plan.clock_ms[index] // 1000
        gap_s = plan.gap_s[index]
        slot = step_interests(row_fields, steps, index, time_s, gap_s, pending, checkpoint)
        step_recent(row_fields, steps, index, time_s, slot)
        row_fields["last_time_ms"][user] = plan.clock_ms[index]
        due = np.flatnonzero(pending[user] & steps.last_line[index])
        pending[user[due]] = False
        yield Round(row_fields, user, user[due], plan.order[index.start + due], time_s[due])


def run_test(
    steps: EventBatch,
    checkpoint: Checkpoint,
    with_rows: bool = False,
    statistic: drift.Statistic = drift.score,
) -> Alarms:
    """The drift test alone over steps in order, with the transition's own counts and units."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    found: list[tuple[np.ndarray, ...]] = []
    tested = np.zeros(users, np.int64)
    tested_ms = [np.zeros(0, np.int64)]
    for at in rounds(steps, checkpoint):
        ready = at.user[drift.is_ready(at.fields, at.user)]
        tested[ready] += 1
        tested_ms.append(at.fields["last_time_ms"][ready])
        alarmed, value = drift.check(at.fields, at.due, checkpoint, statistic)
        user = at.due[alarmed]
        kept = _snapshot(at.fields, user if with_rows else user[:0], checkpoint.hidden)
        found.append((at.step[alarmed], user, value[alarmed], kept))
        drift.restart(at.fields, user, at.time_s[alarmed])
    none = np.zeros(0, np.int64)
    found = found or [(none, none, np.zeros(0), new_rows(0, checkpoint.hidden))]
    step, user, values, rows = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(step, kind="stable")
    return Alarms(
        step[order],
        user[order],
        values[order],
        tested,
        np.concatenate(tested_ms),
        rows[order] if with_rows else None,
    )


def _snapshot(fields: Fields, user: np.ndarray, hidden: int) -> StateBatch:
    rows = new_rows(len(user), hidden)
    if len(user):
        for name in rows.dtype.names or ():
            rows[name] = fields[name][user]
    return rows


def shuffle_sessions(steps: EventBatch, seed: int) -> EventBatch:
    """Each user's sessions in random order; the gaps between sessions and within them stay."""
    if len(steps) == 0:
        return steps
    rng = np.random.default_rng(seed)
    order = np.argsort(steps.user, kind="stable")
    user, time_ms = steps.user[order], steps.time_ms[order]
    new_user = np.r_[True, user[1:] != user[:-1]]
    gap = np.r_[0, np.maximum(np.diff(time_ms), 0)]
    starts = np.flatnonzero(new_user | (gap > SESSION_GAP_S * 1000))
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


def shuffled_copies(steps: EventBatch, copies: int, seed: int) -> EventBatch:
    """Several shuffles of the same steps in one batch: copy k has users of its own, k * U + u."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    parts = [shuffle_sessions(steps, seed + copy) for copy in range(copies)]
    return EventBatch.joined(parts, np.arange(copies) * users)


def run_length_interval(
    alarms: np.ndarray, tested: np.ndarray, users: int, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of tested steps per alarm, by resampling users.

    alarms, tested  per user of all copies; those of one user in several copies are drawn together
    """
    per_user = [np.bincount(np.arange(len(x)) % users, x, users) for x in (alarms, tested)]
    random = np.random.default_rng(seed)
    lengths = []
    for _ in range(BOOTSTRAPS):
        drawn = random.integers(0, users, users)
        lengths.append(per_user[1][drawn].sum() / max(per_user[0][drawn].sum(), 1.0))
    low, high = np.quantile(lengths, (0.025, 0.975))
    return float(low), float(high)


def history_band(found: Alarms, alarm_ms: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest rate of alarms in ten parts of a history, per 1,000 tested steps.

    Each part has as many tested steps; its rate is widened by two standard errors of the number of
    its alarms, so that a part with few of them does not make the band narrow.

    Args:
        found: of the test over users as they are, with at least one tested step.
        alarm_ms: (M,) time of each alarm.
    """
    tested = np.sort(found.tested_ms)
    edges = tested[np.arange(1, HISTORY_PARTS) * len(tested) // HISTORY_PARTS]
    steps, alarms = (
        np.bincount(np.searchsorted(edges, times, side="right"), minlength=HISTORY_PARTS)
        for times in (tested, alarm_ms)
    )
    steps, alarms = steps[steps > 0], alarms[steps > 0]  # times that are equal leave parts empty
    error = HISTORY_ERRORS * np.sqrt(np.maximum(alarms, 1))
    low = np.maximum(alarms - error, 0.0) / steps
    high = (alarms + error) / steps
    return 1000 * float(low.min()), 1000 * float(high.max())


def calibrate(
    steps: EventBatch,
    checkpoint: Checkpoint,
    average_run_length: float | None = 1000.0,
    seed: int = 0,
    false_alarms: float | None = None,
    statistic: drift.Statistic = drift.score,
    progress: Progress | None = None,
    max_steps: int = MAX_STEPS,
) -> DriftSettings:
    """The lowest threshold with the wanted rate of false alarms on shuffled whole sessions.

    The settings also say how often the test alarms on the same users as they are, of whom some do
    change: see ``history_band``.

    max_steps           of all shuffled copies together: more give a surer threshold
    average_run_length  mean number of tested steps between false alarms, at least; 88 % of it for
                        the lower end of the 95 % interval over users
    false_alarms        instead of it: alarms per 1,000 users and 30 days, at most
    """
    sample = _sample(steps, max_steps, seed)
    users = int(sample.user.max()) + 1 if len(sample) else 0
    copies = int(np.clip(max_steps // max(len(sample), 1), 1, MAX_COPIES))
    days = observed_days(sample) * copies
    sample = sample.take(np.bincount(sample.user, minlength=users)[sample.user] >= drift.MIN_STEPS)
    if len(sample) == 0:
        return checkpoint.drift
    shuffled = shuffled_copies(sample, copies, seed)

    def test(threshold: float) -> Alarms:
        tried = replace(checkpoint, drift=replace(checkpoint.drift, threshold=threshold))
        return run_test(shuffled, tried, statistic=statistic)

    def is_quiet(found: Alarms) -> bool:
        if false_alarms is not None:
            return len(found.step) / max(days, 1.0) * 30_000 <= false_alarms
        wanted = average_run_length or 0.0
        low, _ = run_length_interval(found.per_user(), found.tested, copies_of(found, copies))
        count = len(found.step)
        most = max(count + SHUFFLE_ERRORS * count**0.5, 1.0)
        return found.tested.sum() / most >= wanted and low >= LOWER_SHARE * wanted

    low, high = THRESHOLDS
    for number in range(BISECTIONS):
        if progress is not None:
            progress("calibrating", number, BISECTIONS)
        middle = (low + high) / 2
        if is_quiet(test(middle)):
            high = middle
        else:
            low = middle
    if progress is not None:
        progress("calibrating", BISECTIONS, BISECTIONS)
    threshold = round(high, 3)
    found = test(threshold)
    tested = float(found.tested.sum())
    if tested < max(average_run_length or 0.0, 1.0):  # too short a log to say anything
        return checkpoint.drift
    interval = run_length_interval(found.per_user(), found.tested, copies_of(found, copies))
    settings = replace(checkpoint.drift, threshold=threshold)
    real = run_test(sample, replace(checkpoint, drift=settings), statistic=statistic)
    low, high = history_band(real, sample.time_ms[real.step])
    return replace(
        settings,
        average_run_length=round(tested / max(len(found.step), 1), 1),
        run_length_low=round(interval[0], 1),
        run_length_high=round(interval[1], 1),
        false_alarms=round(len(found.step) / max(days, 1.0) * 30_000, 3),
        history_low=round(low, 3),
        history_high=round(high, 3),
    )


def copies_of(found: Alarms, copies: int) -> int:
    """Users of one copy."""
    return max(len(found.tested) // copies, 1)


def _sample(steps: EventBatch, most: int, seed: int) -> EventBatch:
    """All steps of as many users, drawn at random, as fit into ``most``."""
    count = np.bincount(steps.user)
    drawn = np.random.default_rng(seed).permutation(len(count))
    kept = np.zeros(len(count), dtype=bool)
    kept[drawn[np.cumsum(count[drawn]) <= most]] = True
    return steps.take(np.flatnonzero(kept[steps.user]))


def observed_days(steps: EventBatch) -> float:
    """Sum over users of the days between their first and last step."""
    users = int(steps.user.max()) + 1 if len(steps) else 0
    first = np.full(users, np.iinfo(np.int64).max)
    last = np.full(users, np.iinfo(np.int64).min)
    np.minimum.at(first, steps.user, steps.time_ms)
    np.maximum.at(last, steps.user, steps.time_ms)
    return float(np.maximum(last - first, 0)[last >= first].sum()) / DAY_MS
