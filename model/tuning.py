"""What a later slice of the log decides: profile, shares, calibration, intervals, fusion weights.

Rows come from ``transition``, so what is chosen here holds for the rows that the lane makes.
Dimensions: R rows, C categories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from model import interests, ranking
from model.checkpoint import EVENT_BUCKETS, Checkpoint, RankingSettings, Statistics
from model.cooccurrence import CoOccurrence, following
from model.events import EventBatch, Source
from model.fusion import fit_ranking
from model.held_lists import HeldLists
from model.interest_lstm import InterestLSTM
from model.learning import (
    COUNTERS,
    PROFILES,
    Progress,
    Validation,
    count_logits,
    hidden_at,
    readout,
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
RIDGES = (1.0, 4.0, 16.0, 64.0, 256.0)
FOLLOWING_RIDGES = (0.3, 1.0, 3.0, 10.0)
SPECTRUM_RIDGE = 4.0
"""Of the profiles whose followers are regressed on them."""
DAMPINGS = (0.0, 0.5)
PROFILE_SCALES = (0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
SCALE_WINDOWS = 2000
LEAST_SPREAD = 1e-6
BUCKET_ROWS = 100
"""A map of its own needs so many rows."""


def counter_weights(network: InterestLSTM) -> dict[str, torch.Tensor]:
    """The weights of the counters and the profile."""
    weights = network.state_dict()
    return {name: weights[name].clone() for name in ("trend", *COUNTERS, *PROFILES)}


def scale_interest(network: InterestLSTM, share: float) -> None:
    """Keeps a share of what the LSTM adds to the category logits."""
    with torch.no_grad():
        for layer in (network.interest, network.activity):
            layer.weight.mul_(share)
            layer.bias.mul_(share)


def choose_interest_share(
    network: InterestLSTM, counters: dict[str, torch.Tensor], validation: Validation
) -> float:
    """The share of the LSTM's interest that helps most, which the network then has.

    Help is what NDCG@10 gains and binary cross-entropy loses, both relative to the counters
    alone; at 0 the counters stand as they were without the LSTM.
    """
    windows = validation.windows
    rows = np.arange(len(windows))
    if len(windows.labels.category) == 0:
        return 1.0
    trained = counter_weights(network)
    with torch.inference_mode():
        hidden = hidden_at(network, validation.users, windows.step)
        out = readout(network, hidden, validation.users, windows.step)
        added = network.background_logits(out) - network.trend
        learnt = network.trend + count_logits(network, windows.counts, rows)
    network.load_state_dict(counters, strict=False)
    with torch.inference_mode():
        alone = network.trend + count_logits(network, windows.counts, rows)

    base_ndcg, base_loss = _merits(alone, windows)
    best, best_share = 0.0, 0.0
    for share in SHARES:
        ndcg, loss = _merits(learnt + share * added, windows)
        gain = ndcg / max(base_ndcg, 1e-9) - loss / max(base_loss, 1e-9)
        if gain > best:
            best, best_share = gain, share
    if best_share > 0:
        network.load_state_dict(trained, strict=False)
    scale_interest(network, best_share)
    return best_share


def window_merits(network: InterestLSTM, windows: Windows) -> tuple[float, float]:
    """``_merits`` of counters and profile alone."""
    rows = np.arange(len(windows))
    with torch.inference_mode():
        logits = network.trend + count_logits(network, windows.counts, rows)
    return _merits(logits, windows)


def _merits(logits: torch.Tensor, windows: Windows) -> tuple[float, float]:
    """(NDCG@10, binary cross-entropy) of logits (M, C); (0, 0) without windows.

    The NDCG@10 is the mean of two: of all categories, and of those that the user has no count of,
    which a mean over all would hardly tell from nothing.
    """
    if len(windows) == 0:
        return 0.0, 0.0
    rows = np.arange(len(windows))
    label = np.zeros(logits.shape, dtype=bool)
    row, category, _ = windows.labels.of(rows)
    label[row, category] = True
    score = logits.numpy().copy()
    ndcg = _mean_ndcg(score, label)
    row, category, _ = windows.counts.of(rows)
    score[row, category], label[row, category] = -np.inf, False
    loss = float(window_loss(logits, windows.labels, rows, 0.0))
    return (ndcg + _mean_ndcg(score, label)) / 2, loss


def _mean_ndcg(score: np.ndarray, label: np.ndarray) -> float:
    found = ndcg_by_user(score, label)
    return float(found[~np.isnan(found)].mean()) if label.any() else 0.0


@dataclass(frozen=True)
class ProfileChoice:
    """How much the touched categories say of the others.

    follows         by what followed in windows (``following``) instead of by what users touch
                    besides (``CoOccurrence.factors``)
    ridge, damping  of the one or the other
    scale           standard deviation of what they add to the logits, 0 for nothing
    """

    follows: bool = False
    ridge: float = 1.0
    damping: float = 0.0
    scale: float = 0.0


def set_profile(
    network: InterestLSTM, together: CoOccurrence, choice: ProfileChoice, windows: Windows
) -> None:
    """Writes the factors into the network, centred and scaled on some of the windows."""
    source, target = _factors(together, choice, windows)
    # half to each side, so that neither leaves the bounds of a checkpoint's weights
    scale = np.float32(np.sqrt(choice.scale / _spread(source, target, windows)))
    with torch.no_grad():
        network.profile_weight.zero_()
        network.profile_weight[-1] = 1.0
        network.profile.weight.copy_(torch.from_numpy(source * scale))
        network.profile_logit.copy_(torch.from_numpy(target * scale))


def choose_profile(
    network: InterestLSTM, together: CoOccurrence, windows: Windows, later: Windows
) -> ProfileChoice:
    """The choice that helps the counters most on later windows, which the network then has.

    Help is what NDCG@10 gains and binary cross-entropy loses, both relative to the counters alone.
    """
    chosen, best = ProfileChoice(), 0.0
    set_profile(network, together, chosen, windows)
    rows = np.arange(len(later))
    with torch.inference_mode():
        alone = network.trend + count_logits(network, later.counts, rows)
    base_ndcg, base_loss = _merits(alone, later)
    ways = [(False, ridge) for ridge in RIDGES] + [(True, ridge) for ridge in FOLLOWING_RIDGES]
    for (follows, ridge), damping in product(ways if len(later) else (), DAMPINGS):
        tried = ProfileChoice(follows, ridge, damping)
        source, target = _factors(together, tried, windows)
        added = _profiles(source, later, rows) @ target.T / _spread(source, target, windows)
        for scale in PROFILE_SCALES:
            ndcg, loss = _merits(alone + torch.from_numpy(added * np.float32(scale)), later)
            gain = (ndcg - base_ndcg) / max(base_ndcg, 1e-9)
            gain -= (loss - base_loss) / max(base_loss, 1e-9)
            if gain > best:
                chosen, best = replace(tried, scale=scale), gain
    set_profile(network, together, chosen, windows)
    return chosen


def _factors(
    together: CoOccurrence, choice: ProfileChoice, windows: Windows
) -> tuple[np.ndarray, np.ndarray]:
    """(source, target) of a choice, each (C, P), centred on the windows; its scale counts not."""
    if not choice.follows:
        return _centred(together.factors(choice.ridge, choice.damping), windows)
    source, _ = _centred(together.factors(SPECTRUM_RIDGE, 0.0), windows)
    rows = np.arange(len(windows))
    window, category, _ = windows.labels.of(rows)
    profiles, came = _profiles(source, windows, rows), (window, category)
    return source, following(profiles, came, len(source), choice.ridge, choice.damping)


def _profiles(source: np.ndarray, windows: Windows, rows: np.ndarray) -> np.ndarray:
    """Mean vector of each window's touched categories, by their shares at the slowest rate: (B, P).

    Whom a user is like is a long-term matter: the faster rates' shares say less of it.
    """
    row, category, count = windows.counts.of(rows)
    slow = count[:, -1:]
    share = slow / np.maximum(_sums(row, slow, len(rows)), 1e-9)[row]
    return _sums(row, source[category] * share, len(rows))


def _centred(
    factors: tuple[np.ndarray, np.ndarray], windows: Windows
) -> tuple[np.ndarray, np.ndarray]:
    """Factors by which the mean profile says nothing: what users touch who are like all is the
    trend's to say. The mean is that of some windows that have a count."""
    source, target = factors
    profiles = _profiles(source, windows, _some(windows))
    counted = profiles[profiles.any(1)]
    if len(counted):
        source = source - counted.mean(0)
        source[0] = 0.0
    return source, target


def _spread(source: np.ndarray, target: np.ndarray, windows: Windows) -> float:
    """Standard deviation of what profiles say, over some windows and all categories; infinity where
    they say next to nothing, of which no scale makes something."""
    rows = _some(windows)
    said = _profiles(source, windows, rows) @ target[1:].T
    spread = float(said.std()) if len(rows) else 0.0
    return spread if spread > LEAST_SPREAD else float("inf")


def _some(windows: Windows) -> np.ndarray:
    """At most 2,000 windows, from the first to the last."""
    count = len(windows)
    return np.unique(np.linspace(0, count - 1, min(count, SCALE_WINDOWS)).astype(np.int64))


def _sums(row: np.ndarray, values: np.ndarray, rows: int) -> np.ndarray:
    total = np.zeros((rows, values.shape[1]), np.float32)
    np.add.at(total, row, values)
    return total


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
