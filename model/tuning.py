"""What a later slice of the log decides: how the parts of an interest are combined, calibration,
intervals, fusion weights.

Rows come from ``transition``, so what is chosen here holds for the rows that the lane makes.
Dimensions: R rows, C categories.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from model import interests, ranking
from model.checkpoint import EVENT_BUCKETS, Checkpoint, RankingSettings, Statistics
from model.cooccurrence import CoOccurrence
from model.events import EventBatch, Source
from model.fusion import fit_ranking
from model.held_lists import HeldLists
from model.interest_lstm import NEAR, NEAR_ITEM, PROFILE, InterestLSTM
from model.learning import (
    COUNTER_RANK_WEIGHT,
    COUNTERS,
    Progress,
    Validation,
    count_logits,
    hidden_at,
    profile_logits,
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
COMBINATION_STEPS = 150
COMBINATION_RATE = 0.05
COMBINATION_CELLS = 1_000_000
"""Pairs of window and category that one step of its fit looks at."""
FIRST_SHARE = 0.3
"""Of profile and LSTM, where the fit starts."""
SILENT = -60.0
"""A level of a share that adds nothing to any."""
PROFILE_LEVEL = 0.0
"""See ``CoOccurrence.factors``."""
MEAN_WINDOWS = 2000
"""The mean profile is that of so many windows, at most."""
LEVEL_STEPS = 6
MAX_LEVEL_STEP = 2.0
BUCKET_ROWS = 100
"""A map of its own needs so many rows."""


@dataclass(frozen=True)
class Combination:
    """How the parts of the category logits are combined; as it stands, LSTM and counters alone.

    trend_scale, trend_shift  what the trend is multiplied by, and then raised by
    profile, lstm             what these parts are multiplied by, from 0 (no say)
    weights                   name -> weights of the counters, and levels of what is near
    """

    trend_scale: float = 1.0
    trend_shift: float = 0.0
    profile: float = 0.0
    lstm: float = 1.0
    weights: Mapping[str, torch.Tensor] = field(
        default_factory=lambda: {"near_level": torch.full((2,), SILENT)}
    )


def fit_combination(
    network: InterestLSTM,
    together: CoOccurrence,
    validation: Validation,
    random: np.random.Generator,
    progress: Progress,
) -> Combination:
    """The combination that later windows speak for; the network is left as it is.

    Some dozen numbers are fitted to thousands of windows that come after all that was counted and
    learned, as those are that a checkpoint is asked about: once with what is near recent steps and
    once without, of which the one stays that has the better ``merits``.
    """
    windows = validation.windows
    if len(windows.labels.category) == 0:
        return Combination()
    with torch.inference_mode():
        hidden = hidden_at(network, validation.users, windows.step)
        out = readout(network, hidden, validation.users, windows.step)
    network = deepcopy(network).requires_grad_(False)
    set_tables(network, together, 1.0, windows)
    rows = np.arange(len(windows))
    tried, merit = [], []
    for near in (False, True):
        found = _fitted(deepcopy(network), windows, out, near, random, progress)
        combined = deepcopy(network)
        combine(combined, found)
        with torch.inference_mode():
            logits = combined.background_logits(out) + count_logits(combined, windows, rows)
            logits += found.profile * profile_logits(combined, windows, rows)
        tried.append(found)
        merit.append(merits(logits, windows))
    return tried[1] if relative_gain(merit[1], merit[0]) > 0 else tried[0]


def _fitted(
    network: InterestLSTM,
    windows: Windows,
    out: torch.Tensor,
    near: bool,
    random: np.random.Generator,
    progress: Progress,
) -> Combination:
    """The combination with the least loss; the network's weights are those that are fitted.

    out   (M, H) what the heads of the LSTM read at the windows
    near  whether what is near recent steps has a say
    """
    scale, shift, profile, lstm = (torch.tensor(x) for x in (1.0, 0.0, FIRST_SHARE, FIRST_SHARE))
    network.near_level.fill_(0.0 if near else SILENT)
    weights = {name: getattr(network, name) for name in (*COUNTERS, "near_level")}
    learned = [scale, shift, profile, lstm, *weights.values()][: None if near else -1]
    for weight in learned:
        weight.requires_grad_(True)
    optimiser = torch.optim.Adam(learned, lr=COMBINATION_RATE)
    batch = min(len(windows), max(COMBINATION_CELLS // network.size.categories, 64))
    for step in range(COMBINATION_STEPS):
        chosen = random.choice(len(windows), batch, replace=False)
        trend = scale * network.trend + shift
        logits = trend + count_logits(network, windows, chosen, trend)
        logits = logits + profile * profile_logits(network, windows, chosen)
        logits = logits + lstm * (network.background_logits(out[chosen]) - network.trend)
        loss = window_loss(logits, windows.labels, chosen, COUNTER_RANK_WEIGHT)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.param_groups[0]["lr"] = COMBINATION_RATE * (1 - step / COMBINATION_STEPS)
        optimiser.step()
        with torch.no_grad():
            profile.clamp_(min=0.0)
            lstm.clamp_(min=0.0)
        progress("combination", near * COMBINATION_STEPS + step + 1, 2 * COMBINATION_STEPS)
    return Combination(
        scale.item(),
        shift.item(),
        profile.item(),
        lstm.item(),
        {name: weight.detach() for name, weight in weights.items()},
    )


def combine(network: InterestLSTM, combination: Combination) -> None:
    """Writes the combination into a network whose counters and LSTM are fitted."""
    with torch.no_grad():
        network.trend.mul_(combination.trend_scale).add_(combination.trend_shift)
        for name, weight in combination.weights.items():
            getattr(network, name).copy_(weight)
        for layer in (network.interest, network.activity):
            layer.weight.mul_(combination.lstm)
            layer.bias.mul_(combination.lstm)


def set_tables(
    network: InterestLSTM, together: CoOccurrence, profile: float, windows: Windows
) -> None:
    """Writes what is near what, and factors that are centred on some of the windows.

    profile  what the profile counts in the logits
    """
    source, target = _factors(together, windows)
    root = np.float32(np.sqrt(profile))
    size = network.size
    tables = {
        "near": together.neighbours(NEAR),
        "near_item": together.item_neighbours(size.items, NEAR_ITEM),
    }
    with torch.no_grad():
        network.profile.weight.copy_(torch.from_numpy(source * root))
        network.profile_logit.copy_(torch.from_numpy(target * root))
        for name, (category, share) in tables.items():
            network.get_buffer(f"{name}_category").copy_(torch.from_numpy(category))
            network.get_buffer(f"{name}_share").copy_(torch.from_numpy(share))


def window_merits(network: InterestLSTM, windows: Windows) -> tuple[float, float]:
    """``merits`` of trend and counters alone."""
    with torch.inference_mode():
        logits = network.trend + count_logits(network, windows, np.arange(len(windows)))
    return merits(logits, windows)


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


def _factors(together: CoOccurrence, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """``CoOccurrence.factors`` by which the mean profile says nothing: what users touch who are
    like all is the trend's to say. The mean is that of some windows that have a count."""
    source, target = together.factors(PROFILE_LEVEL, PROFILE)
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
