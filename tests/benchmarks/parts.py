"""The parts of the benchmark, in the order in which they run and are reported."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.runs import run_to_end

END_TIMEOUT_S = 60.0
YARDSTICK = "../shared/spikes/batch_lane.py"
"""Beside the checkout, where it is there."""


@dataclass(frozen=True)
class Part:
    """A module of this folder that measures, shows and writes one document.

    It takes ``--json FILE`` and ``--quick``, and ends with 0 when the document is written.

    arguments    of a full run
    is_in_quick  whether a quick run has it when no part is named
    has_rounds   whether it takes ``--rounds N``
    """

    name: str
    what: str
    arguments: Sequence[str] = ()
    is_in_quick: bool = False
    has_rounds: bool = True

    def command(self, quick: bool, rounds: int | None, json_file: Path) -> list[str]:
        """What runs it."""
        command = [sys.executable, "-m", f"tests.benchmarks.{self.name}"]
        command += ["--quick"] if quick else self.arguments
        if rounds is not None and self.has_rounds:
            command += ["--rounds", str(rounds)]
        return [*command, "--json", str(json_file)]


PARTS = (
    Part(
        "throughput",
        "throughput beside its peers, and where the time goes",
        ("--yardstick", YARDSTICK),
        is_in_quick=True,
    ),
    Part("latency", "latency from produce to output"),
    Part("latency_noida", "the same on a faster broker"),
    Part("growth", "rate, memory and sizes by the number of users"),
    Part("recovery", "start with a changelog"),
    Part("scale_out", "rate by the number of workers"),
    Part(
        "ranking",
        "lists, exact and by candidates and indexes",
        ("--clustered", "--build-seconds", "20"),
        has_rounds=False,
    ),
    Part("backfill", "rows from a history"),
)


def run_command(command: Sequence[str]) -> int:
    """Run a part to its end and return its exit status; an interruption ends it first."""
    return asyncio.run(run_to_end(command, END_TIMEOUT_S))
