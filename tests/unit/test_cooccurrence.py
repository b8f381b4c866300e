"""What goes with what: the factors make the table of lifts, and are used where they help."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.cooccurrence import RATE_FLOOR, count_together
from model.counting import TOGETHER_PRIOR, by_user
from model.events import EventBatch
from model.interest_lstm import InterestLSTM, NetworkSize
from model.learning import (
    COUNTERS,
    LearningSettings,
    count_logits,
    fit_counters,
    window_loss,
)
from model.tuning import ProfileChoice, choose_profile, merits, set_profile, window_merits
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


def steps_of(user: np.ndarray, category: np.ndarray) -> EventBatch:
    return clicks(user.tolist(), category.tolist())


def test_lift_is_how_much_oftener_than_by_chance() -> None:
    """Of two users one touches 1 and 2, the other 3, then nothing named, then 1."""
    found = count_together(steps_of(np.array([0, 0, 1, 1, 1]), np.array([1, 2, 3, 0, 1])), 5)
    pairs = list(zip(found.pairs.source.tolist(), found.pairs.target.tolist(), strict=True))
    assert pairs == [(1, 2), (1, 3), (2, 1), (3, 1)]
    near_one = 1 / (2 + TOGETHER_PRIOR)  # 2 and 3 are near 1 once each, and near nothing else
    near_other = 1 / (1 + TOGETHER_PRIOR)
    share = np.array([near_one, near_one, near_other, near_other])
    np.testing.assert_allclose(found.pairs.weight, share, rtol=1e-6)
    chance = np.array([1 / 4, 1 / 4, 2 / 4, 2 / 4]) + RATE_FLOOR
    np.testing.assert_allclose(found.lift, share / chance, rtol=1e-6)
    neighbour, near = found.neighbours(3)
    assert neighbour.tolist() == [[0, 0, 0], [2, 3, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(near[1:3, 0], [near_one, near_other], rtol=1e-6)


def test_all_factors_make_the_table_of_lifts() -> None:
    together = count_together(steps_of(*touches(0, grouped=True)), CATEGORIES)
    source, target = together.factors(level=0.5, size=CATEGORIES)
    expected = np.zeros((CATEGORIES, CATEGORIES))
    place = together.pairs.source, together.pairs.target
    expected[place] = np.log1p(np.exp(0.5) * together.lift)
    assert expected.any()
    np.testing.assert_allclose(source @ target.T, expected, atol=1e-3)
    assert source.shape == target.shape == (CATEGORIES, CATEGORIES)
    assert not source[0].any()


def test_few_factors_keep_what_matters_most() -> None:
    together = count_together(steps_of(*touches(1, grouped=True)), CATEGORIES)
    source, target = together.factors(level=1.0, size=2)
    table = (source @ target.T)[1:, 1:]
    same = np.zeros((12, 12), dtype=bool)
    same[:6, :6] = same[6:, 6:] = True
    np.fill_diagonal(same, False)
    other = np.zeros((12, 12), dtype=bool)
    other[:6, 6:] = other[6:, :6] = True
    assert table[same].min() > table[other].max()


def test_more_factors_than_categories_are_left_empty() -> None:
    together = count_together(steps_of(*touches(2, grouped=True)), CATEGORIES)
    source, target = together.factors(0.0, 32)
    assert source.shape == (CATEGORIES, 32)
    assert not source[:, CATEGORIES:].any()
    assert not target[:, CATEGORIES:].any()


def test_nothing_goes_with_nothing() -> None:
    source, target = count_together(steps_of(np.arange(4), np.arange(4)), 4).factors(1.0, 2)
    assert not source.any()
    assert not target.any()


def test_equal_steps_give_equal_factors_whatever_was_drawn_before() -> None:
    together = count_together(steps_of(*touches(3, grouped=True)), CATEGORIES)
    first = together.factors(1.0, 4)
    torch.rand(5)
    drawn = torch.random.get_rng_state()
    second = together.factors(1.0, 4)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(drawn, torch.random.get_rng_state())


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
    together = count_together(steps, CATEGORIES)
    chosen = choose_profile(network, together, windows, later)
    return chosen, before, window_merits(network, later)[0]


def test_half_of_the_merit_is_that_of_categories_without_a_count() -> None:
    """All is found where the user has been, and nothing beyond."""
    steps, windows = windows_of(np.repeat(0, 6), np.array([1, 1, 1, 1, 1, 2]))
    network = InterestLSTM(NetworkSize(items=4, categories=30, hidden=8))
    set_profile(network, count_together(steps, 30), ProfileChoice(), windows)
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        network.trend.copy_(-torch.arange(30.0))
    first, second = 1.0, 1 / np.log2(3)
    assert window_merits(network, windows)[0] == pytest.approx((1 + 1) / 2)
    with torch.no_grad():
        network.trend[2] = -40.0
    assert window_merits(network, windows)[0] == pytest.approx(first / (first + second) / 2)


def test_the_loss_is_that_of_the_best_level() -> None:
    """Logits that are all too high by as much lose nothing by it: calibration takes it out."""
    _, windows = windows_of(*touches(5, grouped=True))
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(size=(len(windows), CATEGORIES)).astype(np.float32))
    ndcg, loss = merits(logits, windows)
    for shift in (-6.0, 3.0):
        assert merits(logits + shift, windows) == pytest.approx((ndcg, loss), rel=1e-4)
    rows = np.arange(len(windows))
    tried = [
        float(window_loss(logits + shift, windows.labels, rows, 0.0))
        for shift in np.linspace(-6, 6, 241).tolist()
    ]
    assert loss == pytest.approx(min(tried), rel=1e-3)


def test_the_mean_profile_says_nothing() -> None:
    torch.manual_seed(0)
    network = InterestLSTM(SIZE)
    steps, windows = windows_of(*touches(3, grouped=True))
    set_profile(
        network, count_together(steps, CATEGORIES), ProfileChoice(level=1.0, weight=0.4), windows
    )
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        said = count_logits(network, windows.counts, np.arange(len(windows))).numpy()[:, 1:]
    assert said.std() > 0.05
    assert np.abs(said.mean(0)).max() < 1e-4


def test_neighbours_speak_for_what_the_user_has_not_touched() -> None:
    """By the share of what is near each touched category, and of that category at the user."""
    torch.manual_seed(0)
    network = InterestLSTM(SIZE)
    steps, windows = windows_of(*touches(3, grouped=True))
    together = count_together(steps, CATEGORIES)
    set_profile(network, together, ProfileChoice(near_level=0.3, near_weight=0.6), windows)
    rows = np.arange(len(windows))
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        network.trend.normal_(-2.0)
        said = count_logits(network, windows.counts, rows).numpy()
    table = np.zeros((CATEGORIES, CATEGORIES))
    table[together.pairs.source, together.pairs.target] = together.pairs.weight
    row, category, count = windows.counts.of(rows)
    share = np.zeros((len(windows), CATEGORIES))
    share[row, category] = count[:, -1]
    share /= share.sum(1, keepdims=True)
    rate = np.exp(network.trend.detach().numpy())
    expected = 0.6 * np.log1p(np.exp(0.3) * (share @ table) / rate)
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-5)
    assert (said[:, 1:] > 0).any(0).all()
    set_profile(network, together, ProfileChoice(), windows)
    assert not network.near_category.any()  # a table that says nothing takes no place


def test_the_profile_is_used_where_categories_go_together() -> None:
    chosen, before, after = choice(grouped=True)
    assert chosen.weight > 0 or chosen.near_weight > 0
    assert after > before + 0.02


def test_the_profile_adds_little_where_nothing_goes_together() -> None:
    _, before, after = choice(grouped=False)
    _, grouped_before, grouped_after = choice(grouped=True)
    assert after - before < (grouped_after - grouped_before) / 2
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
