"""What the parts of the benchmark share as programs: options, how they end, and what they show."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model.evaluation.goals import Goal
from stream_app.errors import InterestStreamError, UsageError
from stream_app.terminal import check_folder_of
from tests.benchmarks import results
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.results import Section


def make_parser(description: str, quick: str, rounds: int | None = None) -> argparse.ArgumentParser:
    """A parser with ``--quick``, ``--json`` and, given how many by default, ``--rounds``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=json_file, metavar="FILE", help="write all figures")
    if rounds is not None:
        parser.add_argument(
            "--rounds", type=positive, metavar="N", help=f"rounds, {rounds} by default"
        )
    return parser


def json_file(text: str) -> Path:
    """The argument type of a file that is written at the end, and could be now."""
    try:
        check_folder_of(Path(text))
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def positive(text: str) -> int:
    """The argument type of a number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


@contextmanager
def ending(console: Console) -> Iterator[None]:
    """Ends the program: with 1 and a sentence when the body fails, with 130 when interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        console.print("Interrupted; all processes are ended.")
        sys.exit(130)
    except (BenchmarkError, InterestStreamError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)


def publish(
    console: Console,
    path: Path | None,
    benchmark: str,
    command: str,
    sections: Sequence[Section],
    figures: dict[str, Any],
    goals: Sequence[Goal] = (),
) -> None:
    """Show the sections, and write the document where a file is named."""
    for section in sections:
        console.print(_on_terminal(section))
        console.print(section.text, highlight=False, markup=False)
    if path is not None:
        results.write(path, benchmark, command, sections, figures, goals)
        console.print(f"All figures are in {path}.", highlight=False)


def _on_terminal(section: Section) -> Table:
    table = Table(title=section.title)
    for number, column in enumerate(section.table.columns):
        # What does not fit goes on in the next line: nothing is cut off.
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in section.table.rows:
        table.add_row(*row)
    return table
