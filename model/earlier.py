"""The row as it was before its last steps, as far as the row itself can tell.

A row keeps its last 16 steps and the LSTM state before those since the last multiple of 16, its
*anchor*: 1 to 16 steps can be left out, and the network goes through the others again.

Exact, to the bits that are stored: the recent steps, which drift units there were since the restart
(the last 24 without those left out), and the hidden state of steps that were no searches and whose
gaps are whole seconds. Approximate:

- a search goes through the network without its words, which the row does not keep;
- times are whole seconds, and where all 16 steps are behind the anchor, that of the step before
  them is the latest one of a category that none of them touched;
- the counts of a category that was touched are taken back and grow again to the earlier time, so
  they lose digits the longer ago it is; they stay at or above what the kept steps give, and at or
  below the count of the next slower rate;
- lines of a purchase at the same second are taken for one event;
- a category whose slot was given to another one since is forgotten, and an alarm that was raised in
  the steps left out takes the statistic and the time of the alarm before it along.

Offsets, ids of events and the session stay as they are: nothing may be applied on such a row.
"""

from __future__ import annotations

import numpy as np
import torch

from model.blocks import in_blocks
from model.checkpoint import Checkpoint
from model.drift import RESTART_STEPS
from model.events import QUERY_TOKENS, Kind
from model.interest_lstm import StepInput
from model.interests import Fields
from model.state import MAX_COUNT, NO_SLOT, RECENT, UNIT_FLAG, UNITS, StateBatch
from model.transition import step_hidden

COUNT_ERROR = 0.004
"""What 16 bits lose of a count for each step that is taken back; less than that is none."""
MAX_DOUBLINGS = 60
"""By which a count grows back; there are no digits left of it long before."""


def without_last(rows: StateBatch, count: int, checkpoint: Checkpoint) -> tuple[StateBatch, int]:
    """The row (1,) without its last ``count`` steps, and how many are left out.

    Fewer are where the anchor does not reach as far. The given row stays as it is.
    """
    steps = int(rows["steps"][0])
    since_anchor = (steps - 1) % RECENT + 1 if steps else 0
    left_out = min(count, since_anchor)
    if left_out == 0:
        return rows, 0
    earlier = rows.copy()
    fields = {name: earlier[name] for name in earlier.dtype.names or ()}
    kept, base = since_anchor - left_out, steps - since_anchor
    gone = np.arange(kept, since_anchor)  # ring positions: the anchor's step stands at 0
    before_s = _time_before_anchor(fields, since_anchor, base)
    now_s = int(fields["recent_time_s"][0, kept - 1]) if kept else before_s
    _take_back_units(fields, gone)
    statistics = checkpoint.statistics
    repeat_weight = float(statistics.repeat_weight[0])
    _take_back_counts(fields, gone, now_s, steps, statistics.half_life_s, repeat_weight)
    _take_back_events(fields, gone)
    fields["recent_item"][0, gone] = 0
    fields["recent_time_s"][0, gone] = 0
    fields["recent_category"][0, gone] = 0
    fields["recent_kind"][0, gone] = Kind.NONE
    fields["recent_slot"][0, gone] = NO_SLOT
    fields["last_time_ms"][0] = now_s * 1000
    _step_again(fields, kept, base, before_s, checkpoint)
    return earlier, left_out


def _time_before_anchor(fields: Fields, since_anchor: int, base: int) -> int:
    """Seconds of the last step before the anchor, 0 where there was none."""
    if base == 0:
        return 0
    if since_anchor < RECENT:
        return int(fields["recent_time_s"][0, RECENT - 1])
    touched = fields["recent_slot"][0]
    other = fields["slot_category"][0] > 0
    other[touched[touched != NO_SLOT]] = False
    times_s = fields["slot_time_s"][0, other]
    return int(times_s.max()) if len(times_s) else int(fields["recent_time_s"][0, 0])


def _take_back_units(fields: Fields, gone: np.ndarray) -> None:
    """The drift test before the steps at ``gone``; blank where it was restarted among them."""
    drifts, drift_steps = int(fields["drifts"][0]), int(fields["drift_steps"][0])
    if drifts and len(gone) > drift_steps - RESTART_STEPS:
        fields["drifts"][0] = drifts - 1
        for name in ("drift_time_s", "drift_steps", "units", "slot_units"):
            fields[name][0] = 0
        return
    fields["drift_steps"][0] = max(drift_steps - len(gone), 0)
    unit = gone[fields["recent_kind"][0, gone] >= UNIT_FLAG]
    slot = fields["recent_slot"][0, unit]
    np.subtract.at(fields["slot_units"][0], slot[slot != NO_SLOT].astype(np.int64), 1)
    units = int(fields["units"][0])
    held = min(units, UNITS)
    left = (np.arange(units - held, units - len(unit))) % UNITS  # oldest first
    for name in ("unit_slot", "unit_offset", "unit_time_s"):
        ring = fields[name][0]
        moved = ring[left].copy()
        ring[:] = 0
        ring[: len(left)] = moved
    fields["units"][0] = len(left)


def _take_back_counts(
    fields: Fields,
    gone: np.ndarray,
    now_s: int,
    steps: int,
    half_life_s: np.ndarray,
    repeat_weight: float,
) -> None:
    """Decayed counts as they were at ``now_s``, before the steps at ``gone``."""
    slots, times = fields["recent_slot"][0], fields["recent_time_s"][0].astype(np.int64)
    own = (slots != NO_SLOT) & (np.arange(RECENT) < steps)
    own &= (
        fields["slot_category"][0, slots % len(fields["slot_category"][0])]
        == (fields["recent_category"][0])
    )
    is_gone = np.isin(np.arange(RECENT), gone)
    weight = np.where(fields["recent_kind"][0] >= UNIT_FLAG, 1.0, repeat_weight)[:, None]
    for slot in np.unique(slots[own & is_gone]).tolist():
        at = own & (slots == slot)
        touched_s = int(fields["slot_time_s"][0, slot])
        lost, held = at & is_gone, at & ~is_gone
        added = (weight[lost] * _decay(touched_s - times[lost], half_life_s)).sum(0)  # (rates,)
        left = fields["slot_count"][0, :, slot].astype(np.float64) - added
        left[left < COUNT_ERROR * int(lost.sum())] = 0.0
        kept = (weight[held] * _decay(now_s - times[held], half_life_s)).sum(0)
        growth = np.exp2(np.minimum((touched_s - now_s) / half_life_s, MAX_DOUBLINGS))
        counts = np.maximum(left * growth, kept)
        most = min(steps - len(gone), MAX_COUNT)
        for rate in range(len(counts) - 1, -1, -1):  # slowest first
            counts[rate] = most = min(counts[rate], most)
        fields["slot_count"][0, :, slot] = counts
        fields["slot_time_s"][0, slot] = now_s
        if counts[-1] == 0:
            fields["slot_category"][0, slot] = 0
            fields["slot_units"][0, slot] = 0


def _decay(age_s: np.ndarray, half_life_s: np.ndarray) -> np.ndarray:
    """What is left of a step after ``age_s`` (N,) at each rate, (N, rates)."""
    return np.asarray(np.exp2(-np.maximum(age_s, 0)[:, None] / half_life_s))


def _take_back_events(fields: Fields, gone: np.ndarray) -> None:
    """The number of events without those whose first step is at ``gone``."""
    kinds = fields["recent_kind"][0] & ~np.uint8(UNIT_FLAG)
    times = fields["recent_time_s"][0]
    goes_on = (
        (gone > 0)
        & (kinds[gone] == Kind.PURCHASE)
        & (kinds[gone - 1] == Kind.PURCHASE)
        & (times[gone] == times[gone - 1])
    )
    events = int(fields["events"][0])
    fields["events"][0] = max(events - int((~goes_on).sum()), 0)


def _step_again(
    fields: Fields, kept: int, base: int, before_s: int, checkpoint: Checkpoint
) -> None:
    """The hidden state from the anchor on, through the first ``kept`` steps of the ring."""
    fields["h"][0], fields["c"][0] = fields["anchor_h"][0], fields["anchor_c"][0]
    fields["steps"][0] = base
    if kept == 0:
        return
    time_s = fields["recent_time_s"][0, :kept].astype(np.int64)
    first_s = before_s if base else int(time_s[0])
    network = checkpoint.network

    def encode(*arrays: torch.Tensor) -> torch.Tensor:
        return network.encode(StepInput(*arrays))

    features = in_blocks(
        encode,
        fields["recent_item"][0, :kept].astype(np.int64),
        fields["recent_category"][0, :kept].astype(np.int64),
        (fields["recent_kind"][0, :kept] & ~np.uint8(UNIT_FLAG)).astype(np.int64),
        np.zeros((kept, QUERY_TOKENS), np.int64),
        np.maximum(np.diff(time_s, prepend=first_s), 0),
        time_s,
    )  # (kept, H)
    user = np.zeros(1, np.int64)
    for step in range(kept):
        step_hidden(fields, user, features[step : step + 1], checkpoint)
        fields["steps"][0] += 1
