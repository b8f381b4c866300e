"""Catalogues of any size for the ranking benchmark: a checkpoint without training, and rows.

Items are numbered by popularity; item i stands at place (i - 1) // C of category (i - 1) % C.
Dimensions: I items, C categories, N neighbours, H hidden size, R rows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from model.checkpoint import (
    Checkpoint,
    DriftSettings,
    RankingSettings,
    Statistics,
    build_checkpoint,
)
from model.counting import NEIGHBOURS, TOP_ITEMS
from model.events import Source
from model.interest_lstm import DAY_S, InterestLSTM, NetworkSize
from model.state import StateBatch, new_rows
from model.transition import transition
from model.vocabulary import Vocabulary
from tests.event_batches import clicks

CATEGORY_POWER = 0.6
"""I ** 0.6 categories: the whole Taobao UserBehavior log has 4.16 million items in 9,439."""
FOREIGN_EVERY = 4
"""Every fourth neighbour of an item is of another category."""
SPREAD = 0.2
"""Standard deviation of an embedding's numbers; the cell's input must not be lost in noise."""
CLUSTER_SHARE = 0.5
"""Share of an embedding's variance that items of a category have in common, where there is any."""
FOLLOWED_SHARE = 0.2
FOLLOWED_DECAY = 0.8
"""Share of the best neighbour among what followed, and of each next one against the one before."""
CLICKS = 12
OWN_CATEGORIES = 3
OWN_SHARE = 0.8
POPULAR_PLACES = 0.15
"""Parameter of the geometric distribution of a click's place within its category."""
NEVER = 1_000_000
_CHUNK_ITEMS = 1 << 18


def categories_of(items: int) -> int:
    """Number of categories of a catalogue of so many items."""
    return max(2, round(items**CATEGORY_POWER))


def make_catalogue(items: int, clustered: bool, seed: int = 0, hidden: int = 64) -> Checkpoint:
    """A checkpoint of ``items`` items with random weights.

    clustered: embeddings of a category share ``CLUSTER_SHARE`` of their variance, as training
    gives; without it they have nothing in common, the worst case for an index.
    """
    categories = categories_of(items)
    vocabulary = Vocabulary(
        tuple(f"item-{i}" for i in range(1, items + 1)),
        tuple(f"category-{c}" for c in range(1, categories + 1)),
    )
    random = np.random.default_rng(seed)
    network = _network(vocabulary, random, clustered, seed, hidden)
    statistics = _statistics(vocabulary, random)
    return build_checkpoint(
        network, vocabulary, statistics, DriftSettings(), RankingSettings(), 30 * DAY_S
    )


def _network(
    vocabulary: Vocabulary, random: np.random.Generator, clustered: bool, seed: int, hidden: int
) -> InterestLSTM:
    categories = len(vocabulary.category_names)
    size = NetworkSize(
        vocabulary.items, vocabulary.categories, vocabulary.query_buckets, hidden=hidden
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = InterestLSTM(size)
        for table in (network.category, network.kind, network.query):
            table.weight.mul_(4.0)
        network.trend.fill_(-2.0)
        network.count_weight.fill_(0.3)
        network.share_level.fill_(-1.0)
        network.share_weight.fill_(0.7)
        for near in (network.near_category, network.near_item_category):
            near.random_(1, categories + 1)
        for near_share in (network.near_share, network.near_item_share):
            near_share[1:].uniform_(0.0, 0.02)
        weight = network.item.weight.numpy()
        random.standard_normal(out=weight, dtype=np.float32)
        weight *= SPREAD
        if clustered:
            centre = random.standard_normal((categories, hidden), np.float32) * np.float32(SPREAD)
            weight *= np.float32(np.sqrt(1 - CLUSTER_SHARE))
            for at in range(0, len(weight), _CHUNK_ITEMS):
                part = weight[at : at + _CHUNK_ITEMS]
                category = (np.arange(at, at + len(part)) - 1) % categories
                part += centre[category] * np.float32(np.sqrt(CLUSTER_SHARE))
        weight[0] = 0
        network.item_bias.copy_(
            torch.from_numpy(random.standard_normal(vocabulary.items, np.float32) * SPREAD)
        )
    return network


def _statistics(vocabulary: Vocabulary, random: np.random.Generator) -> Statistics:
    items, categories = len(vocabulary.item_names), len(vocabulary.category_names)
    known = np.arange(1, items + 1)
    item_category = np.zeros(vocabulary.items, np.int64)
    item_category[known] = (known - 1) % categories + 1
    share = np.full(vocabulary.items, 0.1)
    share[known] = items / known
    neighbour_item = np.zeros((vocabulary.items, NEIGHBOURS), np.int64)
    for at in range(0, items, _CHUNK_ITEMS):
        part = known[at : at + _CHUNK_ITEMS]
        neighbour_item[part] = _neighbours(part, items, categories, random)
    weight = FOLLOWED_SHARE * FOLLOWED_DECAY ** np.arange(NEIGHBOURS, dtype=np.float32)
    place = np.arange(TOP_ITEMS)
    category_item = np.zeros((vocabulary.categories, TOP_ITEMS), np.int64)
    top = known[:categories, None] + place * categories
    category_item[1 : categories + 1] = np.where(top <= items, top, 0)
    return Statistics(
        item_category=item_category,
        category_group=np.arange(vocabulary.categories, dtype=np.int64) % 12,
        item_log_popularity=np.log(share / share.sum()).astype(np.float32),
        neighbour_item=neighbour_item,
        item_log_trend=np.log(share / share.sum()).astype(np.float32),
        item_again=np.zeros(vocabulary.items, np.float32),
        neighbour_follows=np.where(neighbour_item > 0, weight, np.float32(0)),
        neighbour_together=np.where(neighbour_item > 0, weight[::-1], np.float32(0)),
        category_item=category_item,
        trending_item=np.where(place < items, place + 1, 0),
        half_life_s=np.array([1.0, 7.0, 30.0]) * DAY_S,
    )


def _neighbours(
    item: np.ndarray, items: int, categories: int, random: np.random.Generator
) -> np.ndarray:
    """Distinct items of each item's category, and popular ones of anywhere between: (M, N)."""
    category, place = (item - 1) % categories, (item - 1) // categories
    size = (items - 1 - category) // categories + 1  # items of the category
    widest = np.maximum(size // (NEIGHBOURS + 1), 1)
    steps = random.integers(1, widest[:, None] + 1, (len(item), NEIGHBOURS)).cumsum(1)
    found = 1 + category[:, None] + (place[:, None] + steps) % size[:, None] * categories
    found[steps >= size[:, None]] = 0
    foreign = found[:, FOREIGN_EVERY - 1 :: FOREIGN_EVERY]
    foreign[:] = 1 + (items * random.random(foreign.shape) ** 3).astype(np.int64)
    return np.asarray(found)


def make_rows(checkpoint: Checkpoint, count: int, seed: int = 0) -> StateBatch:
    """Rows (R,) of users after 12 clicks each, most of them in a few categories of their own.

    The checkpoint is one of ``make_catalogue``.
    """
    items = len(checkpoint.vocabulary.item_names)
    categories = len(checkpoint.vocabulary.category_names)
    random = np.random.default_rng(seed)
    user = np.tile(np.arange(count), CLICKS)
    own = random.integers(0, categories, (count, OWN_CATEGORIES))
    category = np.where(
        random.random(len(user)) < OWN_SHARE,
        own[user, random.integers(0, OWN_CATEGORIES, len(user))],
        random.integers(0, categories, len(user)),
    )
    place = random.geometric(POPULAR_PLACES, len(user)) - 1
    place = np.minimum(place, (items - 1 - category) // categories)
    log = clicks(
        user.tolist(),
        (category + 1).tolist(),
        gap_s=60,
        item=(1 + category + place * categories).tolist(),
    )
    quiet = replace(checkpoint, recommend_every=NEVER)
    rows, _ = transition(new_rows(count, checkpoint.hidden), log, Source(), quiet)
    return rows
