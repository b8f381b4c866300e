"""Which of a user's recent steps carry a recommendation: the row as it were without each of them.

What a step gave to the counts and to the recent items is taken out exactly: without the first step
of a category in a session, the next one is the first. The LSTM steps again
from the row's anchor state, so a step from before the anchor (up to 15 of the last 16) keeps its
say in the hidden state, and the words of a search, which no row keeps, have none here.

Dimensions: R rows, K items, J = 16 recent steps, V = R * (J + 1) rows: each as it is, and without
each step.
"""

from __future__ import annotations

import numpy as np
import torch

from model.blocks import in_blocks
from model.checkpoint import Checkpoint
from model.events import QUERY_TOKENS, SESSION_GAP_S
from model.interest_lstm import StepInput
from model.ranking import item_scores
from model.state import RECENT, UNIT_FLAG, StateBatch

RING = ("recent_item", "recent_time_s", "recent_category", "recent_kind", "recent_slot")
ROWS_TOGETHER = 64
ROUNDING = 2.0**-9
"""Of a float16 count: what is left below this share of it is nothing."""


def score_drops(
    rows: StateBatch, now_ms: np.ndarray, item: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """What the scores of items (R, K) lose without each recent step, newest first: (R, K, J).

    NaN where the row holds no step.
    """
    parts = [np.zeros((0, item.shape[1], RECENT))]
    for at in range(0, len(rows), ROWS_TOGETHER):
        part = slice(at, at + ROWS_TOGETHER)
        parts.append(_drops(rows[part], now_ms[part], item[part], checkpoint))
    return np.concatenate(parts)


def _drops(
    rows: StateBatch, now_ms: np.ndarray, item: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    held = np.minimum(rows["steps"].astype(np.int64), RECENT)  # (R,)
    back = np.tile(np.arange(-1, RECENT), len(rows))  # (V,) the step left out, -1 for none
    back = np.where(back < np.repeat(held, RECENT + 1), back, -1)
    changed = without(np.repeat(rows, RECENT + 1), back, checkpoint)
    times, items = np.repeat(now_ms, RECENT + 1), np.repeat(item, RECENT + 1, axis=0)
    score = item_scores(changed, times, items, checkpoint)
    score = score.reshape(len(rows), RECENT + 1, -1).astype(np.float64)
    drop = (score[:, :1] - score[:, 1:]).transpose(0, 2, 1)  # (R, K, J)
    there = np.arange(RECENT) < held[:, None]
    return np.where(there[:, None, :], drop, np.nan)


def without(rows: StateBatch, back: np.ndarray, checkpoint: Checkpoint) -> StateBatch:
    """The rows (V,) without the step that lies ``back`` (V,) steps back, all of them with -1.

    The hidden states are stepped again in either case. What moves no score stays as it was.
    """
    changed = rows.copy()
    steps = rows["steps"].astype(np.int64)
    held = np.minimum(steps, RECENT)
    gone = np.where(back >= 0, held - 1 - back, RECENT)  # place in order of time, oldest 0
    place = np.arange(RECENT)
    # 1. the ring in order of time, the place that is left out closed
    source = place + (place >= gone[:, None])  # (V, J)
    kept = source < held[:, None]
    position = (steps[:, None] - held[:, None] + source) % RECENT
    for name in RING:
        values = np.take_along_axis(rows[name], position, 1)
        changed[name] = np.where(kept, values, 0)
    changed["steps"] = kept.sum(1)
    # 2. the counts of its category
    lost = np.flatnonzero(back >= 0)
    at = (steps[lost] - 1 - back[lost]) % RECENT
    statistics = checkpoint.statistics
    repeat_weight = float(statistics.repeat_weight[0])
    _uncount(changed, lost, rows, at, statistics.half_life_s, repeat_weight)
    # 3. the hidden state, from the anchor on
    since = np.where(steps > 0, (steps - 1) % RECENT + 1, 0)  # steps after the anchor
    first = held - since
    first = np.where(gone < first, first - 1, first)  # places moved up
    changed["h"], changed["c"] = _stepped(changed, kept, first, checkpoint)
    return changed


def _uncount(
    rows: StateBatch,
    lost: np.ndarray,
    before: StateBatch,
    at: np.ndarray,
    half_life_s: np.ndarray,
    repeat_weight: float,
) -> None:
    """Takes one step out of the counts of the rows ``lost``.

    before  the rows as they are, with the step at the ring positions ``at``
    """
    category = before["recent_category"][lost, at]
    match = (rows["slot_category"][lost] == category[:, None]) & (category > 0)[:, None]
    there = match.any(1)
    row, slot, at = lost[there], match.argmax(1)[there], at[there]
    now_s = before["slot_time_s"][row, slot].astype(np.int64)

    def decayed(position: np.ndarray) -> np.ndarray:
        """What is left of a step at a ring position, (L, rates)."""
        age_s = np.maximum(now_s - before["recent_time_s"][row, position], 0)
        return np.asarray(np.exp2(-age_s[:, None] / half_life_s))

    is_first = before["recent_kind"][row, at] >= UNIT_FLAG
    gone = np.where(is_first, 1.0, repeat_weight)[:, None] * decayed(at)
    heir = _next_in_session(before[row], at)
    grown = np.where(is_first & (heir >= 0), 1.0 - repeat_weight, 0.0)[:, None] * decayed(heir)
    count = before["slot_count"][row, :, slot].astype(np.float64)  # (L, rates)
    left = count - gone + grown
    left[left < ROUNDING * count] = 0
    rows["slot_count"][row, :, slot] = left
    empty = left[:, -1] == 0
    rows["slot_category"][row[empty], slot[empty]] = 0


def _next_in_session(rows: StateBatch, at: np.ndarray) -> np.ndarray:
    """Ring position of the next step of the same category in the same session, -1 for none.

    at  (L,) ring position in each row (L,)
    """
    newest = (rows["steps"].astype(np.int64) - 1) % RECENT
    line = np.arange(len(rows))
    category = rows["recent_category"][line, at]
    found, position, goes_on = np.full(len(rows), -1), at, np.ones(len(rows), dtype=bool)
    for _ in range(RECENT - 1):
        goes_on = goes_on & (position != newest) & (found < 0)
        if not goes_on.any():
            break
        time_s = rows["recent_time_s"][line, position].astype(np.int64)
        position = (position + 1) % RECENT
        goes_on &= rows["recent_time_s"][line, position] - time_s <= SESSION_GAP_S
        same = goes_on & (rows["recent_category"][line, position] == category)
        found = np.where(same, position, found)
    return found


def _stepped(
    rows: StateBatch, kept: np.ndarray, first: np.ndarray, checkpoint: Checkpoint
) -> tuple[np.ndarray, np.ndarray]:
    """(h, c) after the places from ``first`` on that are kept, from the anchor states.

    How long before the oldest place a step came is not known, and counts as no time.
    """
    network, hidden = checkpoint.network, checkpoint.hidden
    time_s = rows["recent_time_s"].astype(np.int64)
    gap_s = np.maximum(np.diff(time_s, axis=1, prepend=time_s[:, :1]), 0)

    def stepped(h: torch.Tensor, c: torch.Tensor, *step: torch.Tensor) -> torch.Tensor:
        gates = network.input_gates(network.encode(StepInput(*step)))
        return torch.cat(network.step(gates, h.float(), c.float()), 1).half()

    state = np.concatenate((rows["anchor_h"], rows["anchor_c"]), 1)  # (V, 2H) float16
    kind = (rows["recent_kind"] & ~np.uint8(UNIT_FLAG)).astype(np.int64)
    for place in range(kept.shape[1]):
        moves = np.flatnonzero(kept[:, place] & (place >= first))
        if len(moves) == 0:
            continue
        state[moves] = in_blocks(
            stepped,
            state[moves, :hidden],
            state[moves, hidden:],
            rows["recent_item"][moves, place].astype(np.int64),
            rows["recent_category"][moves, place].astype(np.int64),
            kind[moves, place],
            np.zeros((len(moves), QUERY_TOKENS), np.int64),
            gap_s[moves, place],
            time_s[moves, place],
        )
    return state[:, :hidden], state[:, hidden:]
