"""Imports every module of scenarios, in the order of the report."""

from __future__ import annotations

from tests.failures.chaos import (
    checkpoints,
    controls,
    folders,
    mixed,
    network,
    poison,
    processes,
    producers,
    recoveries,
    restarts,
    soak,
    topics,
    zombies,
)
from tests.failures.chaos.kit import SCENARIOS

__all__ = [
    "SCENARIOS",
    "checkpoints",
    "controls",
    "folders",
    "mixed",
    "network",
    "poison",
    "processes",
    "producers",
    "recoveries",
    "restarts",
    "soak",
    "topics",
    "zombies",
]
