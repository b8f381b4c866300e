"""The map from log-odds to the log-odds that are stated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.spline_calibration import KNOTS, calibrated, fit_map, identity, knots_of

WANTED = np.array([0.5, 0.2, 0.9, 1.3, 0.8, 0.4, -0.7], np.float32)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-logits)))


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(3).normal(-1.0, 2.0, 200_000).astype(np.float32)


@pytest.fixture(scope="module")
def knots(logits: np.ndarray) -> np.ndarray:
    return knots_of(logits)


def stated(logits: np.ndarray, knots: np.ndarray, one: np.ndarray) -> np.ndarray:
    return calibrated(logits[None], knots, one[None])[0]


def test_fitting_finds_the_map_that_labels_were_drawn_by(
    logits: np.ndarray, knots: np.ndarray
) -> None:
    p = sigmoid(stated(logits, knots, WANTED))
    label = np.random.default_rng(4).random(len(p)) < p
    found = fit_map(logits, label, knots, identity(1)[0])
    np.testing.assert_allclose(found[2:5], WANTED[2:5], atol=0.1)  # the pieces of many pairs
    again = sigmoid(stated(logits, knots, found))
    assert np.abs(again - p).mean() < 0.004  # the identity is off by 0.25
    assert again.mean() == pytest.approx(label.mean(), rel=5e-3)


def test_slopes_are_not_negative(logits: np.ndarray, knots: np.ndarray) -> None:
    """Where less likely pairs come true more often, all are stated alike rather than turned."""
    label = np.random.default_rng(4).random(len(logits)) < sigmoid(-logits)
    *slopes, _ = fit_map(logits, label, knots, identity(1)[0])
    assert min(slopes) >= 0
    assert max(slopes) < 0.05


def test_a_few_pairs_move_the_map_little(knots: np.ndarray) -> None:
    unchanged = identity(1)[0]
    found = fit_map(np.array([-1.0, 2.0]), np.array([True, False]), knots, unchanged)
    assert (np.abs(found - unchanged) < 0.1).all()
    assert (found != unchanged).any()
    none = fit_map(np.zeros(0), np.zeros(0, bool), knots, WANTED)
    np.testing.assert_allclose(none, WANTED, rtol=1e-6)


def test_the_map_is_continuous_and_has_its_slopes(knots: np.ndarray) -> None:
    at = stated(knots, knots, WANTED)
    assert at[0] == pytest.approx(knots[0] + WANTED[-1])
    np.testing.assert_allclose(np.diff(at) / np.diff(knots), WANTED[1:KNOTS], rtol=1e-4)
    ends = knots[[0, -1]] + np.array([-2.0, 2.0], np.float32)
    beyond = stated(ends, knots, WANTED) - at[[0, -1]]
    np.testing.assert_allclose(beyond, WANTED[[0, KNOTS]] * [-2.0, 2.0], rtol=1e-4)


@given(st.lists(st.floats(-1e3, 1e3, width=32), max_size=9))
def test_the_identity_changes_nothing(values: list[float]) -> None:
    z = np.array(values, np.float32)[None]
    np.testing.assert_array_equal(calibrated(z, np.zeros(KNOTS, np.float32), identity(1)), z)


@given(
    st.lists(st.floats(0, 10), min_size=KNOTS + 1, max_size=KNOTS + 1),
    st.lists(st.floats(-20, 20), min_size=KNOTS, max_size=KNOTS).map(sorted),
    st.lists(st.floats(-100, 100), min_size=2, max_size=20).map(sorted),
)
def test_what_is_likelier_stays_likelier(
    slopes: list[float], knots: list[float], values: list[float]
) -> None:
    found = stated(np.array(values), np.array(knots), np.array([*slopes, -1.0]))
    assert (np.diff(found) >= -1e-9).all()
