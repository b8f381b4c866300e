"""Goals of the benchmarks as text and as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from model.evaluation.goals import Goal


def as_list(goals: Sequence[Goal]) -> str:
    """The goals as a list in Markdown, an empty line before it; nothing without goals."""
    return "".join(f"\n{'' if number else chr(10)}- {goal}" for number, goal in enumerate(goals))


def as_values(goals: Sequence[Goal]) -> list[dict[str, Any]]:
    """The goals as plain values, with whether they are met."""
    return [{**asdict(goal), "is_met": goal.is_met} for goal in goals]
