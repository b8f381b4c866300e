"""Events per second, end to end, of the worker beside its peers, and where its time goes.

    python -m tests.benchmarks.throughput [--quick] [--json FILE] [--rounds N] [--events N]
                                          [--yardstick PATH]

Every round starts a broker, writes the logs, and measures each contender in a fresh process with a
consumer group, topics and a folder of its own; the order turns from round to round. A ratio is
taken within a round, and its median over the rounds is reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.evaluation.goals import Goal
from tests.benchmarks import figures
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.figures import Spread
from tests.benchmarks.goals import as_list
from tests.benchmarks.results import Section
from tests.benchmarks.rounds import PARTITIONS, Measured, Plan, run
from tests.benchmarks.workload import CATEGORIES, EVENTS_PER_USER, ITEMS
from tests.benchmarks.yardstick import left_out
from tests.command_line import make_console

EVENTS = 400_000
QUICK_EVENTS = 240_000
SMALL_EVENTS = 16_000
QUICK_SMALL_EVENTS = 3_000
ROUNDS = 3
QUICK_ROUNDS = 2
GOALS = {"ratio_stock_faust": 24.0, "ratio_quix_streams": 5.0, "ratio_limit": 0.6}
GOAL_OF_YARDSTICK = 2 / 3
"""40,000 events/s where the yardstick does 60,000."""


def main() -> None:
    """Runs the benchmark; exit code 1 when a contender fails, 130 when it is interrupted."""
    arguments = _arguments()
    console = make_console()
    plan, notes = _plan(arguments)
    for note in notes:
        console.print(note, highlight=False)
    with ending(console):
        measured = run(plan, console)
        goals = goals_of(measured)
        publish(
            console,
            arguments.json,
            "throughput",
            plan.command,
            sections_of(plan, measured, notes, goals),
            report(plan, measured, notes),
            goals,
        )


def _arguments() -> argparse.Namespace:
    parser = make_parser(
        "Measure the worker beside its peers, in one run.",
        "the ratios with a goal alone: two rounds, shorter logs, fewer contenders",
        ROUNDS,
    )
    parser.add_argument("--events", type=positive, metavar="N", help="events of the large log")
    parser.add_argument(
        "--yardstick", type=Path, metavar="PATH", help="a program to measure beside, if it is there"
    )
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> tuple[Plan, list[str]]:
    """The plan, and a sentence for each thing that is left out."""
    contenders = [one for one in CONTENDERS if one.is_in_quick or not arguments.quick]
    absences = {contender.name: contender.left_out() for contender in contenders}
    notes = list(dict.fromkeys(sentence for sentence in absences.values() if sentence))
    yardstick = arguments.yardstick
    if yardstick is not None and (sentence := left_out(yardstick)) is not None:
        notes.append(sentence)
        yardstick = None
    small = QUICK_SMALL_EVENTS if arguments.quick else SMALL_EVENTS
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    events = arguments.events or (QUICK_EVENTS if arguments.quick else EVENTS)
    quick = "--quick " if arguments.quick else ""
    plan = Plan(
        [contender for contender in contenders if absences[contender.name] is None],
        rounds,
        {
            "large": events,
            "small": min(small, events),
            "single": max(events // 2, 1),
            "none": events,
        },
        yardstick,
        f"python -m tests.benchmarks.throughput {quick}--rounds {rounds} --events {events}",
    )
    return plan, notes


def goals_of(measured: Measured) -> list[Goal]:
    """What is asked of the worker's rate beside those of the others that were measured."""
    goals = []
    for name, bound in GOALS.items():
        if (spread := figures.ratio(measured.results, figures.RATIOS[name])) is not None:
            what = f"the worker's rate over {figures.RATIOS[name]}'s"
            goals.append(Goal(what, "at least", bound, spread.median, "times", 2))
    if measured.yardstick:
        rate = Spread.of(figures.rates(measured.results["worker"])).median
        share = rate / Spread.of(measured.yardstick).median
        what = "the worker's rate over the yardstick's"
        goals.append(Goal(what, "at least", GOAL_OF_YARDSTICK, share, "times", 2))
    return goals


def sections_of(
    plan: Plan, measured: Measured, notes: Sequence[str], goals: Sequence[Goal]
) -> list[Section]:
    """Throughput, and where the time goes when that is measured."""
    events = {contender.name: plan.events_of(contender) for contender in plan.contenders}
    sentences = [
        f"{plan.rounds} rounds; H = 64, {ITEMS:,} items, {CATEGORIES:,} categories, "
        f"{EVENTS_PER_USER} events per user.",
        *notes,
    ]
    if measured.yardstick:
        median = Spread.of(measured.yardstick).median
        sentences.append(f"The yardstick did {median:,.0f} events/s in the same session.")
    serial, many = _accounts(measured)
    return [
        figures.throughput_section(
            plan.contenders,
            measured.results,
            events,
            "\n" + " ".join(sentences) + as_list(goals),
        ),
        *([figures.stages_section(serial, many)] if serial is not None else []),
    ]


def _accounts(measured: Measured) -> tuple[figures.Account | None, figures.Account | None]:
    serial = measured.results.get("worker_one_partition")
    return serial and figures.in_turn(serial), figures.side_by_side(measured.results["worker"])


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
            "one_partition": serial and _account(serial),
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
