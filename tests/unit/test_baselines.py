"""The counting baselines, on logs small enough to count by hand."""

from __future__ import annotations

import numpy as np

from model.baselines import (
    DAY_S,
    DecayedCounts,
    History,
    history_frequency,
    last_items,
    last_touched,
    most_popular,
    popular_items,
    tune_decayed_counts,
)
from model.events import EventBatch
from tests.event_batches import clicks

CUTOFF_S = 100 * DAY_S


def history(touches: list[tuple[int, int, float]], users: int = 3, categories: int = 5) -> History:
    """Touches as (user, category, days before the cut-off), oldest first."""
    batch = clicks([u for u, *_ in touches], [c for _, c, _ in touches])
    time_ms = [int((CUTOFF_S - days * DAY_S) * 1000) for *_, days in touches]
    fields = {**batch.__dict__, "time_ms": np.array(time_ms)}
    return History(EventBatch(**fields), users, categories, CUTOFF_S)


TOUCHES = [(0, 1, 50.0), (0, 1, 40.0), (0, 2, 10.0), (1, 3, 5.0), (1, 2, 2.0), (0, 0, 1.0)]


def test_most_popular_counts_users_of_the_last_horizon() -> None:
    score = most_popular(history(TOUCHES), 30 * DAY_S)
    np.testing.assert_allclose(score[0], [0, 0, 2 / 3, 1 / 3, 0])
    assert (score == score[0]).all()


def test_last_touched_lists_the_latest_first_then_the_popular() -> None:
    score = last_touched(history(TOUCHES), 30 * DAY_S)
    assert np.argsort(-score[0], kind="stable").tolist()[:3] == [2, 1, 3]
    assert np.argsort(-score[1], kind="stable").tolist()[:2] == [2, 3]
    assert np.argsort(-score[2], kind="stable").tolist()[:2] == [2, 3]  # nobody: popular


def test_history_frequency_counts_all() -> None:
    score = history_frequency(history(TOUCHES), 30 * DAY_S)
    assert score[0, 1] == 2.0
    assert score[0, 1] > score[0, 2] > score[0, 3] > 0


def test_decayed_counts_halve_and_mix() -> None:
    score = DecayedCounts(10 * DAY_S, 0.5).scores(history(TOUCHES), 30 * DAY_S)
    np.testing.assert_allclose(score[0, 1], 2**-5 + 2**-4, rtol=1e-6)
    np.testing.assert_allclose(score[0, 2], 0.5 + 0.5 * 2 / 3, rtol=1e-6)
    assert (score[:, 0] == 0).all()


def test_tuning_looks_only_before_the_cutoff_and_finds_what_helps() -> None:
    # what was touched lately comes again: short half-lives must win over long ones
    touches = sorted(
        [(u, 1, 90.0 - i) for u in range(20) for i in range(5)]
        + [(u, 2 + u % 3, 35.0) for u in range(20)]
        + [(u, 2 + u % 3, 20.0) for u in range(20)],
        key=lambda touch: -touch[2],
    )
    chosen = tune_decayed_counts(history(touches, users=20, categories=6), 30 * DAY_S)
    assert chosen.half_life_s <= 30 * DAY_S


def test_item_lists() -> None:
    batch = clicks([0] * 6, [1] * 6, item=[4, 2, 2, 0, 3, 2])
    popular = popular_items(batch, 3)
    assert popular.tolist() == [2, 3, 4]
    assert last_items([5, 2, 5, 1], popular, 5) == [1, 5, 2, 3, 4]
    assert last_items([], popular, 2) == [2, 3]
