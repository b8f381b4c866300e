"""Lists against the exact reference over the catalogue, their reasons and their diversity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from model.interests import category_probabilities, decayed_counts, hidden_readout
from model.ranking import Reason, catalogue_scores, rank
from model.state import StateBatch
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import random_log, run


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


def test_diversity_setting_spreads_the_list(checkpoint: Checkpoint, rows: StateBatch) -> None:
    plain = rank(rows, rows["last_time_ms"], checkpoint, 10)
    spread = rank(
        rows,
        rows["last_time_ms"],
        replace(checkpoint, ranking=replace(checkpoint.ranking, diversity=2.0)),
        10,
    )
    assert spread.diversity.mean() > plain.diversity.mean()
    assert ((plain.diversity >= 0) & (plain.diversity < 1)).all()


def test_unnamed_buckets_are_never_listed(rows: StateBatch) -> None:
    few = tiny_checkpoint(items=5, categories=3, top=5, neighbours=5)
    lists = rank(rows[:0], rows["last_time_ms"][:0], few, 10)
    assert lists.item.shape[0] == 0
    fresh = run(random_log(4, 30, 4, few), 4, few, [])[0]
    lists = rank(fresh, fresh["last_time_ms"], few, 10)
    assert lists.item.max() <= 5
    assert (lists.item > 0).sum(1).max() <= 5


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
    with torch.inference_mode():
        logits = checkpoint.network.category_logits(
            torch.from_numpy(hidden_readout(rows, checkpoint)),
            torch.from_numpy(np.log1p(dense)),
            torch.from_numpy(share),
        ).numpy()
    wanted = 1 / (1 + np.exp(-logits.astype(float)))
    np.testing.assert_allclose(mine[:, 1:], wanted[:, 1:], atol=1e-4)
    assert (mine[:, 0] == 0).all()
