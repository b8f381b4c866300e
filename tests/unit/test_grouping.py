"""Categories that the same users touch come into one group."""

from __future__ import annotations

import numpy as np

from model.grouping import GROUPS, LEARNED_GROUPS, category_groups


def test_categories_of_the_same_users_come_together() -> None:
    rng = np.random.default_rng(0)
    taste = np.repeat(np.arange(4), 50)
    user = np.repeat(np.arange(200), 30)
    category = 1 + taste[user] * 20 + rng.integers(0, 20, len(user))
    group = category_groups(user, category, 100)
    homes = [set(group[1 + t * 20 : 21 + t * 20].tolist()) for t in range(4)]
    for t, home in enumerate(homes):
        for other in homes[t + 1 :]:
            assert not home & other
    assert (group >= 0).all()
    assert (group < GROUPS).all()


def test_categories_that_nobody_touched_spread_over_the_other_groups() -> None:
    group = category_groups(np.array([0, 1]), np.array([1, 2]), 200)
    assert set(group[3:].tolist()) == set(range(LEARNED_GROUPS, GROUPS))
    assert (category_groups(np.zeros(0, int), np.zeros(0, int), 5) >= LEARNED_GROUPS).all()


def test_equal_logs_and_a_sample_of_a_large_one_give_groups() -> None:
    rng = np.random.default_rng(1)
    user, category = rng.integers(0, 60_000, 90_000), rng.integers(1, 500, 90_000)
    first = category_groups(user, category, 500)
    assert first.tolist() == category_groups(user, category, 500).tolist()
