"""The report: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.failures.chaos.kit import Result

WORDS = {True: "[green]held[/]", False: "[red]BROKEN[/]", "not run": "[yellow]not run[/]"}


def table(results: Sequence[Result]) -> Table:
    """One row a scenario."""
    made = Table(title="Failure kit", title_justify="left")
    made.add_column("scenario", min_width=24)
    made.add_column("held", no_wrap=True)
    for name in ("times", "events", "applied", "repeats", "dead", "lost", "doubled", "seconds"):
        made.add_column(name, justify="right", no_wrap=True)
    for one in results:
        numbers = (one.times, one.events, one.applied, one.repeats, one.dead, one.lost, one.doubled)
        made.add_row(one.name, WORDS[one.held], *(f"{n:,}" for n in numbers), f"{one.seconds:.0f}")
    return made


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """All rows, and what was lost and doubled in all of them."""
    return {
        "scenarios": [one.as_json() for one in results],
        "lost": sum(one.lost for one in results),
        "doubled": sum(one.doubled for one in results),
    }


def write_json(results: Sequence[Result], file: Path) -> None:
    """The JSON report as a file."""
    file.write_text(json.dumps(as_json(results), indent=2) + "\n")
