"""The counting baselines, on logs small enough to count by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.baselines import (
    DAY_S,
    Baseline,
    FactorModel,
    History,
    decayed,
    gated_counts,
    half_lives,
    history_frequency,
    item_to_item,
    last_touched,
    markov,
    most_popular,
    session_counts,
    session_neighbours,
    tune,
    window_baselines,
)
from model.evaluation import trees
from model.events import EventBatch, Kind
from model.metrics import ndcg_by_user
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


def test_decayed_counts_halve() -> None:
    score = decayed(history(TOUCHES), 10 * DAY_S)
    np.testing.assert_allclose(score[0, 1], 2**-5 + 2**-4, rtol=1e-6)
    np.testing.assert_allclose(score[0, 2], 0.5, rtol=1e-6)
    assert (score[:, 0] == 0).all()


def test_later_steps_of_a_session_count_less() -> None:
    minutes = 1 / (24 * 60)
    touches = [(0, 1, 5.0), (0, 2, 5.0), (0, 1, 5 - 10 * minutes), (0, 1, 5 - 50 * minutes)]
    score = session_counts(history(touches), (np.inf, 0.25))
    assert score[0, 1] == pytest.approx(1 + 0.25 + 1)  # 40 minutes end a session
    assert score[0, 2] == pytest.approx(1)


def test_the_gate_opens_with_the_users_events() -> None:
    score = gated_counts(history([(0, 1, 5.0), *[(1, 1, 5.0)] * 9]), (np.inf, 1.0))
    assert score[0, 1] == pytest.approx(0.5)
    assert score[1, 1] == pytest.approx(0.9)


@pytest.mark.parametrize("categories", [5, 40])  # fewer and more than users
def test_item_to_item_is_the_cosine_of_the_users(categories: int) -> None:
    touches = [(0, 1, 9.0), (0, 2, 8.0), (1, 1, 7.0), (1, 2, 6.0), (2, 1, 5.0), (3, 3, 4.0)]
    score = item_to_item(history(touches, users=6, categories=categories), (np.inf, 0.0))
    together = 2 / np.sqrt(3 + 1) / np.sqrt(2 + 1)  # users of both, over the root of each, damped
    assert score[2, 2] == pytest.approx(together, rel=1e-5)
    assert score[2, 3] == pytest.approx(0.0, abs=1e-6)
    assert score[3].max() == pytest.approx(0.0, abs=1e-6)
    assert score[2, 1] == pytest.approx(0.0, abs=1e-6)  # itself says nothing
    own = item_to_item(history(touches, users=6, categories=categories), (np.inf, 1.0))
    assert own[3, 3] == pytest.approx(1.0)


def test_markov_follows_what_came_after_the_last() -> None:
    touches = [(0, 1, 9.0), (0, 2, 8.0), (1, 1, 7.0), (1, 3, 6.0), (2, 3, 5.0), (2, 1, 4.0)]
    score = markov(history(touches), (0.5, 0.0))
    # after 1 came 2 once and 3 once, after 3 came 1 once; shares are damped by one
    np.testing.assert_allclose(score[2], [0, 0.5 * 0.5, 1 / 3, 1 / 3, 0])
    assert markov(history(touches), (0.5, 2.0))[2, 1] == pytest.approx(0.25 + 2.0)


def test_session_neighbours_hold_what_others_sessions_held() -> None:
    touches = [(0, 1, 9.0), (0, 2, 9.0), (1, 3, 8.0), (1, 4, 8.0), (2, 1, 7.0)]
    score = session_neighbours(history(touches), (1, 0.0))
    assert score[2, 2] == pytest.approx(1 / np.sqrt(2), rel=1e-5)
    assert score[2, 3] == 0.0
    assert score[0].max() == 0.0  # nobody else's session is like theirs, and their own is left out


def test_tuning_finds_what_helps() -> None:
    # what was touched lately comes again: short half-lives must win over none
    touches = sorted(
        [(u, 1, 90.0 - i) for u in range(20) for i in range(5)]
        + [(u, 2 + u % 3, 35.0) for u in range(20)]
        + [(u, 2 + u % 3, 20.0) for u in range(20)],
        key=lambda touch: -touch[2],
    )
    lives = half_lives(30 * DAY_S)
    chosen, _ = tune(history(touches, 20, 6), 30 * DAY_S, decayed, lives)
    assert chosen < np.inf


@pytest.mark.parametrize("baseline", window_baselines(30 * DAY_S), ids=lambda each: each.name)
def test_a_baseline_beats_popularity_where_users_differ(baseline: Baseline) -> None:
    random = np.random.default_rng(0)
    taste = random.integers(1, 10, (60, 3))
    touches = [
        (u, int(random.choice(taste[u])), float(day)) for day in range(95, 0, -5) for u in range(60)
    ]
    known = history(touches, 60, 20)
    label = np.zeros((60, 20), dtype=bool)
    label[np.arange(60)[:, None], taste] = True
    ndcg = {
        "popular": ndcg_by_user(most_popular(known, 30 * DAY_S), label).mean(),
        "ours": ndcg_by_user(baseline.tuned(known, 30 * DAY_S), label).mean(),
    }
    assert ndcg["ours"] > ndcg["popular"] + 0.1


def test_the_factor_model_counts_its_table() -> None:
    """40 users touch one of two categories in both windows, one of whom returns to it."""
    touches = [(u, 1 + u % 2, 40.0) for u in range(40)] + [(u, 1 + u % 2, 5.0) for u in range(10)]
    known = history(touches, 40, 4)
    model = FactorModel.fitted(known, 30 * DAY_S)
    own = int(np.searchsorted([0.01, 0.1, 0.3, 0.7], 2 ** (-10 / 30), side="right"))
    seen = model.table[own].ravel()
    # 40 pairs that were touched, 10 came again: drawn towards the mean by 20 pairs, twice
    mean = (10 + 1) / (120 + 2)
    parent = (10 + 20 * mean) / (40 + 20)
    assert np.isclose(seen, (10 + 20 * parent) / (40 + 20)).any()
    p = model.probabilities(known, 30 * DAY_S)
    assert ((p[:, 1:] > 0) & (p[:, 1:] < 1)).all()
    assert (p[:, 0] == 0).all()
    assert p[0, 1] > p[0, 2]


def test_hand_features_are_the_same_when_a_kind_of_event_comes_late() -> None:
    random = np.random.default_rng(0)
    days = np.sort(random.uniform(0.0, 90.0, 2000))[::-1]
    touches = [
        (int(u), int(c), float(d))
        for u, c, d in zip(*random.integers(0, 4, (2, 2000)), days, strict=True)
    ]
    found = history(touches, users=4)
    late = found.steps.time_ms > (CUTOFF_S - 10 * DAY_S) * 1000
    kind = np.where(late, Kind.FAVOURITE, found.steps.kind)
    found = replace(found, steps=replace(found.steps, kind=kind))

    machine = trees.learned(found, 30 * DAY_S, np.arange(4))

    assert machine.blend.shape == (4, 5)
    assert ((machine.trees >= 0) & (machine.trees <= 1)).all()
