"""What goes with what, and how much of it is kept beside what the user has done."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.cooccurrence import ITEM_PRIOR, RATE_FLOOR, CoOccurrence, count_together
from model.counting import TOGETHER_DECAY, TOGETHER_PRIOR, by_user
from model.events import EventBatch
from model.interest_lstm import NEAR_DECAY, InterestLSTM, NetworkSize
from model.learning import (
    COUNTERS,
    LearningSettings,
    Validation,
    count_logits,
    fit_counters,
    profile_logits,
    window_loss,
)
from model.training import no_progress
from model.tuning import (
    Combination,
    combine,
    fit_combination,
    merits,
    set_tables,
    window_merits,
)
from model.windows import Decay, UserSteps, cutoff_windows
from tests.event_batches import clicks

CATEGORIES = 13
DAY_S = 86400
HALF_LIFE_S = np.array([1.0, 7.0, 30.0]) * DAY_S
SIZE = NetworkSize(items=CATEGORIES, categories=CATEGORIES, hidden=8)


def touches(seed: int, grouped: bool) -> tuple[np.ndarray, np.ndarray]:
    """400 users touch six of twelve categories; grouped users stay within a half of them."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(400), 6)
    half = random.integers(0, 2, 400)[user] * 6 if grouped else random.integers(0, 2, 2400) * 6
    return user, 1 + half + random.integers(0, 6, 2400)


def steps_of(user: np.ndarray, category: np.ndarray) -> EventBatch:
    return clicks(user.tolist(), category.tolist())


def together_of(steps: EventBatch) -> CoOccurrence:
    """Each category has one item, of the same number."""
    return count_together(replace(steps, item=steps.category), CATEGORIES, CATEGORIES)


def test_lift_is_how_much_oftener_than_by_chance() -> None:
    """Of two users one touches 1 and 2, the other 3, then nothing named, then 1."""
    found = together_of(steps_of(np.array([0, 0, 1, 1, 1]), np.array([1, 2, 3, 0, 1])))
    pairs = list(zip(found.pairs.source.tolist(), found.pairs.target.tolist(), strict=True))
    assert pairs == [(1, 2), (1, 3), (2, 1), (3, 1)]
    near_one = 1 / (2 + TOGETHER_PRIOR)  # 2 and 3 are near 1 once each, and near nothing else
    near_other = 1 / (1 + TOGETHER_PRIOR)
    share = np.array([near_one, near_one, near_other, near_other])
    np.testing.assert_allclose(found.pairs.weight, share, rtol=1e-6)
    chance = np.array([1 / 4, 1 / 4, 2 / 4, 2 / 4]) + RATE_FLOOR
    np.testing.assert_allclose(found.lift, share / chance, rtol=1e-6)
    neighbour, near = found.neighbours(3)
    assert neighbour[:5].tolist() == [[0, 0, 0], [2, 3, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_allclose(near[1:3, 0], [near_one, near_other], rtol=1e-6)


def test_what_is_near_an_item_is_of_other_categories() -> None:
    """Items 1 and 2 are of category 1, item 3 of category 2; item 2 is not beside category 1."""
    steps = clicks([0, 0, 0, 1, 1], category=[1, 1, 2, 2, 1], item=[1, 2, 3, 3, 1])
    category, share = count_together(steps, 4, 5).item_neighbours(5, 2)
    assert category.tolist() == [[0, 0], [2, 0], [2, 0], [1, 0], [0, 0]]
    both = TOGETHER_DECAY + 1  # two steps away at user 0, one at user 1
    one = [both / (both + ITEM_PRIOR), 1 / (1 + ITEM_PRIOR), (1 + both) / (1 + both + ITEM_PRIOR)]
    np.testing.assert_allclose(share[1:4, 0], one, rtol=1e-6)


def test_all_factors_make_the_table_of_lifts() -> None:
    together = together_of(steps_of(*touches(0, grouped=True)))
    source, target = together.factors(level=0.5, size=CATEGORIES)
    expected = np.zeros((CATEGORIES, CATEGORIES))
    place = together.pairs.source, together.pairs.target
    expected[place] = np.log1p(np.exp(0.5) * together.lift)
    assert expected.any()
    np.testing.assert_allclose(source @ target.T, expected, atol=1e-3)
    assert source.shape == target.shape == (CATEGORIES, CATEGORIES)
    assert not source[0].any()


def test_few_factors_keep_what_matters_most() -> None:
    together = together_of(steps_of(*touches(1, grouped=True)))
    source, target = together.factors(level=1.0, size=2)
    table = (source @ target.T)[1:, 1:]
    same = np.zeros((12, 12), dtype=bool)
    same[:6, :6] = same[6:, 6:] = True
    np.fill_diagonal(same, False)
    other = np.zeros((12, 12), dtype=bool)
    other[:6, 6:] = other[6:, :6] = True
    assert table[same].min() > table[other].max()


def test_more_factors_than_categories_are_left_empty() -> None:
    together = together_of(steps_of(*touches(2, grouped=True)))
    source, target = together.factors(0.0, 32)
    assert source.shape == (CATEGORIES, 32)
    assert not source[:, CATEGORIES:].any()
    assert not target[:, CATEGORIES:].any()


def test_nothing_goes_with_nothing() -> None:
    source, target = together_of(steps_of(np.arange(4), np.arange(4))).factors(1.0, 2)
    assert not source.any()
    assert not target.any()


def test_equal_steps_give_equal_factors_whatever_was_drawn_before() -> None:
    together = together_of(steps_of(*touches(3, grouped=True)))
    first = together.factors(1.0, 4)
    torch.rand(5)
    drawn = torch.random.get_rng_state()
    second = together.factors(1.0, 4)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert torch.equal(drawn, torch.random.get_rng_state())


def windows_of(user: np.ndarray, category: np.ndarray) -> tuple[EventBatch, Validation]:
    """Six steps a user a day apart, and the windows after the fourth."""
    place = np.arange(len(user)) % 6
    order = np.argsort(place, kind="stable")
    batch = clicks(user[order].tolist(), category[order].tolist())
    steps = by_user(replace(batch, time_ms=(1 + place[order]) * DAY_S * 1000))
    users = UserSteps(steps)
    windows = cutoff_windows(users, int(4.5 * DAY_S), Decay(HALF_LIFE_S), 10 * DAY_S)
    return steps, Validation(users, np.zeros(0, np.int64), windows)


def fitted(grouped: bool) -> tuple[InterestLSTM, EventBatch, Validation, Validation]:
    """A network with fitted counters, what they were fitted to, and as much of other users."""
    torch.manual_seed(0)
    network = InterestLSTM(SIZE)
    steps, first = windows_of(*touches(3, grouped))
    _, later = windows_of(*touches(4, grouped))
    settings, random = LearningSettings(counter_steps=60), np.random.default_rng(0)
    fit_counters(network, first.windows, settings, random, no_progress, 0.1, 0.005)
    return network, steps, first, later


def choice(grouped: bool) -> tuple[Combination, float, float]:
    """What is fitted, and the NDCG@10 of other users before and after."""
    network, steps, first, later = fitted(grouped)
    before, _ = window_merits(network, later.windows)
    together = together_of(steps)
    random = np.random.default_rng(0)
    combination = fit_combination(network, together, later, random, no_progress)
    combine(network, combination)
    set_tables(network, together, combination.profile, first.windows)
    rows = np.arange(len(later.windows))
    with torch.no_grad():
        logits = network.trend + count_logits(network, later.windows, rows)
        logits += profile_logits(network, later.windows, rows)
    return combination, before, merits(logits, later.windows)[0]


def test_half_of_the_merit_is_that_of_categories_without_a_count() -> None:
    """All is found where the user has been, and nothing beyond."""
    _, validation = windows_of(np.repeat(0, 6), np.array([1, 1, 1, 1, 1, 2]))
    network = InterestLSTM(NetworkSize(items=4, categories=30, hidden=8))
    with torch.no_grad():
        for name in COUNTERS:
            getattr(network, name).zero_()
        network.trend.copy_(-torch.arange(30.0))
    first, second = 1.0, 1 / np.log2(3)
    assert window_merits(network, validation.windows)[0] == pytest.approx((1 + 1) / 2)
    with torch.no_grad():
        network.trend[2] = -40.0
    found, _ = window_merits(network, validation.windows)
    assert found == pytest.approx(first / (first + second) / 2)


def test_the_loss_is_that_of_the_best_level() -> None:
    """Logits that are all too high by as much lose nothing by it: calibration takes it out."""
    windows = windows_of(*touches(5, grouped=True))[1].windows
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
    steps, validation = windows_of(*touches(3, grouped=True))
    set_tables(network, together_of(steps), 0.4, validation.windows)
    with torch.no_grad():
        rows = np.arange(len(validation.windows))
        said = profile_logits(network, validation.windows, rows).numpy()[:, 1:]
    assert said.std() > 0.05
    assert np.abs(said.mean(0)).max() < 1e-4


def test_what_is_near_recent_steps_is_mixed_with_what_the_user_does() -> None:
    """By the share of what is near each recent category and item, in the logarithm of one sum."""
    network, steps, _, later = fitted(grouped=True)
    together, windows = together_of(steps), later.windows
    set_tables(network, together, 0.0, windows)
    rows = np.arange(len(windows))
    row, category, count = windows.counts.of(rows)
    with torch.no_grad():
        network.near_level.copy_(torch.tensor([0.3, -0.2]))
        network.total_weight.zero_()
        network.count_weight.zero_()
        network.share_weight.fill_(0.6)
        said = count_logits(network, windows, rows).numpy()
        level = network.share_level.exp().numpy()
    share = np.zeros((len(windows), CATEGORIES))
    total = np.zeros((len(windows), 3))
    np.add.at(total, row, count)
    share[row, category] = (count / total[row]) @ level
    for pairs, of_kind in ((together.pairs, 0.3), (together.item_pairs, -0.2)):
        table = np.zeros((CATEGORIES, CATEGORIES))
        table[pairs.source, pairs.target] = pairs.weight
        for back in range(4):
            share += np.exp(of_kind) * NEAR_DECAY**back * table[windows.recent_item[:, back]]
    expected = 0.6 * np.log1p(share / np.exp(network.trend.detach().numpy()))
    np.testing.assert_allclose(said, expected, rtol=1e-4, atol=1e-5)
    assert (said[:, 1:] > 0).any(0).all()


def test_without_labels_nothing_is_combined() -> None:
    network, steps, _, later = fitted(grouped=True)
    windows = cutoff_windows(later.users, 20 * DAY_S, Decay(HALF_LIFE_S), DAY_S)
    assert len(windows) == 400
    none, random = replace(later, windows=windows), np.random.default_rng(0)
    combination = fit_combination(network, together_of(steps), none, random, no_progress)
    rows = np.arange(len(windows))
    with torch.no_grad():
        before = network.trend + count_logits(network, windows, rows)
        combine(network, combination)
        set_tables(network, together_of(steps), combination.profile, windows)
        after = network.trend + count_logits(network, windows, rows)
        after += profile_logits(network, windows, rows)
    assert network.near_share.any()
    torch.testing.assert_close(after, before)


def test_fitting_a_combination_leaves_the_network_as_it_is() -> None:
    network, steps, _, later = fitted(grouped=True)
    before = deepcopy(network.state_dict())
    random = np.random.default_rng(0)
    fit_combination(network, together_of(steps), later, random, no_progress)
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_what_is_near_is_used_where_categories_go_together() -> None:
    _, before, after = choice(grouped=True)
    assert after > before + 0.02


def test_little_is_added_where_nothing_goes_together() -> None:
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
