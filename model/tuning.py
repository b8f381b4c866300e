"""What a later slice of the log decides: profile, shares, calibration, intervals, fusion weights.

Rows come from ``transition``, so what is chosen here holds for the rows that the lane makes.
Dimensions: R rows, C categories.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from model import interests, ranking
from model.checkpoint import EVENT_BUCKETS, Checkpoint, RankingSettings, Statistics
from model.cooccurrence import CoOccurrence
from model.events import EventBatch, Source
from model.fusion import fit_ranking
from model.held_lists import HeldLists
from model.interest_lstm import NEAR, PROFILE, InterestLSTM
from model.learning import (
    Progress,
    Validation,
    count_logits,
    hidden_at,
    near_shares,
    readout,
    slow_shares,
    window_loss,
)
from model.metrics import DISCOUNT, TOP, labels, ndcg_by_user, top_cases
from model.reliability import fit_reliability
from model.spline_calibration import fit_map, identity, knots_of
from model.state import StateBatch, new_rows
from model.transition import transition
from model.windows import Windows

MAX_STEPS = 4096
MAX_USERS = 2000
READ_TOGETHER = 512
NEVER = 1_000_000
SHARES = (0.25, 0.5, 0.75, 1.0)
LEVELS = (-1.0, 0.0, 1.0, 2.0)
PROFILE_WEIGHTS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
NEAR_LEVELS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
NEAR_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
MEAN_WINDOWS = 2000
"""The mean profile is that of so many windows, at most."""
LEVEL_STEPS = 6
MAX_LEVEL_STEP = 2.0
BUCKET_ROWS = 100
"""A map of its own needs so many rows."""


def scale_interest(network: InterestLSTM, share: float) -> None:
    """Keeps a share of what the LSTM adds to the category logits."""
    with torch.no_grad():
        for layer in (network.interest, network.activity):
            layer.weight.mul_(share)
            layer.bias.mul_(share)


def choose_interest_share(network: InterestLSTM, validation: Validation) -> float:
    """The share of the LSTM's interest that helps most, which the network then has.

    Help is what ``merits`` gain relative to the counters and the profile alone, which a share of 0
    leaves.
    """
    windows = validation.windows
    if len(windows.labels.category) == 0:
        return 1.0
    with torch.inference_mode():
        hidden = hidden_at(network, validation.users, windows.step)
        out = readout(network, hidden, validation.users, windows.step)
        added = network.background_logits(out) - network.trend
    alone = _without_lstm(network, windows)
    base = merits(alone, windows)
    gain = {share: relative_gain(merits(alone + share * added, windows), base) for share in SHARES}
    best = max(gain, key=gain.__getitem__)
    best_share = best if gain[best] > 0 else 0.0
    scale_interest(network, best_share)
    return best_share


def window_merits(network: InterestLSTM, windows: Windows) -> tuple[float, float]:
    """``merits`` of counters and profile alone."""
    return merits(_without_lstm(network, windows), windows)


def _without_lstm(network: InterestLSTM, windows: Windows) -> torch.Tensor:
    """Logits of counters and profile alone, (M, C)."""
    with torch.inference_mode():
        return network.trend + count_logits(network, windows.counts, np.arange(len(windows)))


def merits(logits: torch.Tensor, windows: Windows) -> tuple[float, float]:
    """(NDCG@10, binary cross-entropy) of logits (M, C); (0, 0) without windows.

    The NDCG@10 is the mean of two: of all categories, and of those that the user has no count of,
    which are too few to move a mean over all. The cross-entropy is that of the logits at their best
    level, as calibration will set it.
    """
    if len(windows) == 0:
        return 0.0, 0.0
    rows = np.arange(len(windows))
    label = np.zeros(logits.shape, dtype=bool)
    row, category, _ = windows.labels.of(rows)
    label[row, category] = True
    score = logits.numpy().copy()
    ndcg = _mean_ndcg(score, label)
    loss = float(window_loss(logits + _best_shift(logits, label.sum()), windows.labels, rows, 0.0))
    row, category, _ = windows.counts.of(rows)
    score[row, category], label[row, category] = -np.inf, False
    return (ndcg + _mean_ndcg(score, label)) / 2, loss


def relative_gain(found: tuple[float, float], base: tuple[float, float]) -> float:
    """What NDCG@10 gains and cross-entropy loses, both relative to the base."""
    (ndcg, loss), (base_ndcg, base_loss) = found, base
    return (ndcg - base_ndcg) / max(base_ndcg, 1e-9) - (loss - base_loss) / max(base_loss, 1e-9)


def _best_shift(logits: torch.Tensor, labels: int) -> float:
    """What to add to logits (M, C) so that they say as many labels as there are."""
    shift = 0.0
    for _ in range(LEVEL_STEPS if labels else 0):
        p = torch.sigmoid(logits[:, 1:] + shift)
        step = (float(p.sum()) - labels) / max(float((p * (1 - p)).sum()), 1e-9)
        shift -= min(max(step, -MAX_LEVEL_STEP), MAX_LEVEL_STEP)
    return shift


def _mean_ndcg(score: np.ndarray, label: np.ndarray) -> float:
    found = ndcg_by_user(score, label)
    return float(found[~np.isnan(found)].mean()) if label.any() else 0.0


@dataclass(frozen=True)
class ProfileChoice:
    """How much the touched categories say of the others.

    level        see ``CoOccurrence.factors``
    weight       what their mean counts in the logits, 0 for nothing
    near_level   see ``InterestLSTM.near_logits``
    near_weight  what the neighbours count, 0 for nothing
    """

    level: float = 0.0
    weight: float = 0.0
    near_level: float = 0.0
    near_weight: float = 0.0


def set_profile(
    network: InterestLSTM, together: CoOccurrence, choice: ProfileChoice, windows: Windows
) -> None:
    """Writes factors, centred on some of the windows, and neighbours into the network."""
    source, target = _factors(together, choice.level, windows)
    root = np.float32(np.sqrt(choice.weight))
    category, share = _neighbours(together)
    if choice.near_weight == 0:
        category, share = torch.zeros_like(category), torch.zeros_like(share)
    with torch.no_grad():
        network.profile.weight.copy_(torch.from_numpy(source * root))
        network.profile_logit.copy_(torch.from_numpy(target * root))
        network.near_category.copy_(category)
        network.near_share.copy_(share)
        network.near_level.fill_(choice.near_level)
        network.near_weight.fill_(choice.near_weight)


def choose_profile(
    network: InterestLSTM, together: CoOccurrence, windows: Windows, later: Windows
) -> ProfileChoice:
    """The choice that helps the counters most on later windows, which the network then has: the
    better of factors and neighbours first, then the other where it adds to that. The network is as
    ``fit_counters`` leaves it."""
    chosen, rows = ProfileChoice(), np.arange(len(later))
    logits = _without_lstm(network, later)
    near = near_shares(*_neighbours(together), later.counts, rows)
    said = {}
    for level in LEVELS:
        source, target = _factors(together, level, windows)
        said[level] = torch.from_numpy(_profiles(source, later, rows) @ target.T)
    while len(later):
        base, best, best_logits = merits(logits, later), 0.0, logits
        for tried, added in _tried(network, chosen, said, near):
            gain = relative_gain(merits(logits + added, later), base)
            if gain > best:
                best, best_choice, best_logits = gain, tried, logits + added
        if best == 0:
            break
        chosen, logits = best_choice, best_logits
    set_profile(network, together, chosen, windows)
    return chosen


def _tried(
    network: InterestLSTM,
    chosen: ProfileChoice,
    said: dict[float, torch.Tensor],
    near: torch.Tensor,
) -> Iterator[tuple[ProfileChoice, torch.Tensor]]:
    """Each way to add to the choice what it has not got, and what that adds to the logits.

    said  what the factors of each level say; near  what ``near_shares`` gives
    """
    if chosen.weight == 0:
        for level, weight in product(LEVELS, PROFILE_WEIGHTS):
            yield replace(chosen, level=level, weight=weight), weight * said[level]
    if chosen.near_weight == 0:
        for level, weight in product(NEAR_LEVELS, NEAR_WEIGHTS):
            network.near_level.fill_(level)
            network.near_weight.fill_(weight)
            with torch.inference_mode():
                added = network.near_logits(near, network.trend)
            yield replace(chosen, near_level=level, near_weight=weight), added


def _neighbours(together: CoOccurrence) -> tuple[torch.Tensor, torch.Tensor]:
    category, share = together.neighbours(NEAR)
    return torch.from_numpy(category), torch.from_numpy(share)


def _factors(
    together: CoOccurrence, level: float, windows: Windows
) -> tuple[np.ndarray, np.ndarray]:
    """``CoOccurrence.factors`` by which the mean profile says nothing: what users touch who are
    like all is the trend's to say. The mean is that of some windows that have a count."""
    source, target = together.factors(level, PROFILE)
    some = np.linspace(0, len(windows) - 1, min(len(windows), MEAN_WINDOWS))
    profiles = _profiles(source, windows, np.unique(some.astype(np.int64)))
    counted = profiles[profiles.any(1)]
    if len(counted):
        source = source - counted.mean(0)
        source[0] = 0.0
    return source, target


def _profiles(source: np.ndarray, windows: Windows, rows: np.ndarray) -> np.ndarray:
    """Mean vector of each window's touched categories, by their shares at the slowest rate: (B, P).

    Whom a user is like is a long-term matter: the faster rates' shares say less of it.
    """
    row, category, share = slow_shares(windows.counts, rows)
    profiles = np.zeros((len(rows), source.shape[1]), np.float32)
    np.add.at(profiles, row, source[category] * share[:, None])
    return profiles


@dataclass(frozen=True)
class Late:
    """Rows of the later slice and what followed.

    rows, now_ms, label   rows at its start and the categories touched within the horizon
    """

    rows: StateBatch
    now_ms: np.ndarray
    label: np.ndarray

    def take(self, chosen: np.ndarray | slice) -> Late:
        """Those of some rows."""
        return Late(self.rows[chosen], self.now_ms[chosen], self.label[chosen])


def late_rows(
    checkpoint: Checkpoint,
    batch: EventBatch,
    users: int,
    late_s: int,
    seed: int = 0,
    target: int | None = None,
) -> Late:
    """Moves rows through the log up to the later slice, of at most 2,000 users.

    target  event type of the labels, None for all
    """
    random = np.random.default_rng(seed)
    known = np.unique(batch.user[batch.time_ms < late_s * 1000])
    chosen = np.sort(random.choice(known, min(MAX_USERS, len(known)), replace=False))
    number = np.full(users, -1, dtype=np.int64)
    number[chosen] = np.arange(len(chosen))
    batch = batch.take(number[batch.user] >= 0)
    batch = replace(batch, user=number[batch.user])
    quiet = replace(checkpoint, recommend_every=NEVER)
    late_ms = late_s * 1000
    rows, _ = transition(
        new_rows(len(chosen), checkpoint.hidden),
        batch.take(batch.time_ms < late_ms),
        Source(),
        quiet,
    )
    wanted = batch if target is None else batch.take(batch.event_type == target)
    categories = checkpoint.vocabulary.categories
    label = labels(wanted, len(rows), categories, late_s, checkpoint.horizon_s)
    now_ms = np.full(len(rows), late_ms)
    return Late(rows, now_ms, label)


def interest_reliability(checkpoint: Checkpoint, late: Late) -> np.ndarray:
    """``Statistics.reliability`` of each user's highest probabilities in the later slice, each half
    of the users calibrated by the other, as those are whom a checkpoint is used for."""
    p, true = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    half = np.arange(len(late.rows)) % 2 == 0
    for learned, judged in ((half, ~half), (~half, half)):
        statistics = fit_calibration(checkpoint, late.take(learned))
        calibrated, asked = replace(checkpoint, statistics=statistics), late.take(judged)
        for at in range(0, len(asked.rows), READ_TOGETHER):
            part = asked.take(slice(at, at + READ_TOGETHER))
            stated = interests.category_probabilities(part.rows, part.now_ms, calibrated)
            for column, found in zip((p, true), top_cases(stated, part.label), strict=True):
                column.append(found)
    return fit_reliability((np.concatenate(p), np.concatenate(true)))


def fit_calibration(checkpoint: Checkpoint, late: Late) -> Statistics:
    """The checkpoint's statistics with the calibration that gives the later slice's labels the
    least binary cross-entropy: a map of all rows, and around it one of each event-count bucket that
    has many."""
    if not late.label.any():
        return checkpoint.statistics
    out = interests.hidden_readout(late.rows, checkpoint)
    logits = interests.raw_logits(late.rows, out, late.now_ms // 1000, checkpoint)[:, 1:]
    label = late.label[:, 1:]
    knot = knots_of(logits[label])
    maps = identity(len(EVENT_BUCKETS) + 1)
    maps[:] = fit_map(logits.ravel(), label.ravel(), knot, maps[0])
    bucket = interests.event_bucket(late.rows["events"])
    for index in range(len(maps)):
        inside = bucket == index
        if inside.sum() >= BUCKET_ROWS:
            maps[index] = fit_map(logits[inside].ravel(), label[inside].ravel(), knot, maps[index])
    return replace(checkpoint.statistics, knot=knot, calibration=maps)


def choose_ranking(
    checkpoint: Checkpoint, lists: HeldLists, progress: Progress
) -> tuple[RankingSettings, float]:
    """Fusion weights learned from the next items, and NDCG@10 of the lists they give."""
    if len(lists) == 0:
        return checkpoint.ranking, 0.0
    chosen = fit_ranking(checkpoint, lists, progress)
    found = ranking.rank(lists.rows, lists.now_ms, replace(checkpoint, ranking=chosen), TOP)
    hit = found.item == lists.target[:, None]
    return chosen, float((hit @ DISCOUNT[: hit.shape[1]]).mean())
