"""Events per second, end to end, of the worker beside its peers, and where its time goes.

    python -m tests.benchmarks.throughput [--quick] [--json FILE] [--rounds N] [--events N]
                                          [--yardstick PATH]

Every round starts a broker, writes the logs, and measures each contender in a fresh process with a
consumer group, topics and a folder of its own; the order turns from round to round. A ratio is
taken within a round, and its median over the rounds is reported.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from stream_app.errors import InterestStreamError
from tests.benchmarks import figures, results
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.figures import Spread
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.results import Section
from tests.benchmarks.rounds import PARTITIONS, Measured, Plan, run
from tests.benchmarks.workload import CATEGORIES, EVENTS_PER_USER, ITEMS
from tests.benchmarks.yardstick import left_out

EVENTS = 400_000
QUICK_EVENTS = 300_000
SMALL_EVENTS = 16_000
QUICK_SMALL_EVENTS = 8_000
ROUNDS = 3
QUICK_ROUNDS = 2
FILE_WIDTH = 120
"""Columns of what is printed to a file or a pipe."""


def main() -> None:
    """Runs the benchmark; exit code 1 when a contender fails, 130 when it is interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else FILE_WIDTH)
    plan, notes = _plan(arguments)
    for note in notes:
        console.print(note, highlight=False)
    try:
        measured = run(plan, console)
    except KeyboardInterrupt:
        console.print("Interrupted; all processes are ended.")
        sys.exit(130)
    except (BenchmarkError, InterestStreamError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    sections = sections_of(plan, measured, notes)
    for section in sections:
        console.print(_on_terminal(section))
        console.print(section.text, highlight=False)
    if arguments.json is not None:
        results.write(
            arguments.json, "throughput", plan.command, sections, report(plan, measured, notes)
        )
        console.print(f"All figures are in {arguments.json}.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the worker beside its peers, in one run.")
    parser.add_argument("--quick", action="store_true", help="two rounds, shorter logs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds, 3 by default")
    parser.add_argument("--events", type=_positive, metavar="N", help="events of the large log")
    parser.add_argument(
        "--yardstick", type=Path, metavar="PATH", help="a program to measure beside, if it is there"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _plan(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """The plan, and a sentence for each thing that is left out."""
    absences = {contender.name: contender.left_out() for contender in CONTENDERS}
    notes = [sentence for sentence in absences.values() if sentence is not None]
    yardstick = arguments.yardstick
    if yardstick is not None and (sentence := left_out(yardstick)) is not None:
        notes.append(sentence)
        yardstick = None
    small = QUICK_SMALL_EVENTS if arguments.quick else SMALL_EVENTS
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    events = arguments.events or (QUICK_EVENTS if arguments.quick else EVENTS)
    quick = "--quick " if arguments.quick else ""
    plan = Plan(
        [contender for contender in CONTENDERS if absences[contender.name] is None],
        rounds,
        {
            "large": events,
            "small": min(small, events),
            "single": max(events // 2, 1),
            "none": events,
        },
        yardstick,
        f'make bench ARGS="{quick}--rounds {rounds} --events {events}"',
    )
    return plan, notes


def sections_of(plan: Plan, measured: Measured, notes: Sequence[str]) -> list[Section]:
    """Throughput, and where the time goes."""
    events = {contender.name: plan.events_of(contender) for contender in plan.contenders}
    sentences = [
        f"{plan.rounds} rounds; H = 64, {ITEMS:,} items, {CATEGORIES:,} categories, "
        f"{EVENTS_PER_USER} events per user.",
        *notes,
    ]
    if measured.yardstick:
        median = Spread.of(measured.yardstick).median
        sentences.append(f"The yardstick did {median:,.0f} events/s in the same session.")
    return [
        figures.throughput_section(
            plan.contenders, measured.results, events, "\n" + " ".join(sentences)
        ),
        figures.stages_section(*_accounts(measured)),
    ]


def _accounts(measured: Measured) -> tuple[figures.Account, figures.Account | None]:
    return (
        figures.in_turn(measured.results["worker_one_partition"]),
        figures.side_by_side(measured.results["worker"]),
    )


def _on_terminal(section: Section) -> Table:
    table = Table(title=section.title)
    for number, column in enumerate(section.table.columns):
        # What does not fit goes on in the next line: nothing is cut off.
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in section.table.rows:
        table.add_row(*row)
    return table


def report(plan: Plan, measured: Measured, notes: Sequence[str]) -> dict[str, Any]:
    """The figures by name; a ratio is null when its contender was left out."""
    ratios = {name: figures.ratio(measured.results, to) for name, to in figures.RATIOS.items()}
    serial, many = _accounts(measured)
    return {
        **{n: None if spread is None else round(spread.median, 3) for n, spread in ratios.items()},
        "ratios": {name: spread and asdict(spread) for name, spread in ratios.items()},
        "yardstick_events_per_second": (
            Spread.of(measured.yardstick).median if measured.yardstick else None
        ),
        "stages": {
            "one_partition": _account(serial),
            "many_partitions": many and _account(many),
        },
        "contenders": {
            contender.name: {
                "what": contender.what,
                "events": plan.events_of(contender),
                "events_per_second": asdict(
                    Spread.of(figures.rates(measured.results[contender.name]))
                ),
                "cpu_us_per_event": figures.cpu_us(measured.results[contender.name]),
                "stages_us": figures.stages_us(measured.results[contender.name]),
                "rounds": [
                    {**asdict(m), "events_per_second": m.events_per_second}
                    for m in measured.results[contender.name]
                ],
            }
            for contender in plan.contenders
        },
        "left_out": list(notes),
        "plan": {
            "rounds": plan.rounds,
            "events": plan.events,
            "partitions": PARTITIONS,
            "items": ITEMS,
            "categories": CATEGORIES,
            "events_per_user": EVENTS_PER_USER,
        },
    }


def _account(account: figures.Account) -> dict[str, Any]:
    return {
        **asdict(account),
        "other_us": account.other_us,
        "explained": round(account.explained, 3),
    }


if __name__ == "__main__":
    main()
