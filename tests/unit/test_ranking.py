"""Lists against the exact reference over the catalogue, their reasons and their diversity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.evaluation.diversity import miscalibration
from model.interest_lstm import NEAR_STEPS
from model.interests import (
    category_logits,
    category_probabilities,
    decayed_counts,
    hidden_readout,
    shares,
)
from model.ranking import (
    LIKELY_CATEGORIES,
    Reason,
    catalogue_scores,
    category_places,
    item_scores,
    rank,
    recent_items,
)
from model.state import RECENT, StateBatch
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, random_log, run


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def rows(checkpoint: Checkpoint) -> StateBatch:
    return run(random_log(2, 2000, 150, checkpoint), 150, checkpoint, [])[0]


def test_scores_of_candidates_equal_the_reference(checkpoint: Checkpoint, rows: StateBatch) -> None:
    now = rows["last_time_ms"] + 1000
    lists = rank(rows, now, checkpoint, 10)
    exact = catalogue_scores(rows, now, checkpoint)
    assert (lists.item > 0).all()
    np.testing.assert_allclose(
        lists.score, np.take_along_axis(exact, lists.item, 1), rtol=1e-4, atol=1e-4
    )
    assert (np.diff(lists.score, axis=1) <= 0).all()
    for items in lists.item:
        assert len(set(items.tolist())) == 10


def test_most_of_the_exact_list_is_found(checkpoint: Checkpoint, rows: StateBatch) -> None:
    now = rows["last_time_ms"]
    lists = rank(rows, now, checkpoint, 10)
    exact = np.argsort(-catalogue_scores(rows, now, checkpoint), axis=1)[:, :10]
    found = [
        len(set(a) & set(b)) / 10 for a, b in zip(lists.item.tolist(), exact.tolist(), strict=True)
    ]
    assert np.mean(found) > 0.5


def test_a_reason_names_a_step_that_the_item_follows(
    checkpoint: Checkpoint, rows: StateBatch
) -> None:
    lists = rank(rows, rows["last_time_ms"], checkpoint, 10)
    seen = 0
    for r, k in zip(*np.nonzero(lists.reason == Reason.VIEWED_TOGETHER), strict=True):
        source = rows["recent_item"][r, lists.because[r, k]]
        assert lists.item[r, k] in checkpoint.statistics.neighbour_item[source]
        seen += 1
    assert seen
    for r, k in zip(*np.nonzero(lists.reason == Reason.REPEATED), strict=True):
        assert lists.item[r, k] == rows["recent_item"][r, lists.because[r, k]]
    carried = np.isin(lists.reason, (Reason.REPEATED, Reason.VIEWED_TOGETHER))
    assert (lists.because[~carried] == -1).all()
    of_category = lists.reason == Reason.CATEGORY
    for r, k in zip(*np.nonzero(of_category), strict=True):
        category = checkpoint.statistics.item_category[lists.item[r, k]]
        assert category in lists.interests.category[r]


def test_scores_of_named_items_equal_the_reference(
    checkpoint: Checkpoint, rows: StateBatch
) -> None:
    now = rows["last_time_ms"] + 1000
    item = np.random.default_rng(0).integers(1, 200, (len(rows), 7))
    item[:, :3] = recent_items(rows)[0][:, :3].clip(1)
    found = item_scores(rows, now, item, checkpoint)
    exact = np.take_along_axis(catalogue_scores(rows, now, checkpoint), item, 1)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weight", [0.3, 0.9])
def test_a_calibrated_list_is_the_greedy_one(
    checkpoint: Checkpoint, rows: StateBatch, weight: float
) -> None:
    """Step by step and by the definition: scores less the divergence of interests and list."""
    now, k = rows["last_time_ms"], 10
    some = rows[:12]
    calibrated = replace(checkpoint, ranking=replace(checkpoint.ranking, diversity=weight))
    lists = rank(some, now[:12], calibrated, k)
    pool = rank(some, now[:12], checkpoint, 50)
    logits = category_logits(some, hidden_readout(some, checkpoint), now[:12] // 1000, checkpoint)
    p = shares(logits, checkpoint.vocabulary.first_category_bucket)
    np.testing.assert_allclose(p.sum(1), 1)
    of_item = checkpoint.statistics.item_category
    for row in range(len(some)):
        chosen: list[int] = []
        score = dict(zip(pool.item[row].tolist(), pool.score[row].tolist(), strict=True))

        def objective(items: list[int], row: int = row, score: dict[int, float] = score) -> float:
            q = np.bincount(of_item[items], minlength=p.shape[1]) / k
            q = 0.99 * q + 0.01 * p[row]
            there = p[row] > 0
            divergence = (p[row, there] * np.log(p[row, there] / q[there])).sum()
            return (1 - weight) * sum(score[i] for i in items) - weight * float(divergence)

        for _ in range(k):
            left = [item for item in score if item not in chosen]
            chosen.append(max(left, key=lambda item: objective([*chosen, item])))
        assert lists.item[row].tolist() == chosen


def test_diversity_setting_spreads_the_list(checkpoint: Checkpoint, rows: StateBatch) -> None:
    now = rows["last_time_ms"]
    spread = [
        rank(rows, now, replace(checkpoint, ranking=replace(checkpoint.ranking, diversity=w)), 10)
        for w in (0.0, 0.5, 0.9, 0.99)
    ]
    plain = rank(rows, now, checkpoint, 10)
    np.testing.assert_array_equal(spread[0].item, plain.item)
    apart = [miscalibration(rows, now, each.item, checkpoint).mean() for each in spread]
    assert np.diff(apart).max() < 0  # the more it counts, the nearer lists come to the interests
    assert spread[2].diversity.mean() > plain.diversity.mean()
    assert ((plain.diversity >= 0) & (plain.diversity < 1)).all()
    longer = rank(
        rows, now, replace(checkpoint, ranking=replace(checkpoint.ranking, diversity=0.5)), 60
    )
    assert longer.item.shape == (len(rows), 60)


def test_unnamed_buckets_are_never_listed(rows: StateBatch) -> None:
    few = tiny_checkpoint(items=5, categories=3, top=5, neighbours=5)
    lists = rank(rows[:0], rows["last_time_ms"][:0], few, 10)
    assert lists.item.shape[0] == 0
    fresh = run(random_log(4, 30, 4, few), 4, few, [])[0]
    lists = rank(fresh, fresh["last_time_ms"], few, 10)
    assert lists.item.max() <= 5
    assert (lists.item > 0).sum(1).max() <= 5


def test_an_item_without_a_name_is_listed_right_after_its_own_step(checkpoint: Checkpoint) -> None:
    bucket = checkpoint.vocabulary.first_item_bucket + 3
    again = replace(checkpoint, ranking=replace(checkpoint.ranking, again=(500.0,) * 8))
    log = clicks([0] * 5, [1, 2, 3, 4, 5], item=[1, 2, bucket + 1, 3, bucket])
    rows = run(log, 1, again, [])[0]
    now = rows["last_time_ms"]
    assert rank(rows, now, again, 10).item.max() < checkpoint.vocabulary.first_item_bucket
    lists = rank(rows, now, again, 10, last_is_known=True)
    assert lists.item[0].tolist().count(bucket) == 1
    assert bucket + 1 not in lists.item[0]
    at = lists.item[0].tolist().index(bucket)
    assert lists.reason[0, at] == Reason.REPEATED
    assert lists.because[0, at] == 4
    others = np.delete(lists.item[0], at)
    np.testing.assert_array_equal(others, rank(rows, now, again, 10).item[0, : len(others)])


def test_small_categories_let_more_of_them_give_candidates(checkpoint: Checkpoint) -> None:
    assert category_places(checkpoint) == (5, 10)
    brands = tiny_checkpoint(items=300, categories=300)  # an item each, as where items are brands
    assert category_places(brands) == (50, 1)
    rows = run(random_log(6, 500, 20, brands), 20, brands, [])[0]
    now = rows["last_time_ms"]
    likely = np.argsort(-category_probabilities(rows, now, brands), axis=1, kind="stable")[:, :50]
    lists = rank(rows, now, brands, 200)
    for categories, items in zip(likely.tolist(), lists.item.tolist(), strict=True):
        assert set(brands.statistics.category_item[categories, 0].tolist()) - {0} <= set(items)
    assert lists.interests.category.shape == (20, LIKELY_CATEGORIES)


def test_a_list_longer_than_its_candidates_repeats_none() -> None:
    every = tiny_checkpoint(items=30_000, categories=500)  # no source of candidates falls short
    rows = run(random_log(5, 1000, 50, every), 50, every, [])[0]
    lists = rank(rows, rows["last_time_ms"], every, 1000)
    for items in lists.item:
        listed = items[items > 0]
        assert len(listed) == len(set(listed.tolist()))
        assert (items[len(listed) :] == 0).all()


def test_probabilities_equal_the_networks_dense_readout(
    checkpoint: Checkpoint, rows: StateBatch
) -> None:
    now = rows["last_time_ms"]
    mine = category_probabilities(rows, now, checkpoint)
    counts = decayed_counts(rows, now // 1000, checkpoint.statistics.half_life_s)
    dense = np.zeros((len(rows), 3, mine.shape[1]), np.float32)
    for r, row in enumerate(rows):
        held = row["slot_category"] > 0
        dense[r][:, row["slot_category"][held]] = counts[r][:, held]
    share = dense / np.maximum(dense.sum(2, keepdims=True), 1e-9)
    newest = (rows["steps"].astype(np.int64)[:, None] - 1 - np.arange(NEAR_STEPS)) % RECENT
    names = ("recent_category", "recent_item")
    recent = [np.take_along_axis(rows[name], newest, 1).astype(np.int64) for name in names]
    with torch.inference_mode():
        logits = checkpoint.network.category_logits(
            torch.from_numpy(hidden_readout(rows, checkpoint)),
            torch.from_numpy(np.log1p(dense)),
            torch.from_numpy(share),
            checkpoint.network.near(*map(torch.from_numpy, recent)),
        ).numpy()
    wanted = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(mine[:, 1:], wanted[:, 1:], atol=1e-4)
    assert (mine[:, 0] == 0).all()
