"""Has the interest changed? A two-sample test of a user's last units against their history.

A *unit* is the first event of a category within a session (a gap of 30 minutes ends one), so that
a burst is not evidence twice. For W in 8, 16, 24 with window counts w, earlier counts h per
category and n = sum h:

    z_W = [(sum w^2 - W)/(W(W-1)) + (sum h^2 - n)/(n(n-1)) - 2 sum(w h)/(W n)]
          / sqrt(2 q/(W(W-1)) + 4 q/(W n)),    q = sum (w+h)^2 / (n+W)^2

an unbiased estimate of the squared distance of both distributions over its standard deviation
under no change. Everything here is exact integer or float64 arithmetic per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.interests import Fields
from model.state import NO_SLOT, RECENT, SLOTS, UNIT_FLAG, UNITS, StateBatch

WINDOWS = (8, 16, 24)
SESSION_GAP_S = 1800
MIN_STEPS = 20
MIN_UNITS = 10
RESTART_STEPS = 10
VARIANCE_FLOOR = 1e-4
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


def window_slots(unit_slot: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Slots of the last 24 units, newest first, -1 where there are fewer: (B, 24)."""
    back = np.arange(UNITS)
    position = (units.astype(np.int64)[:, None] - 1 - back) % UNITS
    slots = np.take_along_axis(unit_slot, position, 1).astype(np.int64) % SLOTS
    return np.where(back < units[:, None], slots, -1)


def statistic(slot_units: np.ndarray, unit_slot: np.ndarray, units: np.ndarray) -> np.ndarray:
    """z_W for each window, -inf where the history is too short: (B, 3) float64.

    slot_units (B, 64) units per slot, window included; unit_slot (B, 24) the ring; units (B,).
    """
    total = slot_units.astype(np.float64)  # w + h
    slots = window_slots(unit_slot, units)  # (B, 24)
    window = np.array(WINDOWS)
    n = total.sum(1)[:, None] - window  # (B, 3)
    enough = (units[:, None] >= window) & (n >= np.maximum(5, window / 2))
    total_at = np.take_along_axis(total, np.maximum(slots, 0), 1)  # (B, 24)
    wt = np.cumsum(total_at, 1)[:, window - 1]  # sum w (w + h)
    ww = window + 2.0 * _equal_pairs(slots)[:, window - 1]  # sum w^2
    squares = (total * total).sum(1)[:, None]
    z = _standardised(ww, wt, squares, np.where(enough, n, 2.0), window.astype(np.float64))
    return np.where(enough, z, -np.inf)


def _equal_pairs(slots: np.ndarray) -> np.ndarray:
    """Pairs of equal slots among the first 1, 2, ... of each row: (B, 24)."""
    column = np.ascontiguousarray(slots.T.astype(np.int8))  # (24, B): sums run along B
    same = column[:, None] == column[None, :]  # (24, 24, B)
    same &= _OLDER[:, :, None]
    return np.cumsum(same.view(np.uint8).sum(0, dtype=np.uint8), 0, dtype=np.int64).T


_OLDER = np.triu(np.ones((UNITS, UNITS), dtype=bool), 1)
"""True where the first of two units stands before the second."""


def _standardised(
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


def check(fields: Fields, user: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(alarm, max z) of B rows, each (B,); -inf before 20 steps and 10 units."""
    ready = is_ready(fields, user)
    best = np.full(len(user), -np.inf)
    rows = user[ready]
    if len(rows):
        best[ready] = statistic(
            fields["slot_units"][rows], fields["unit_slot"][rows], fields["units"][rows]
        ).max(1)
    return best >= threshold, best


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
    """What one alarm says: from what to what, how strong, since when, by which units.

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


def describe(row: np.void) -> Change:
    """The change that the test sees in a row (as it was when the alarm was raised)."""
    units = np.array([row["units"]])
    z = statistic(row["slot_units"][None], row["unit_slot"][None], units)[0]
    window = WINDOWS[int(z.argmax())]
    slots = window_slots(row["unit_slot"][None], units)[0, :window]
    total = row["slot_units"].astype(np.float64)
    w = np.bincount(slots, minlength=SLOTS).astype(np.float64)
    h = total - w
    categories = row["slot_category"].astype(np.int64)
    positions = [int((units[0] - 1 - back) % UNITS) for back in range(window)]
    lowered = _without_each(w, h, slots, float(z.max()))
    # a category's units lower the statistic alike: the oldest first, they came before the alarm
    order = sorted(range(window), key=lambda back: (-lowered[back], -back))
    helpful = [back for back in order if lowered[back] > 0][:LISTED_EVIDENCE]
    return Change(
        window=window,
        statistic=float(z.max()),
        before=_shares(categories, h),
        after=_shares(categories, w),
        strength=float(np.abs(w / w.sum() - h / h.sum()).sum() / 2),
        since_s=int(row["unit_time_s"][positions[-1]]),
        evidence=[positions[back] for back in helpful],
    )


def _without_each(w: np.ndarray, h: np.ndarray, slots: np.ndarray, full: float) -> np.ndarray:
    """How much lower the statistic is without each unit of the window, (W,)."""
    smaller = np.repeat(w[None], len(slots), 0)  # (W, S)
    smaller[np.arange(len(slots)), slots] -= 1
    ww = (smaller**2).sum(1)
    total = smaller + h
    z = _standardised(
        ww,
        (smaller * total).sum(1),
        (total**2).sum(1),
        np.full(len(slots), h.sum()),
        len(slots) - 1.0,
    )
    return np.asarray(full - z)


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
