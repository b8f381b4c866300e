"""The rounds of the throughput benchmark: each contender once a round, in an order that turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from model.checkpoint import save
from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.settings import Settings
from stream_app.terminal import Stages, stages
from tests.benchmarks.contenders import Contender, Measurement, Place
from tests.benchmarks.workload import InputRecord, bench_checkpoint, make_records, produce
from tests.benchmarks.yardstick import measure_yardstick

PARTITIONS = {"large": 8, "small": 8, "single": 1, "none": 8}
"""Of each log."""


@dataclass(frozen=True)
class Plan:
    """What is measured: contenders, rounds, events of each log, the yardstick if it is there."""

    contenders: Sequence[Contender]
    rounds: int
    events: dict[str, int]
    yardstick: Path | None
    command: str

    def events_of(self, contender: Contender) -> int:
        """How many events a contender gets."""
        return self.events[contender.log]


@dataclass(frozen=True)
class Measured:
    """What came out, in the order of the rounds: of each contender, and of the yardstick."""

    results: dict[str, list[Measurement]]
    yardstick: list[float] = field(default_factory=list)


def run(plan: Plan, console: Console) -> Measured:
    """All rounds."""
    measured = Measured({contender.name: [] for contender in plan.contenders})
    with tempfile.TemporaryDirectory(prefix="interest-bench-") as folder, stages(console) as show:
        home = Path(folder)
        show("Preparing", 0, 1)
        checkpoint = home / "checkpoint"
        save(bench_checkpoint(), checkpoint, "Random weights for the benchmark.")
        logs = {
            log: make_records(plan.events[log], PARTITIONS[log], seed)
            for seed, log in enumerate(("large", "small", "single"))
            if any(contender.log == log for contender in plan.contenders)
        }
        show("Preparing", 1, 1)
        for number in range(plan.rounds):
            _run_round(number, plan, logs, checkpoint, home, measured, show)
    return measured


def _run_round(
    number: int,
    plan: Plan,
    logs: dict[str, list[InputRecord]],
    checkpoint: Path,
    home: Path,
    measured: Measured,
    show: Stages,
) -> None:
    turn = number % len(plan.contenders)
    what = f"Round {number + 1} of {plan.rounds}"
    steps = len(plan.contenders) + (plan.yardstick is not None)
    with EmbeddedBroker(log_file=home / "broker.log") as broker:
        shared: dict[str, object] = {
            "kafka_bootstrap": broker.bootstrap,
            "checkpoint": checkpoint,
            "log_level": "warn",
        }
        show(what, 0, steps)
        for log, records in logs.items():
            settings = Settings(**shared, **_inputs(log), **_outputs(f"{log}-log"))
            topics.create(settings)
            produce(settings, records)
        for done, contender in enumerate([*plan.contenders[turn:], *plan.contenders[:turn]]):
            name = f"bench-{number}-{contender.name}".replace("_", "-")
            place = Place(
                {**shared, **_inputs(contender.log), **_outputs(name)},
                home / name,
                plan.events_of(contender),
            )
            place.home.mkdir()
            measured.results[contender.name].append(contender.measure(place))
            show(what, done + 1, steps)
        if plan.yardstick is not None:
            place_of_it = home / f"yardstick-{number}"
            place_of_it.mkdir()
            rate = measure_yardstick(plan.yardstick, broker.bootstrap, place_of_it)
            measured.yardstick.append(rate)
            show(what, steps, steps)


def _inputs(log: str) -> dict[str, object]:
    names = {f"{kind}_topic": f"{log}.{kind}" for kind in ("clicks", "searches", "purchases")}
    return {**names, "partitions": PARTITIONS[log]}


def _outputs(name: str) -> dict[str, object]:
    return {
        "app_id": name,
        "drift_topic": f"{name}.drift",
        "recommendations_topic": f"{name}.recommendations",
        "dead_letters_topic": f"{name}.dead-letters",
    }
