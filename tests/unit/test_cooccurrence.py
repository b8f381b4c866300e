"""What goes with what: the factors equal the closed form, and are used where they help."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.cooccurrence import count_together, following
from model.counting import by_user
from model.events import EventBatch
from model.interest_lstm import InterestLSTM, NetworkSize
from model.learning import COUNTERS, LearningSettings, count_logits, fit_counters
from model.tuning import ProfileChoice, choose_profile, set_profile, window_merits
from model.windows import Decay, UserSteps, Windows, cutoff_windows
from tests.event_batches import clicks

CATEGORIES = 13
DAY_S = 86400
HALF_LIFE_S = np.array([1.0, 7.0, 30.0]) * DAY_S
SIZE = NetworkSize(items=5, categories=CATEGORIES, hidden=8)


def touches(seed: int, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    """400 users touch six of twelve categories; grouped users stay within a half of them."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(400), 6)
    half = random.integers(0, 2, 400)[user] * 6 if grouped else random.integers(0, 2, 2400) * 6
    return user, 1 + half + random.integers(0, 6, 2400)


def test_with_all_vectors_the_table_is_that_of_ease() -> None:
    user, category = touches(0, grouped=True)
    category[::7] = 0  # steps without a category say nothing
    together = count_together(user, category, CATEGORIES, size=12)
    source, target = together.factors(ridge=2.0, damping=0.0)
    touched = np.zeros((400, CATEGORIES))
    touched[user, category] = 1
    touched = touched[:, 1:]
    ridge = 2.0 * np.linalg.eigvalsh(touched.T @ touched)[0]
    inverse = np.linalg.inv(touched.T @ touched + ridge * np.eye(12))
    expected = -inverse / np.diag(inverse)
    table = (source @ target.T)[1:, 1:]
    np.fill_diagonal(expected, 0)
    np.fill_diagonal(table, 0)
    np.testing.assert_allclose(table, expected, atol=1e-3)
    assert not source[0].any()


def test_few_vectors_keep_what_matters_most() -> None:
    user, category = touches(1, grouped=True)
    source, target = count_together(user, category, CATEGORIES, size=2).factors(1.0, 0.0)
    table = (source @ target.T)[1:, 1:]
    same = np.zeros((12, 12), dtype=bool)
    same[:6, :6] = same[6:, 6:] = True
    np.fill_diagonal(same, False)
    other = np.zeros((12, 12), dtype=bool)
    other[:6, 6:] = other[6:, :6] = True
    assert table[same].min() > table[other].max()


def test_damping_divides_by_popularity() -> None:
    user, category = touches(2, grouped=True)
    together = count_together(user, category, CATEGORIES, size=6)
    _, plain = together.factors(1.0, 0.0)
    _, damped = together.factors(1.0, 1.0)
    np.testing.assert_allclose(
        damped[1:] * (together.share[1:, None] + 1e-4), plain[1:], rtol=1e-4, atol=1e-6
    )


def windows_of(user: np.ndarray, category: np.ndarray) -> tuple[EventBatch, Windows]:
    """Six steps a user a day apart, and the windows after the fourth."""
    place = np.arange(len(user)) % 6
    order = np.argsort(place, kind="stable")
    batch = clicks(user[order].tolist(), category[order].tolist())
    fields = {**batch.__dict__, "time_ms": (1 + place[order]) * DAY_S * 1000}
    steps = by_user(EventBatch(**fields))
    users = UserSteps(steps)
    return steps, cutoff_windows(users, int(4.5 * DAY_S), Decay(HALF_LIFE_S), 10 * DAY_S)


def choice(grouped: bool) -> tuple[ProfileChoice, float, float]:
    """What is chosen, and the NDCG@10 of the counters before and after."""
    torch.manual_seed(0)
    network = InterestLSTM(SIZE)
    steps, windows = windows_of(*touches(3, grouped))
    _, later = windows_of(*touches(4, grouped))
    fit_counters(
        network,
        windows,
        LearningSettings(counter_steps=60),
        np.random.default_rng(0),
        lambda *_: None,
        0.1,
        0.005,
    )
    before, _ = window_merits(network, later)
    together = count_together(steps.user, steps.category, CATEGORIES, size=32)
    chosen = choose_profile(network, together, windows, later)
    return chosen, before, window_merits(network, later)[0]


def test_half_of_the_merit_is_that_of_categories_without_a_count() -> None:
    """All is found where the user has been, and nothing beyond."""
    steps, windows = windows_of(np.repeat(0, 6), np.array([1, 1, 1, 1, 1, 2]))
    network = InterestLSTM(NetworkSize(items=4, categories=30, hidden=8))
    set_profile(
        network, count_together(steps.user, steps.category, 30, size=32), ProfileChoice(), windows
    )
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        network.trend.copy_(-torch.arange(30.0))
    first, second = 1.0, 1 / np.log2(3)
    assert window_merits(network, windows)[0] == pytest.approx((1 + 1) / 2)
    with torch.no_grad():
        network.trend[2] = -40.0
    assert window_merits(network, windows)[0] == pytest.approx(first / (first + second) / 2)


def test_what_follows_a_profile_is_regressed_on_it() -> None:
    """Category 2 follows where the first number is high, 3 where it is low, 1 anywhere."""
    random = np.random.default_rng(0)
    profiles = random.normal(size=(20_000, 2)).astype(np.float32)
    p = np.full((len(profiles), 4), 0.3)
    p[:, 0] = 0.0
    p[:, 2] += 0.1 * np.clip(profiles[:, 0], -2, 2)
    p[:, 3] -= 0.1 * np.clip(profiles[:, 0], -2, 2)
    labels = np.nonzero(random.random(p.shape) < p)
    target = following(profiles, labels, 4, ridge=0.01, damping=0.0)
    np.testing.assert_allclose(target[1:, 0], [0.0, 0.1, -0.1], atol=0.015)
    np.testing.assert_allclose(target[:, 1], 0.0, atol=0.015)
    held = following(profiles, labels, 4, ridge=9.0, damping=0.0)
    np.testing.assert_allclose(held, target * 1.01 / 10, atol=1e-3)
    rare = following(profiles, labels, 4, ridge=0.01, damping=1.0)
    np.testing.assert_allclose(rare[2], target[2] / 0.3, rtol=0.05)
    assert not following(profiles[:0], (labels[0][:0], labels[1][:0]), 4, 1.0, 0.0).any()


def test_the_mean_profile_says_nothing() -> None:
    torch.manual_seed(0)
    network = InterestLSTM(SIZE)
    steps, windows = windows_of(*touches(3, grouped=True))
    together = count_together(steps.user, steps.category, CATEGORIES, size=32)
    set_profile(network, together, ProfileChoice(ridge=1.0, damping=0.5, scale=0.4), windows)
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        said = count_logits(network, windows.counts, np.arange(len(windows))).numpy()[:, 1:]
    assert np.isclose(said.std(), 0.4, rtol=1e-3)
    assert np.abs(said.mean(0)).max() < 1e-4


def test_the_profile_is_used_where_categories_go_together() -> None:
    chosen, before, after = choice(grouped=True)
    assert chosen.scale > 0
    assert after > before + 0.02


def test_the_profile_adds_little_where_nothing_goes_together() -> None:
    chosen, before, after = choice(grouped=False)
    assert chosen.scale < choice(grouped=True)[0].scale
    assert after >= before - 0.02


def test_labels_are_of_the_target_alone() -> None:
    batch = clicks([0, 0, 0, 0], [1, 2, 3, 4])
    fields = {
        **batch.__dict__,
        "time_ms": np.array([1, 2, 3, 4]) * DAY_S * 1000,
        "event_type": np.array([0, 2, 0, 2]),
    }
    steps = EventBatch(**fields)
    for target, expected in ((None, [2, 3, 4]), (2, [2, 4])):
        users = UserSteps(steps, target)
        windows = cutoff_windows(users, int(1.5 * DAY_S), Decay(HALF_LIFE_S), 10 * DAY_S)
        assert windows.labels.category.tolist() == expected
        assert windows.counts.category.tolist() == [1]
