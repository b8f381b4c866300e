"""A checkpoint moved on by a new period of events, with a memory that does not grow.

What is kept of the past: the network, a bounded number of exemplar histories that are replayed
beside the new ones, and the heaviest pairs of each item, which fade. New items get indices behind
the known ones. Dimensions: N steps, I items.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from model.checkpoint import NEAR_TABLES, Checkpoint, RankingSettings, build_checkpoint
from model.counting import (
    Pairs,
    by_user,
    count_statistics,
    follow_pairs,
    merged,
    neighbours,
    together_pairs,
)
from model.event_log import EventLog
from model.events import EventBatch
from model.interest_lstm import InterestLSTM
from model.learning import LearningSettings, Progress, fit_network
from model.vocabulary import Vocabulary
from model.windows import Decay, UserSteps, draw_windows

EXEMPLARS = 30_000
"""Histories that are kept for replay."""
KEPT_PAIRS = 100
"""Pairs of each item that are kept."""
FADE = 0.9
"""What the weight of a pair loses per period."""
UPDATES = 200
"""Parameter updates per period."""


@dataclass(frozen=True)
class Memory:
    """What is kept beside the checkpoint.

    exemplars          histories, in the checkpoint's indices, users numbered from 0
    follow, together   summed pairs, at most ``KEPT_PAIRS`` of each item
    """

    exemplars: EventBatch
    follow: Pairs
    together: Pairs


def first_memory(checkpoint: Checkpoint, log: EventLog, seed: int = 0) -> Memory:
    """The memory after the training on a log."""
    batch, _ = log.batch(checkpoint.vocabulary)
    items = checkpoint.vocabulary.items
    nothing = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    follow, together = _pairs_of(batch, checkpoint)
    return Memory(
        _sampled(batch, EXEMPLARS, np.random.default_rng(seed)),
        merged(nothing, follow, 1.0, items, KEPT_PAIRS),
        merged(nothing, together, 1.0, items, KEPT_PAIRS),
    )


def moved_on(
    checkpoint: Checkpoint,
    memory: Memory,
    log: EventLog,
    ranking: RankingSettings,
    learning: LearningSettings,
    progress: Progress,
    seed: int = 0,
) -> tuple[Checkpoint, Memory]:
    """The checkpoint and its memory after one more period.

    ranking   fusion weights, learned by the caller from lists that the checkpoint made before
    learning  how the network is fitted to the new histories and the exemplars
    """
    random = np.random.default_rng(seed)
    vocabulary = grown(checkpoint.vocabulary, log)
    network = grown_network(checkpoint.network, checkpoint.vocabulary, vocabulary, seed)
    batch, users = log.batch(vocabulary)
    old = in_grown(memory.exemplars, checkpoint.vocabulary, vocabulary)
    replayed = EventBatch.joined([old, batch], [len(users), 0])
    steps = UserSteps(by_user(replayed))
    half_life_s, horizon_s = checkpoint.statistics.half_life_s, checkpoint.horizon_s
    first_s = int(steps.clock_s.min())
    none = draw_windows(steps, first_s, 0, Decay(half_life_s), horizon_s, random)
    network.train().thaw()
    fit_network(network, steps, none, learning, random, None, progress)
    follow, together = _pairs_of(batch, replace(checkpoint, vocabulary=vocabulary))
    kept = Memory(
        _sampled(replayed, EXEMPLARS, random),
        merged(memory.follow, follow, FADE, vocabulary.items, KEPT_PAIRS),
        merged(memory.together, together, FADE, vocabulary.items, KEPT_PAIRS),
    )
    near = neighbours(kept.follow, kept.together, vocabulary.items)
    statistics = replace(
        count_statistics(replayed, vocabulary, half_life_s, horizon_s),
        repeat_weight=checkpoint.statistics.repeat_weight,
        neighbour_item=near.item,
        neighbour_follows=near.follows,
        neighbour_together=near.together,
        item_again=near.again,
        knot=checkpoint.statistics.knot,
        calibration=checkpoint.statistics.calibration,
        reliability=checkpoint.statistics.reliability,
    )
    made = build_checkpoint(
        network,
        vocabulary,
        statistics,
        checkpoint.drift,
        ranking,
        horizon_s,
        checkpoint.recommend_every,
        checkpoint.top_k,
        int(log.time_ms.max()) // 1000 + 1,
    )
    return made, kept


def grown(vocabulary: Vocabulary, log: EventLog) -> Vocabulary:
    """The vocabulary with the log's new names behind the known ones."""
    items, categories = (
        tuple(
            n
            for n, count in zip(
                names, np.bincount(codes[codes >= 0], minlength=len(names)), strict=True
            )
            if count and n not in known
        )
        for names, codes, known in (
            (log.items, log.item, vocabulary.item_index),
            (log.categories, log.category, vocabulary.category_index),
        )
    )
    return replace(
        vocabulary,
        item_names=vocabulary.item_names + items,
        category_names=vocabulary.category_names + categories,
    )


def in_grown(steps: EventBatch, before: Vocabulary, after: Vocabulary) -> EventBatch:
    """Steps with the indices of a grown vocabulary: its buckets stand behind the new names."""
    items, categories = before.first_item_bucket, before.first_category_bucket
    item, category = steps.item.copy(), steps.category.copy()
    item[item >= items] += after.first_item_bucket - items
    category[category >= categories] += after.first_category_bucket - categories
    return replace(steps, item=item, category=category)


def grown_network(
    network: InterestLSTM, before: Vocabulary, after: Vocabulary, seed: int
) -> InterestLSTM:
    """The network with rows for the new names; what it has learned stays."""
    size = replace(network.size, items=after.items, categories=after.categories)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = InterestLSTM(size)
    weights = dict(network.state_dict())
    tables = {
        "item.weight": (before.first_item_bucket, after.first_item_bucket),
        "item_bias": (before.first_item_bucket, after.first_item_bucket),
        "category.weight": (before.first_category_bucket, after.first_category_bucket),
        "trend": (before.first_category_bucket, after.first_category_bucket),
        "profile.weight": (before.first_category_bucket, after.first_category_bucket),
        "profile_logit": (before.first_category_bucket, after.first_category_bucket),
        "near_category": (before.first_category_bucket, after.first_category_bucket),
        "near_share": (before.first_category_bucket, after.first_category_bucket),
        "near_item_category": (before.first_item_bucket, after.first_item_bucket),
        "near_item_share": (before.first_item_bucket, after.first_item_bucket),
    }
    fresh = made.state_dict()
    buckets = before.first_category_bucket
    for name in NEAR_TABLES:
        near = weights[name]
        further = near + after.first_category_bucket - buckets
        weights[name] = torch.where(near >= buckets, further, near)
    for name, (known, behind) in tables.items():
        table = fresh[name].clone()
        table[:known] = weights[name][:known]
        table[behind:] = weights[name][known:]  # the buckets
        weights[name] = table
    made.load_state_dict(weights)
    return made


def _pairs_of(batch: EventBatch, checkpoint: Checkpoint) -> tuple[Pairs, Pairs]:
    vocabulary = checkpoint.vocabulary
    named = batch.take((batch.item > 0) & (batch.item < vocabulary.first_item_bucket))
    follow = follow_pairs(named, vocabulary.items, checkpoint.horizon_s)
    return follow, together_pairs(named, vocabulary.items)


def _sampled(batch: EventBatch, histories: int, random: np.random.Generator) -> EventBatch:
    """The steps of at most so many users, drawn evenly and numbered from 0."""
    users = np.unique(batch.user)
    if len(users) > histories:
        users = np.sort(random.choice(users, histories, replace=False))
    kept = batch.take(np.isin(batch.user, users))
    return replace(kept, user=np.searchsorted(users, kept.user))
