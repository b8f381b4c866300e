"""Decayed category counts in the row's slots, and P(category within the horizon | row).

Dimensions: U users of a batch, B rows of one round, R rows read out, C categories, S = 64 slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.blocks import in_blocks
from model.checkpoint import EVENT_BUCKETS, Checkpoint
from model.interest_lstm import NEAR_DECAY, NEAR_STEPS, InterestLSTM
from model.reliability import GROUP_PAIRS, share_interval
from model.spline_calibration import calibrated
from model.state import MAX_COUNT, RECENT, SLOTS, StateBatch

MAX_LEVEL = 60.0
"""How far a level may lie above a trend: its exponential times the largest share is a float32."""

Fields = dict[str, np.ndarray]
"""The row's fields as contiguous arrays of a batch, keyed by field name."""


def slot_of(
    fields: Fields,
    user: np.ndarray,
    category: np.ndarray,
    time_s: np.ndarray,
    half_life_s: np.ndarray,
) -> np.ndarray:
    """The slot of a category of each user, a new one where it has none: (B,).

    user (B,) distinct rows, category (B,) above 0, time_s (B,) the user's clock in seconds.
    A user with more than 64 categories loses the slot that weighs least at the slowest rate and
    holds no unit of the drift window.
    """
    match = fields["slot_category"][user] == category[:, None]  # (B, S)
    slot = match.argmax(1)
    missing = np.flatnonzero(~match[np.arange(len(user)), slot])
    if len(missing):
        slot[missing] = _take_slots(
            fields, user[missing], category[missing], time_s[missing], half_life_s
        )
    return slot


def touch(
    fields: Fields,
    user: np.ndarray,
    slot: np.ndarray,
    weight: np.ndarray,
    time_s: np.ndarray,
    half_life_s: np.ndarray,
) -> None:
    """Adds a weight (B,) to the decayed counts of a slot (B,) of each of B distinct users.

    Counts stop at 2,048, where float16 stops counting.
    """
    age_s = time_s - fields["slot_time_s"][user, slot].astype(np.int64)
    decay = np.exp2(-age_s[:, None] / half_life_s)  # (B, R)
    counts = fields["slot_count"][user, :, slot].astype(np.float64) * decay + weight[:, None]
    fields["slot_count"][user, :, slot] = np.minimum(counts, MAX_COUNT).astype(np.float16)
    fields["slot_time_s"][user, slot] = time_s


def _take_slots(
    fields: Fields,
    user: np.ndarray,
    category: np.ndarray,
    time_s: np.ndarray,
    half_life_s: np.ndarray,
) -> np.ndarray:
    """A slot for a category that has none: a free one, else the lightest that may go."""
    free = fields["slot_category"][user] == 0  # (B, S)
    slot = free.argmax(1)
    full = np.flatnonzero(~free[np.arange(len(user)), slot])
    if len(full):
        rows = user[full]
        age_s = time_s[full, None] - fields["slot_time_s"][rows].astype(np.int64)  # (F, S)
        weight = fields["slot_count"][rows, -1].astype(np.float64) * np.exp2(
            -age_s / half_life_s[-1]
        )
        in_window = np.zeros((len(rows), SLOTS), dtype=bool)
        units = fields["units"][rows].astype(np.int64)
        for position in range(fields["unit_slot"].shape[1]):
            held = np.flatnonzero(position < units)
            in_window[held, fields["unit_slot"][rows[held], position] % SLOTS] = True
        weight[in_window] = np.inf
        slot[full] = weight.argmin(1)
    fields["slot_category"][user, slot] = category
    fields["slot_count"][user, :, slot] = 0
    fields["slot_units"][user, slot] = 0
    fields["slot_time_s"][user, slot] = time_s
    fields["session_mask"][user] &= ~(np.uint64(1) << slot.astype(np.uint64))
    return slot


def decayed_counts(rows: StateBatch, now_s: np.ndarray, half_life_s: np.ndarray) -> np.ndarray:
    """Counts of every slot at ``now_s`` (R,) seconds: (R, rates, S) float32."""
    row, slot = np.nonzero(rows["slot_category"])  # M slots held: most are free
    age_s = np.maximum(now_s[row] - rows["slot_time_s"][row, slot].astype(np.int64), 0)  # (M,)
    decay = np.exp2(-age_s[:, None] / half_life_s)  # (M, rates)
    counts = np.zeros((len(rows), len(half_life_s), SLOTS), np.float32)
    counts[row, :, slot] = rows["slot_count"][row, :, slot].astype(np.float64) * decay
    return counts


def last_step(rows: StateBatch) -> tuple[np.ndarray, np.ndarray]:
    """Item and category of the last step of each row, 0 where there is none."""
    position = (rows["steps"].astype(np.int64) - 1) % RECENT
    index = np.arange(len(rows))
    item = rows["recent_item"][index, position].astype(np.int64)
    category = rows["recent_category"][index, position].astype(np.int64)
    return item, category


def hidden_readout(rows: StateBatch, checkpoint: Checkpoint) -> np.ndarray:
    """What the heads read of each row, (R, H) float32."""
    item, category = last_step(rows)
    return in_blocks(checkpoint.network.readout, rows["h"].astype(np.float32), item, category)


def category_logits(
    rows: StateBatch, out: np.ndarray, now_s: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """Calibrated logits that each category is touched within the horizon, (R, C) float32.

    The sum of trend, LSTM, profile and counts, calibrated by the map of the user's event-count
    bucket.
    """
    statistics = checkpoint.statistics
    maps = statistics.calibration[event_bucket(rows["events"])]  # (R, knots + 2)
    return calibrated(raw_logits(rows, out, now_s, checkpoint), statistics.knot, maps)


def event_bucket(events: np.ndarray) -> np.ndarray:
    """Which bucket of ``EVENT_BUCKETS`` numbers of events fall into, in their shape."""
    return np.searchsorted(EVENT_BUCKETS, events, side="right")


def raw_logits(
    rows: StateBatch, out: np.ndarray, now_s: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """``InterestLSTM.category_logits`` of rows, (R, C) float32, uncalibrated; the counts' part is
    added only where a slot holds one."""
    network = checkpoint.network
    logits = in_blocks(network.background_logits, out)  # (R, C)
    counts = decayed_counts(rows, now_s, checkpoint.statistics.half_life_s)  # (R, rates, S)
    row, slot = np.nonzero(rows["slot_category"])  # M slots held
    category, held = rows["slot_category"][row, slot], counts[row, :, slot]  # (M,), (M, rates)
    sums = counts.sum(2)  # (R, rates)
    share = held / np.maximum(sums, 1e-9)[row]  # (M, rates)
    logits += in_blocks(network.profile_logits, _profiles(len(rows), row, category, share, network))
    # the shares, as multiples of the highest level
    share_level, near_level = network.share_level.detach(), network.near_level.detach()
    highest = max(float(share_level.max()), float(near_level.max()))
    mixed = _near_shares(rows, np.exp(near_level.numpy() - highest), network)
    mixed[row, category] += share @ np.exp(share_level.numpy() - highest)
    trend = network.trend.detach().numpy()
    mixed *= np.exp(np.clip(highest - trend, -MAX_LEVEL, MAX_LEVEL))
    np.log1p(mixed, out=mixed)
    mixed *= network.share_weight.detach().numpy()
    logits += mixed
    logits[row, category] += np.log1p(held) @ network.count_weight.detach().numpy()
    logits += (np.log1p(sums) @ network.total_weight.detach().numpy())[:, None]
    return logits


def _profiles(
    count: int, row: np.ndarray, category: np.ndarray, share: np.ndarray, network: InterestLSTM
) -> np.ndarray:
    """The profile of each row from its M slots, which stand row by row: (R, P) float32."""
    table = network.profile.weight.detach().numpy()
    profiles = np.zeros((count, table.shape[1]), np.float32)
    if len(row):
        starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        profiles[row[starts]] = np.add.reduceat(table[category] * share[:, -1:], starts)
    return profiles


def _near_shares(rows: StateBatch, weight: np.ndarray, network: InterestLSTM) -> np.ndarray:
    """``InterestLSTM.near`` of R rows, by categories and by items times their weights (2,) and
    summed, (R, C) float32."""
    categories = network.size.categories
    back = np.arange(NEAR_STEPS)
    position = (rows["steps"].astype(np.int64)[:, None] - 1 - back) % RECENT
    tables = (
        ("recent_category", network.near_category, network.near_share),
        ("recent_item", network.near_item_category, network.near_item_share),
    )
    places, amounts = [], []
    for (name, near, share), of_kind in zip(tables, weight.tolist(), strict=True):
        recent = np.take_along_axis(rows[name], position, 1)  # (R, J), newest first
        row, step = np.nonzero(recent)
        of = recent[row, step]
        amount = share.numpy()[of] * (of_kind * NEAR_DECAY ** step[:, None])  # (E, K)
        places.append((row[:, None] * categories + near.numpy()[of]).ravel())
        amounts.append(amount.ravel())
    found = np.bincount(
        np.concatenate(places), np.concatenate(amounts), minlength=len(rows) * categories
    )
    return found.astype(np.float32).reshape(len(rows), categories)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities in float64; beyond 700 they do not move any more, and exp would overflow."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits.astype(np.float64), -700.0, 700.0))))


def category_probabilities(
    rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """P(category touched within the horizon after ``now_ms`` | row), (R, C); column 0 is 0."""
    out = hidden_readout(rows, checkpoint)
    logits = category_logits(rows, out, now_ms // 1000, checkpoint)
    probabilities = sigmoid(logits)
    probabilities[:, 0] = 0.0
    return probabilities


def interval(
    probability: np.ndarray, checkpoint: Checkpoint, pairs: int = GROUP_PAIRS
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) of the 90 % interval of each stated probability, in its shape.

    Of a hundred (``pairs``) pairs of user and category with this probability, the share that comes
    true lies between the two, ends included, nine times out of ten: so far do chance and what the
    checkpoint saw of its own calibration reach (reliability.py).
    """
    return share_interval(probability, checkpoint.statistics.reliability, pairs)


def shares(logits: np.ndarray, named: int) -> np.ndarray:
    """Each row's interests as a distribution over the categories 1 to ``named`` - 1, (R, C)."""
    share = np.zeros(logits.shape)
    share[:, 1:named] = sigmoid(logits[:, 1:named])
    return np.asarray(share / np.maximum(share.sum(1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Interests:
    """The likeliest categories of R rows, best first, each (R, K).

    uncertainty is the entropy of the probability in bits: 0 sure, 1 open.
    """

    category: np.ndarray
    probability: np.ndarray
    uncertainty: np.ndarray

    def first(self, k: int) -> Interests:
        """The k likeliest of them."""
        return Interests(self.category[:, :k], self.probability[:, :k], self.uncertainty[:, :k])


def best(score: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest of each row, highest first, the lower of equal ones: (R, K)."""
    left = score.copy()
    row = np.arange(len(score))
    places = np.empty((len(score), min(k, score.shape[1])), np.int64)
    for rank in range(places.shape[1]):
        places[:, rank] = place = left.argmax(1)
        left[row, place] = -np.inf
    return places


def top_interests(logits: np.ndarray, named: int, k: int) -> Interests:
    """The k likeliest of the categories 1 to ``named`` - 1; ties go to the lower index."""
    category = best(logits[:, 1:named], k) + 1
    logit = np.take_along_axis(logits, category, 1)
    p = sigmoid(logit)
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    entropy = -(clipped * np.log2(clipped) + (1 - clipped) * np.log2(1 - clipped))
    return Interests(category, p, entropy)
