"""Has the interest changed? A test of a user's last units against their history.

A *unit* is the first event of a category within a session (a gap of 30 minutes ends one), so that
a burst is not evidence twice. For W in 8, 16, 24 with window counts w, earlier counts h and
n = sum h, over categories and over groups of categories (grouping.py):

    z_W = [(sum w^2 - W)/(W(W-1)) + (sum h^2 - n)/(n(n-1)) - 2 sum(w h)/(W n)]
          / sqrt(2 q/(W(W-1)) + 4 q/(W n)),    q = sum (w+h)^2 / (n+W)^2

an unbiased estimate of the squared distance of both distributions over its standard deviation
under no change, were units drawn one by one. They are not: a session holds related categories and
none of them twice. So the statistic also reads how often units of different sessions agree, how
many sessions the window has and how long the history is, and is the log-odds of a change that a
logistic regression gives (``drift_weights``, learned from planted changes). Groups say that similar
categories are no change. Counts are exact, and sums are float64 in an order that is the row's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from model.checkpoint import Checkpoint
from model.drift_weights import INTERCEPT, WEIGHTS
from model.events import SESSION_GAP_S
from model.grouping import GROUPS
from model.interests import Fields
from model.state import NO_SLOT, RECENT, SLOTS, UNIT_FLAG, UNITS, StateBatch

WINDOWS = (8, 16, 24)
MIN_STEPS = 20
MIN_UNITS = 10
RESTART_STEPS = 10
VARIANCE_FLOOR = 1e-4
PER_WINDOW = 7
FEATURES = 3 * PER_WINDOW + 5
"""Features of each window, and of all."""
LISTED_CATEGORIES = 5
LISTED_EVIDENCE = 5
OFFSET_BITS = 0xFFFFFFFF
"""What a unit keeps of its event's offset; all of them set are those of NO_OFFSET."""


def is_unit(fields: Fields, user: np.ndarray, slot: np.ndarray) -> np.ndarray:
    """Marks slots of B distinct users as touched in this session; true where it is the first."""
    bit = np.uint64(1) << slot.astype(np.uint64)
    mask = fields["session_mask"][user]
    fields["session_mask"][user] = mask | bit
    return (mask & bit) == 0


def add_units(
    fields: Fields,
    user: np.ndarray,
    slot: np.ndarray,
    event_type: np.ndarray,
    offset: np.ndarray,
    time_s: np.ndarray,
) -> None:
    """Appends one unit to the window of each of B distinct users."""
    position = fields["units"][user] % UNITS
    fields["unit_slot"][user, position] = slot + SLOTS * event_type
    fields["unit_offset"][user, position] = offset & OFFSET_BITS
    fields["unit_time_s"][user, position] = time_s
    fields["units"][user] += 1
    fields["slot_units"][user, slot] += 1


@dataclass(frozen=True)
class Window:
    """The last units of B rows, newest first, beside everything since the restart.

    slots    (B, 24) int8 slot of each unit, -1 where there are fewer
    session  (B, 24) int8 number of the unit's session, counted back from the newest
    total    (B, 64) units of each slot, the window's included
    group    (B, 64) group of the slot's category
    """

    slots: np.ndarray
    session: np.ndarray
    total: np.ndarray
    group: np.ndarray


def window_of(fields: Mapping[str, np.ndarray], rows: np.ndarray, groups: np.ndarray) -> Window:
    """The windows of the rows at ``rows`` (B,); groups (C,) is the group of each category."""
    units = fields["units"][rows].astype(np.int64)[:, None]
    back = np.arange(UNITS)
    position = (units - 1 - back) % UNITS + rows[:, None] * UNITS  # (B, 24)
    held = back < units
    code = fields["unit_slot"].reshape(-1)[position]
    time_s = fields["unit_time_s"].reshape(-1)[position]
    session = np.zeros(code.shape, np.int8)
    session[:, 1:] = (time_s[:, :-1] - time_s[:, 1:] > SESSION_GAP_S) & held[:, 1:]
    return Window(
        slots=np.where(held, code % SLOTS, -1).astype(np.int8),
        session=np.cumsum(session, 1, dtype=np.int8),
        total=fields["slot_units"][rows].astype(np.float64),
        group=groups[fields["slot_category"][rows]],
    )


def features(seen: Window) -> np.ndarray:
    """What the statistic weighs, (B, 26) float64; zero where a window is absent.

    Of each window W in 8, 16, 24, which is absent where fewer than W - 1 units are held or the
    history is shorter than W/2 and 5:

    0, 1   a third of z_W of categories and of groups
    2, 3   roots of the share of equal categories among pairs of two sessions of the window,
           and among pairs of window and history
    4, 5   the same of groups
    6      log(1 + sessions of the window)

    then a third of log(1 + units) and of log(1 + categories held), and which windows are absent.
    """
    slots, total = seen.slots, seen.total
    size, rows = len(slots), np.arange(len(slots))[:, None]
    held = slots >= 0
    at = np.where(held, slots, 0) + rows * SLOTS
    place = seen.group + rows * GROUPS
    of_group = np.bincount(place.ravel(), total.ravel(), size * GROUPS)  # (B * 64,)
    keys = np.empty((3, UNITS, size), np.int8)  # slot, group and session, (3, 24, B)
    group = seen.group.reshape(-1)[at]
    keys[0], keys[1], keys[2] = slots.T, group.T, seen.session.T
    counts = np.empty((2, UNITS, size))  # of the unit's slot and group, (2, 24, B)
    counts[0] = total.reshape(-1)[at].T
    counts[1] = of_group[group + rows * GROUPS].T
    units = held.sum(1)
    if units.min(initial=UNITS) < UNITS:
        counts *= held.T
        np.copyto(keys, _NO_KEY, where=~held.T)
    pairs = pair_counts(keys)  # (4, 3, B)
    wt = np.cumsum(counts.reshape(2, len(WINDOWS), -1, size).sum(2), 1)  # (2, 3, B)
    squares = np.stack((np.square(total).sum(1), np.square(of_group).reshape(size, -1).sum(1)))

    sums = total.sum(1)
    count = np.minimum(units, _SIZES)  # (3, B)
    there = (count >= _SIZES - 1) & (sums - count >= _LEAST)
    window = np.where(there, count, 2.0)
    n = np.where(there, sums - count, 2.0)
    ww = window + 2.0 * pairs[:2]  # (2, 3, B)
    same = 2.0 * pairs[:2]
    same[1] -= 2.0 * pairs[3]
    across = window * (window - 1) - 2 * pairs[2]
    found = np.zeros((size, FEATURES))
    by_window = found[:, :-5].reshape(size, len(WINDOWS), PER_WINDOW)
    by_window[:, :, :2] = (standardised(ww, wt, squares[:, None], n, window) / 3).T
    shares = np.sqrt(np.maximum(same, 0) / np.maximum(across, 1)) * (across > 0)
    by_window[:, :, 2:6:2] = shares.T
    by_window[:, :, 3:6:2] = np.sqrt(np.maximum(wt - ww, 0) / (window * n)).T
    by_window[:, :, 6] = np.log1p(seen.session[:, _SIZES[:, 0] - 1] + 1.0)
    by_window *= there.T[:, :, None]
    found[:, -5] = np.log1p(sums) / 3
    found[:, -4] = np.log1p(np.count_nonzero(total, 1)) / 3
    found[:, -3:] = ~there.T
    return found


_SIZES = np.array(WINDOWS)[:, None]
_LEAST = np.maximum(5, _SIZES / 2)
"""Units that the history before each window holds at least."""
_NO_KEY = -1 - np.arange(UNITS, dtype=np.int8)[:, None]
"""Of places without a unit: equal to no other key."""


def pair_counts(keys: np.ndarray) -> np.ndarray:
    """Pairs within the first 8, 16, 24 units: of equal key, and of equal last two, (K + 1, 3, B).

    keys (K, 24, B) int8
    """
    kinds, _, size = keys.shape
    same = np.empty((kinds + 1, UNITS, UNITS, size), bool)
    np.equal(keys[:, :, None], keys[:, None], out=same[:-1])
    same[:-1] &= _OLDER[:, :, None]
    np.logical_and(same[-3], same[-2], out=same[-1])
    newer = same.view(np.uint8).sum(1, dtype=np.uint8)  # (K + 1, 24, B)
    blocks = newer.reshape(kinds + 1, len(WINDOWS), -1, size).sum(2, dtype=np.uint8)
    return np.cumsum(blocks, 1, dtype=np.int64)


_OLDER = np.triu(np.ones((UNITS, UNITS), dtype=bool), 1)
"""True where the first of two units stands before the second."""


def score(seen: Window) -> np.ndarray:
    """The statistic: log-odds of a change against none, where both are as likely, (B,) float64."""
    return score_of(features(seen))


def score_of(found: np.ndarray) -> np.ndarray:
    """The statistic of features (B, 26)."""
    return np.asarray((found * WEIGHTS).sum(1) + INTERCEPT)


def standardised(
    ww: np.ndarray, wt: np.ndarray, squares: np.ndarray, n: np.ndarray, window: float | np.ndarray
) -> np.ndarray:
    """z from sum w^2, sum w(w+h), sum (w+h)^2, n and W."""
    wh = wt - ww
    hh = squares - 2 * wt + ww
    pairs = window * (window - 1)
    distance = (ww - window) / pairs + (hh - n) / (n * (n - 1)) - 2 * wh / (window * n)
    q = squares / (n + window) ** 2
    variance = np.maximum(2 * q / pairs + 4 * q / (window * n), VARIANCE_FLOOR)
    return np.asarray(distance / np.sqrt(variance))


def is_ready(fields: Fields, user: np.ndarray) -> np.ndarray:
    """Which rows are past the warm-up of 20 steps and 10 units, (B,)."""
    ready = (fields["drift_steps"][user] >= MIN_STEPS) & (fields["units"][user] >= MIN_UNITS)
    return np.asarray(ready)


Statistic = Callable[[Window], np.ndarray]


def check(
    fields: Fields, user: np.ndarray, checkpoint: Checkpoint, statistic: Statistic = score
) -> tuple[np.ndarray, np.ndarray]:
    """(alarm, statistic) of B rows, each (B,); -inf before 20 steps and 10 units."""
    ready = is_ready(fields, user)
    best = np.full(len(user), -np.inf)
    rows = user[ready]
    if len(rows):
        best[ready] = statistic(window_of(fields, rows, checkpoint.statistics.category_group))
    return best >= checkpoint.drift.threshold, best


def restart(fields: Fields, user: np.ndarray, time_s: np.ndarray) -> None:
    """Starts the test of alarmed rows anew from their last 10 steps."""
    for row, now in zip(user.tolist(), time_s.tolist(), strict=True):
        steps = int(fields["steps"][row])
        kept = []
        for step in range(max(0, steps - RESTART_STEPS), steps):
            position = step % RECENT
            slot = int(fields["recent_slot"][row, position])
            if fields["recent_kind"][row, position] & UNIT_FLAG and slot != NO_SLOT:
                kept.append(slot)
        units = int(fields["units"][row])
        kept = kept[max(0, len(kept) - min(units, UNITS)) :]
        old = [(units - len(kept) + i) % UNITS for i in range(len(kept))]
        for name in ("unit_slot", "unit_offset", "unit_time_s"):
            ring = fields[name][row]
            moved = ring[old].copy()
            ring[:] = 0
            ring[: len(kept)] = moved
        fields["slot_units"][row] = 0
        for slot in kept:
            fields["slot_units"][row, slot] += 1
        fields["units"][row] = len(kept)
        fields["drift_steps"][row] = min(steps, RESTART_STEPS)
        fields["drift_time_s"][row] = now
        fields["drifts"][row] = min(int(fields["drifts"][row]) + 1, 65535)


@dataclass(frozen=True)
class Change:
    """What one alarm says: from what to what, how strong, how sure, since when, by which units.

    before, after  (category index, share) pairs, largest share first
    strength       total-variation distance of both distributions, 0 to 1
    evidence       ring positions of the units whose removal lowers the statistic most
    """

    window: int
    statistic: float
    before: list[tuple[int, float]]
    after: list[tuple[int, float]]
    strength: float
    since_s: int
    evidence: list[int]

    @property
    def confidence(self) -> float:
        """Probability of a change, where change and none are as likely beforehand, 0 to 1."""
        return float(1 / (1 + np.exp(-np.clip(self.statistic, -700, 700))))


def describe(row: np.void, checkpoint: Checkpoint) -> Change:
    """The change that the test sees in a row (as it was when the alarm was raised)."""
    fields = {name: row[name][None] for name in ("units", "slot_units", "unit_slot")}
    fields |= {name: row[name][None] for name in ("unit_time_s", "slot_category")}
    seen = window_of(fields, np.zeros(1, np.int64), checkpoint.statistics.category_group)
    found = features(without_each(seen))
    scores = score_of(found)
    window = _clearest_window(seen, found[0])
    units = int(row["units"])
    slots = seen.slots[0, :window]
    total = seen.total[0]
    w = np.bincount(slots, minlength=SLOTS).astype(np.float64)
    h = total - w
    categories = row["slot_category"].astype(np.int64)
    positions = [(units - 1 - back) % UNITS for back in range(min(units, UNITS))]
    lowered = scores[0] - scores[1:]
    # a category's units lower the statistic alike: the oldest first, they came before the alarm
    order = sorted(range(len(lowered)), key=lambda back: (-round(float(lowered[back]), 9), -back))
    helpful = [back for back in order if lowered[back] > 0][:LISTED_EVIDENCE]
    return Change(
        window=window,
        statistic=float(scores[0]),
        before=_shares(categories, h),
        after=_shares(categories, w),
        strength=float(np.abs(w / w.sum() - h / h.sum()).sum() / 2),
        since_s=int(row["unit_time_s"][positions[window - 1]]),
        evidence=[positions[back] for back in helpful],
    )


def _clearest_window(seen: Window, found: np.ndarray) -> int:
    """The window whose distributions lie furthest apart for its size, of one row."""
    z = found[: len(WINDOWS) * PER_WINDOW].reshape(len(WINDOWS), PER_WINDOW)[:, :2]
    held = int((seen.slots[0] >= 0).sum())
    return min(WINDOWS[int(z.sum(1).argmax())], held, int(seen.total[0].sum()) - 1)


def without_each(seen: Window) -> Window:
    """One row's window as it is, then as it were without each of its units: (1 + units) rows.

    The unit before the window is not known any more, so a window without one is one shorter.
    """
    count = int((seen.slots[0] >= 0).sum())
    gone = np.arange(count)
    slots = np.full((1 + count, UNITS), -1, np.int8)
    session = np.repeat(seen.session[:, -1:], 1 + count, 0).repeat(UNITS, 1)
    slots[0], session[0] = seen.slots[0], seen.session[0]
    slots[1:, :-1] = seen.slots[0][_OTHERS[:count]]
    session[1:, :-1] = seen.session[0][_OTHERS[:count]]
    total = np.repeat(seen.total, 1 + count, 0)
    total[1 + gone, seen.slots[0, :count]] -= 1
    group = np.repeat(seen.group, 1 + count, 0)
    return Window(slots, session - session[:, :1], total, group)


_OTHERS = np.array([[i for i in range(UNITS) if i != gone] for gone in range(UNITS)])
"""Places of the units that stay when one is gone, (24, 23)."""


def _shares(categories: np.ndarray, counts: np.ndarray) -> list[tuple[int, float]]:
    order = np.lexsort((categories, -counts))[:LISTED_CATEGORIES]
    total = counts.sum()
    return [(int(categories[i]), float(counts[i] / total)) for i in order if counts[i] > 0]


def evidence_units(
    row: StateBatch | np.void, positions: list[int]
) -> list[tuple[int, int, int, int]]:
    """(event type, low 32 bits of offset, time in s, category) of units at ring positions.

    All 32 bits are set of an event that has no offset, and of one in 2**32 others.
    """
    found = []
    for position in positions:
        code = int(row["unit_slot"][position])
        found.append(
            (
                code // SLOTS,
                int(row["unit_offset"][position]),
                int(row["unit_time_s"][position]),
                int(row["slot_category"][code % SLOTS]),
            )
        )
    return found
