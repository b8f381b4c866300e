"""Checkpoints for tests, made without training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from model.checkpoint import (
    Checkpoint,
    DriftSettings,
    RankingSettings,
    Statistics,
    build_checkpoint,
)
from model.interest_lstm import InterestLSTM, NetworkSize
from model.vocabulary import Vocabulary

DAY_S = 86400


def tiny_checkpoint(
    seed: int = 0,
    items: int = 200,
    categories: int = 20,
    hidden: int = 64,
    neighbours: int = 20,
    top: int = 20,
) -> Checkpoint:
    """A checkpoint with random weights and consistent statistics.

    Items "item-0" ... (the first ones most popular), item-i in "category-{i mod categories}";
    queries of any words. Neighbours of an item are other items of its category.
    """
    names = [f"item-{i}" for i in range(items)], [f"category-{c}" for c in range(categories)]
    return named_checkpoint(*names, seed, hidden, neighbours, top)


def named_checkpoint(
    item_names: Sequence[str],
    category_names: Sequence[str],
    seed: int = 0,
    hidden: int = 64,
    neighbours: int = 20,
    top: int = 20,
) -> Checkpoint:
    """Like ``tiny_checkpoint`` with other names: the i-th item in category i mod categories."""
    vocabulary = Vocabulary(tuple(item_names), tuple(category_names))
    items, categories = len(item_names), len(category_names)
    rng = np.random.default_rng(seed)
    known = np.arange(1, items + 1)
    item_category = np.zeros(vocabulary.items, dtype=np.int64)
    item_category[known] = (known - 1) % categories + 1
    share = np.full(vocabulary.items, 0.1)
    share[known] = items / known
    neighbour_item = np.zeros((vocabulary.items, neighbours), dtype=np.int64)
    category_item = np.zeros((vocabulary.categories, top), dtype=np.int64)
    for category in range(1, categories + 1):
        members = known[item_category[known] == category]
        category_item[category, : min(top, len(members))] = members[:top]
        for item in members:
            others = rng.permutation(members[members != item])[:neighbours]
            neighbour_item[item, : len(others)] = others
    weight = np.where(neighbour_item > 0, 0.5 ** np.arange(1, neighbours + 1), 0.0)
    trending = np.zeros(top, dtype=np.int64)
    trending[: min(top, items)] = known[:top]
    statistics = Statistics(
        item_category=item_category,
        category_group=np.arange(vocabulary.categories, dtype=np.int64) % 6,
        item_log_popularity=np.log(share / share.sum()).astype(np.float32),
        item_log_trend=np.log(share[::-1] / share.sum()).astype(np.float32),
        item_again=(share / share.sum()).astype(np.float32),
        neighbour_item=neighbour_item,
        neighbour_follows=weight.astype(np.float32),
        neighbour_together=(weight[:, ::-1] * (neighbour_item > 0) / 4).astype(np.float32),
        category_item=category_item,
        trending_item=trending,
        half_life_s=np.array([1.0, 7.0, 30.0]) * DAY_S,
    )
    return build_checkpoint(
        _network(vocabulary, hidden, seed),
        vocabulary,
        statistics,
        DriftSettings(),
        RankingSettings(alike=0.3, trend=0.1, seen=0.2, again=(40.0, *[10.0] * 7)),
        30 * DAY_S,
    )


def _network(vocabulary: Vocabulary, hidden: int, seed: int) -> InterestLSTM:
    size = NetworkSize(
        vocabulary.items, vocabulary.categories, vocabulary.query_buckets, hidden=hidden
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = InterestLSTM(size)
        for table in (network.item, network.category, network.kind, network.query):
            table.weight.mul_(4.0)
        network.item_bias.normal_(std=0.1)
        network.trend.fill_(-2.0)
        network.count_weight.fill_(0.3)
        network.share_level.fill_(-1.0)
        network.share_weight.fill_(0.7)
        for near in (network.near_category, network.near_item_category):
            near.random_(1, size.categories)
        for share in (network.near_share, network.near_item_share):
            share[1:].uniform_(0.0, 0.02)
    return network
