"""Fusion weights learned from what came next, and what a recent step carries of an item's score."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model import fusion
from model.checkpoint import LOOK_BACK, Checkpoint, RankingSettings
from model.fusion import START, fit_ranking
from model.held_lists import HeldLists
from model.ranking import NEIGHBOURS_OF_STEP, Reason, catalogue_scores, rank, recent_items
from model.state import StateBatch
from model.training import no_progress
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import random_log, run


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def rows(checkpoint: Checkpoint) -> StateBatch:
    return run(random_log(3, 4000, 400, checkpoint), 400, checkpoint, [])[0]


def _given(row: np.void, item: int, checkpoint: Checkpoint) -> np.ndarray:
    """What each recent step gives an item, by the definition in ranking.py: (J,)."""
    statistics, weights = checkpoint.statistics, checkpoint.ranking
    recent, _ = recent_items(np.array([row]))
    given = np.zeros(LOOK_BACK)
    for step, source in enumerate(recent[0].tolist()):
        if source == item:
            again = statistics.item_again[source]
            given[step] = weights.again[step] + weights.follows[step] * again
            continue
        near = statistics.neighbour_item[source, : NEIGHBOURS_OF_STEP[step]]
        at = np.flatnonzero(near == item)
        if source and len(at):
            follows, together = statistics.neighbour_follows, statistics.neighbour_together
            given[step] = weights.follows[step] * follows[source, at[0]]
            given[step] += weights.together[step] * together[source, at[0]]
    return given


def test_the_carrier_is_the_step_that_gives_most(checkpoint: Checkpoint, rows: StateBatch) -> None:
    now = rows["last_time_ms"]
    lists = rank(rows, now, checkpoint, 10)
    _, position = recent_items(rows)
    checked = {Reason.REPEATED: 0, Reason.VIEWED_TOGETHER: 0}
    for r in range(40):
        recent, _ = recent_items(rows[r : r + 1])
        for item, because, reason in zip(
            lists.item[r].tolist(), lists.because[r].tolist(), lists.reason[r], strict=True
        ):
            given = _given(rows[r], item, checkpoint)
            if because < 0:
                assert not given.any()
                continue
            step = int(np.flatnonzero(position[r] == because)[0])
            assert given[step] == pytest.approx(given.max(), rel=1e-5)
            own = recent[0, step] == item
            assert reason == (Reason.REPEATED if own else Reason.VIEWED_TOGETHER)
            checked[reason] += 1
    assert min(checked.values()) > 5


def test_a_step_carries_just_what_it_gives(checkpoint: Checkpoint, rows: StateBatch) -> None:
    """A score without the step: the amount without its part, everything else as it was."""
    now = rows["last_time_ms"]
    lists = rank(rows, now, checkpoint, 5)
    weights = checkpoint.ranking
    silent = replace(
        weights, follows=(0.0,) * LOOK_BACK, together=(0.0,) * LOOK_BACK, again=(0.0,) * LOOK_BACK
    )
    without = catalogue_scores(rows, now, replace(checkpoint, ranking=silent))
    for r in range(20):
        for item, score in zip(lists.item[r].tolist(), lists.score[r].tolist(), strict=True):
            amount = _given(rows[r], item, checkpoint).sum()
            part = weights.transition * np.log1p(amount)
            assert score == pytest.approx(float(without[r, item]) + part, abs=1e-3)


def _ndcg(checkpoint: Checkpoint, rows: StateBatch, target: np.ndarray, settings: object) -> float:
    tuned = replace(checkpoint, ranking=settings)
    hit = rank(rows, rows["last_time_ms"], tuned, 10).item == target[:, None]
    return float((hit / np.log2(np.arange(2, 12))).sum(1).mean())


@pytest.mark.parametrize("what", ["follows", "again"])
def test_weights_follow_what_came_next(checkpoint: Checkpoint, rows: StateBatch, what: str) -> None:
    recent, _ = recent_items(rows)
    held = rows[recent[:, 1] > 0]
    recent, _ = recent_items(held)
    if what == "again":  # the item before the last one comes back
        target = recent[:, 1]
    else:  # what best follows the last item
        target = checkpoint.statistics.neighbour_item[recent[:, 0], 0]
    known = (target > 0) & (target < checkpoint.vocabulary.first_item_bucket)
    held, target = held[known], target[known]
    first, rest = slice(0, len(held) // 2), slice(len(held) // 2, None)
    part = held[first]
    lists = HeldLists(part, part["last_time_ms"], target[first])
    learned = fit_ranking(checkpoint, lists, no_progress)
    again = fit_ranking(checkpoint, lists, no_progress)
    assert learned == again
    assert min((*learned.follows, *learned.together, *learned.again)) >= 0
    before = _ndcg(checkpoint, held[rest], target[rest], START)
    after = _ndcg(checkpoint, held[rest], target[rest], learned)
    assert after > before + 0.1
    assert after > 0.8
    if what == "again":
        assert learned.again[1] > 3 * max(learned.again[0], *learned.again[2:])


def test_without_a_target_among_the_candidates_the_settings_stay(
    checkpoint: Checkpoint, rows: StateBatch
) -> None:
    none = np.zeros(len(rows), np.int64)
    lists = HeldLists(rows, rows["last_time_ms"], none)
    kept = fit_ranking(checkpoint, lists, no_progress)
    assert kept == checkpoint.ranking


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_the_last_item_has_a_weight_of_its_own(
    checkpoint: Checkpoint, rows: StateBatch, share: float
) -> None:
    recent, _ = recent_items(rows)
    held = rows[(recent[:, 1] > 0) & (recent[:, 0] != recent[:, 1])]
    recent, _ = recent_items(held)
    comes_again = np.random.default_rng(5).random(len(held)) < share
    target = np.where(comes_again, recent[:, 0], recent[:, 1])
    named = (recent[:, :2] < checkpoint.vocabulary.first_item_bucket).all(1)

    def learned_from(used: np.ndarray) -> RankingSettings:
        part = held[used]
        return fit_ranking(
            checkpoint, HeldLists(part, part["last_time_ms"], target[used]), no_progress
        )

    learned = learned_from(named)
    others = learned_from(named & ~comes_again)
    assert others.last < learned.last
    tuned = replace(checkpoint, ranking=learned)
    lists = rank(held[named], held["last_time_ms"][named], tuned, 2).item
    first = (lists[:, 0] == recent[named, 0]).mean()
    assert first > 0.8 if share > 0.5 else first < 0.1


@pytest.mark.parametrize("better", ["apart", "together"])
def test_the_better_lists_decide_whether_the_last_item_is_learned_apart(
    better: str, checkpoint: Checkpoint, rows: StateBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    recent, _ = recent_items(rows)
    named = (recent[:, :2] < checkpoint.vocabulary.first_item_bucket).all(1) & (recent[:, 1] > 0)
    held, target = rows[named], np.where(np.arange(named.sum()) % 3, *recent[named, :2].T)
    fits: dict[str, RankingSettings] = {}
    real = fusion._fit

    def fit(*arguments: Any) -> RankingSettings:
        name = ("others", "apart", "together")[len(fits)]
        fits[name] = real(*arguments)
        return fits[name]

    monkeypatch.setattr(fusion, "_fit", fit)
    monkeypatch.setattr(fusion, "_ndcg", lambda *arguments: float(arguments[-1] is fits[better]))
    lists = HeldLists(held, held["last_time_ms"], target)
    assert fit_ranking(checkpoint, lists, no_progress) is fits[better]
    assert replace(fits["apart"], last=0.0) == replace(fits["others"], last=0.0)
    assert fits["apart"] != fits["together"]


def test_a_list_is_worth_what_the_place_of_its_target_is() -> None:
    weights = RankingSettings(
        lstm=1.0,
        transition=0.0,
        category=0.0,
        popularity=0.0,
        follows=(0.0,) * LOOK_BACK,
        together=(0.0,) * LOOK_BACK,
        again=(0.0,) * LOOK_BACK,
    )
    lstm = np.array([3, 2, 1, *range(12, 0, -1)], np.float32)
    linear = np.zeros((len(lstm), len(fusion.WEIGHTS) - 1), np.float32)
    linear[:, fusion.WEIGHTS.index("lstm")] = lstm
    steps = np.zeros((len(lstm), 3 * LOOK_BACK), np.float32)
    row = np.repeat([0, 1], [3, 12])
    for place, worth in ((3, 1.0), (5, 0.5), (14, 0.0)):
        hit = np.isin(np.arange(len(lstm)), [1, place])
        of_second = 1 / np.log2(3)
        found = fusion._ndcg(linear, steps, row, hit, weights)
        assert found == pytest.approx((of_second + worth) / 2)
