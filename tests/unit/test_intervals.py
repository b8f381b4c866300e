"""Intervals of stated interests: the distribution by hand, what is learned, and what is held."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest

from model.beta_binomial import chances, count_interval
from model.checkpoint import Checkpoint, load, renamed, save
from model.errors import CheckpointError
from model.evaluation.intervals import coverage_table, coverages
from model.interests import interval
from model.reliability import GROUP_PAIRS, Cases, fit_reliability, grouped
from tests.checkpoints import tiny_checkpoint

SPREAD = 0.4


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint()


def test_chances_of_the_two_ends() -> None:
    even = chances(np.array([0.5]), np.array([1 / 3]), 9)
    np.testing.assert_allclose(even, np.full((1, 10), 0.1))  # Beta(1, 1): each count alike
    sure = chances(np.array([0.2]), np.array([0.0]), 12)[0]
    binomial = [comb(12, h) * 0.2**h * 0.8 ** (12 - h) for h in range(13)]
    np.testing.assert_allclose(sure, binomial, rtol=1e-3)


def test_an_interval_is_no_longer_than_it_must_be() -> None:
    mean = np.array([0.002, 0.05, 0.3, 0.5, 0.97])
    correlation = np.array([0.0, 0.01, 0.03, 0.001, 0.05])
    low, high = count_interval(mean, correlation, 100, 0.9)
    for chance, first, last in zip(chances(mean, correlation, 100), low, high, strict=True):
        assert chance[first : last + 1].sum() >= 0.9
        shorter = chance[first + 1 : last + 1].sum(), chance[first:last].sum()
        assert max(shorter) < 0.9
    assert low[0] == 0


def _cases(spread: float, seed: int) -> Cases:
    """Groups of pairs with like probabilities; each has its own shift in log-odds."""
    random = np.random.default_rng(seed)
    p = np.repeat(np.sort(random.beta(1.5, 8, 600)), GROUP_PAIRS)
    logit = np.log(p / (1 - p)) + np.repeat(random.normal(0, spread, 600), GROUP_PAIRS)
    return p, random.random(len(p)) < 1 / (1 + np.exp(-logit))


def test_the_spread_of_groups_is_found() -> None:
    reliability = fit_reliability(_cases(SPREAD, 0))
    assert reliability.shape == (15, 4)
    assert (np.diff(reliability[:, 0]) > 0).all()
    np.testing.assert_allclose(reliability[5:, 1], SPREAD, rtol=0.3)
    assert reliability[:, 2].sum() == 600 * GROUP_PAIRS
    rate = reliability[:, 3] / reliability[:, 2]
    np.testing.assert_allclose(rate, reliability[:, 0], atol=0.03)
    assert fit_reliability(_cases(0.0, 1))[5:, 1].mean() < 0.1
    assert fit_reliability((np.full(30, 0.2), np.ones(30, dtype=bool))).shape == (0, 4)


def test_nine_of_ten_later_groups_are_inside(checkpoint: Checkpoint) -> None:
    reliability = fit_reliability(_cases(SPREAD, 2))
    learned = replace(
        checkpoint, statistics=replace(checkpoint.statistics, reliability=reliability)
    )
    mean, share = grouped(_cases(SPREAD, 3), GROUP_PAIRS)
    inside = []
    for of in (learned, checkpoint):
        low, high = interval(mean, of)
        inside.append(float(((share >= low - 1e-9) & (share <= high + 1e-9)).mean()))
    assert 0.88 < inside[0] < 0.96  # counts are whole, so that a little more than 0.9 are
    assert inside[1] < 0.85  # chance alone does not explain it


def test_an_interval_keeps_the_shape_and_grows_with_the_spread(checkpoint: Checkpoint) -> None:
    p = np.array([[0.01, 0.2], [0.5, 0.99]])
    low, high = interval(p, checkpoint)
    assert low.shape == high.shape == p.shape
    assert ((low <= p) & (p <= high) & (low >= 0) & (high <= 1)).all()
    bins = np.array([[0.1, 0.2, 100, 10], [0.4, 0.6, 100, 40]], np.float32)
    wide = replace(checkpoint, statistics=replace(checkpoint.statistics, reliability=bins))
    wider_low, wider_high = interval(p, wide)
    assert (wider_high - wider_low)[1, 0] > (high - low)[1, 0]
    more_low, more_high = interval(p, wide, 10_000)
    assert (more_high - more_low < wider_high - wider_low)[:, 1].all()
    assert [each.shape for each in interval(p[:0], wide)] == [(0, 2), (0, 2)]


def test_a_checkpoint_keeps_its_reliability_or_has_none(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    save(checkpoint, tmp_path / "old", "")
    assert len(load(tmp_path / "old").statistics.reliability) == 0
    bins = np.array([[0.1, 0.2, 100, 10], [0.4, 0.6, 100, 40]], np.float32)
    known = renamed(
        replace(checkpoint, statistics=replace(checkpoint.statistics, reliability=bins))
    )
    assert known.version != checkpoint.version
    assert known.number == checkpoint.number  # rows stay valid
    save(known, tmp_path / "new", "")
    np.testing.assert_array_equal(load(tmp_path / "new").statistics.reliability, bins)


@pytest.mark.parametrize(
    "bins",
    [
        [[0.4, 0.2, 100, 10], [0.1, 0.6, 100, 40]],
        [[0.4, -0.2, 100, 10]],
        [[1.4, 0.2, 100, 10]],
        [[0.4, np.nan, 100, 10]],
        [[0.4, 0.2, 100]],
        [0.4, 0.2, 100, 10],
    ],
)
def test_a_damaged_reliability_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, bins: list[float]
) -> None:
    statistics = replace(checkpoint.statistics, reliability=np.array(bins, np.float32))
    save(renamed(replace(checkpoint, statistics=statistics)), tmp_path, "")
    with pytest.raises(CheckpointError):
        load(tmp_path)


def test_coverage_is_counted_by_groups(checkpoint: Checkpoint) -> None:
    random = np.random.default_rng(4)
    p = random.beta(2, 5, 3000)
    honest, wrong = random.random(3000) < p, random.random(3000) < np.minimum(2 * p, 1)
    found = [
        (0, coverages((p, honest), checkpoint)),
        (86_400_000, coverages((p, wrong), checkpoint)),
    ]
    assert [each.pairs for _, parts in found for each in parts] == [100, 200, 100, 200]
    table, figures = coverage_table(found)
    assert [row[0] for row in table.rows] == ["1970-01-01"] * 2 + ["1970-01-02"] * 2 + ["all"] * 2
    assert table.rows[0][2] == "30"
    assert float(table.rows[0][4]) > 0.8
    assert float(table.rows[2][4]) < 0.3
    both = [float(table.rows[i][4]) for i in (0, 2)]
    assert figures["intervals: groups of 100"] == pytest.approx(np.mean(both))
    few = coverage_table([(0, coverages((p[:20], honest[:20]), checkpoint))])[0]
    assert few.rows[0][2] in {"0", "20"}
