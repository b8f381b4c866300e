"""Goals: on which side of the bound a figure lies, and how that is said."""

from __future__ import annotations

import pytest

from model.evaluation.goals import Goal
from tests.benchmarks.goals import as_list, as_values


@pytest.mark.parametrize(("measured", "is_met"), [(0.79, False), (0.8, True), (0.9, True)])
def test_at_least(measured: float, is_met: bool) -> None:
    assert Goal("rate", "at least", 0.8, measured).is_met is is_met


@pytest.mark.parametrize(("measured", "is_met"), [(799.0, True), (800.0, True), (801.0, False)])
def test_at_most(measured: float, is_met: bool) -> None:
    assert Goal("memory", "at most", 800.0, measured).is_met is is_met


def test_a_met_goal_says_so() -> None:
    goal = Goal("memory", "at most", 800, 1234.5 / 2, "MB")
    assert str(goal) == "Goal: memory at most 800 MB; measured 617 MB: met."


def test_a_missed_goal_says_by_how_much_of_the_bound() -> None:
    goal = Goal("rate", "at least", 0.8, 0.6, "", 2)
    assert str(goal) == "Goal: rate at least 0.80; measured 0.60: missed by 25.0%."


def test_a_goal_that_is_missed_by_far_says_how_many_times() -> None:
    assert Goal("p99", "at most", 50, 740, "ms").verdict == "missed, 14.8 times as much"


def test_a_goal_of_nothing_says_by_how_much_it_is_missed() -> None:
    assert Goal("gain", "at least", 0.0, -0.01, "", 2).verdict == "missed by 0.01"


def test_a_list_stands_apart_from_the_sentence_before_it() -> None:
    goals = [Goal("a", "at least", 1, 2), Goal("b", "at most", 3, 2)]
    assert f"Text.{as_list(goals)}" == f"Text.\n\n- {goals[0]}\n- {goals[1]}"
    assert as_list([]) == ""


def test_values_tell_whether_a_goal_is_met() -> None:
    [values] = as_values([Goal("rate", "at least", 0.8, 0.9)])
    assert (values["bound"], values["measured"], values["is_met"]) == (0.8, 0.9, True)
