"""Events per second of the back-fill of a file, without and with publishing, beside the limit.

    python -m tests.benchmarks.backfill [--quick] [--rounds N] [--events N] [--data FILE]
        [--json FILE]

Without ``--data`` the file holds the log of the other benchmarks. Every measurement is a process of
its own, over the same events and checkpoint, and the order turns from round to round; a ratio is
taken within a round. A back-fill is timed from the first byte that it reads of the file to the last
row made, or acknowledged by an embedded broker on the same processors; the limit (limit.py) has its
records in memory.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import torch
from pyarrow import parquet
from rich.console import Console

from model.checkpoint import load, save
from model.evaluation.goals import Goal
from model.event_log import OPTIONAL, REQUIRED, read_event_log
from model.events import EventType
from model.transition import warm_up
from stream_app import topics
from stream_app.back_fill import back_fill
from stream_app.broker import EmbeddedBroker
from stream_app.history import read_history
from stream_app.history_rows import make_rows
from stream_app.log_records import log_records
from stream_app.partitioner import partitions_for
from stream_app.settings import PREFIX, Settings
from stream_app.terminal import stages
from stream_app.verify import with_worker_settings
from tests.benchmarks import limit
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.figures import Spread
from tests.benchmarks.goals import as_list
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.results import Plot, Section, Series, Table
from tests.benchmarks.workload import InputRecord, bench_checkpoint, make_records
from tests.checkpoints import named_checkpoint
from tests.command_line import make_console

EVENTS = 400_000
PARTITIONS = 8
QUICK_EVENTS = 100_000
ROUNDS = 3
QUICK_ROUNDS = 1
GOAL = 0.8
"""Of the limit's rate."""


@dataclass(frozen=True)
class Measured:
    """One measurement: events and users of the file, and what they took."""

    events: int
    users: int
    seconds: float
    cpu_seconds: float

    @property
    def events_per_second(self) -> float:
        """The rate."""
        return self.events / self.seconds


def measure_limit(path: Path, settings: Settings) -> Measured:
    """The worker's own code over the records of the file, in memory."""
    log = read_event_log(path)
    sent = list(log_records(log))
    places = partitions_for([record.key for record in sent], settings.partitions).tolist()
    records = [
        InputRecord(record.event_type, place, record.key, record.value, record.time_ms)
        for record, place in zip(sent, places, strict=True)
    ]
    batches = limit.batches(records, settings.partitions)
    assert settings.checkpoint is not None
    checkpoint = load(settings.checkpoint)
    warm_up(checkpoint)
    limit.run(batches[:1], checkpoint, settings)
    gc.freeze()
    began, began_cpu = time.perf_counter(), time.process_time()
    done = limit.run(batches, checkpoint, settings)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Measured(done.events, len(log.users), seconds, cpu_seconds)


def measure_rows(path: Path, settings: Settings) -> Measured:
    """The back-fill without publishing."""
    assert settings.checkpoint is not None
    checkpoint = with_worker_settings(load(settings.checkpoint), settings)
    warm_up(checkpoint)
    began, began_cpu = time.perf_counter(), time.process_time()
    history = read_history(path, settings.partitions, checkpoint.vocabulary, int(time.time() * 1e3))
    users = 0
    for part in make_rows(history, checkpoint, settings.partitions, settings.max_batch_events):
        users += len(part.keys)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Measured(history.events, users, seconds, cpu_seconds)


def measure_published(path: Path, settings: Settings) -> Measured:
    """The back-fill as the command does it."""
    began_cpu = time.process_time()
    report = back_fill(settings, path, lambda what, done, total: None)
    assert report.is_done
    cpu_seconds = time.process_time() - began_cpu
    return Measured(report.events + report.repeats, report.rows, report.seconds, cpu_seconds)


MEASURES: dict[str, Callable[[Path, Settings], Measured]] = {
    "limit": measure_limit,
    "rows": measure_rows,
    "published": measure_published,
}


def write_log(path: Path, events: int) -> None:
    """The log of the other benchmarks as a file."""
    columns: dict[str, list[Any]] = {name: [] for name in (*REQUIRED, *OPTIONAL) if name != "pos"}
    for record in make_records(events, PARTITIONS):
        event = msgspec.json.decode(record.value)
        kind = EventType(record.event_type).name.lower()
        lines = event.get("items", [event])
        for line in lines:
            row = {**event, **line, "timestamp": record.time_ms, "event_type": kind}
            for name, column in columns.items():
                column.append(row.get(name))
    parquet.write_table(pa.table(columns), path)


def run(path: Path, home: Path, rounds: int, console: Console) -> dict[str, list[Measured]]:
    """All rounds; the measurements in the order of the rounds."""
    found: dict[str, list[Measured]] = {name: [] for name in MEASURES}
    names = list(MEASURES)
    with stages(console) as show:
        for number in range(rounds):
            turn = number % len(names)
            for done, name in enumerate(names[turn:] + names[:turn]):
                show(f"Round {number + 1} of {rounds}", done, len(names))
                found[name].append(_measure(name, path, home))
            show(f"Round {number + 1} of {rounds}", len(names), len(names))
    return found


def _measure(name: str, path: Path, home: Path) -> Measured:
    own: dict[str, Any] = {"checkpoint": home / "checkpoint", "partitions": PARTITIONS}
    if name != "published":
        return _in_process(name, path, home, own)
    with EmbeddedBroker(log_file=home / "broker.log") as broker:
        own["kafka_bootstrap"] = broker.bootstrap
        topics.create(Settings(**own))
        return _in_process(name, path, home, own)


def _in_process(name: str, path: Path, home: Path, own: dict[str, Any]) -> Measured:
    result = home / "result.json"
    arguments = ["--measure", name, "--data", str(path), "--result", str(result)]
    variables = {f"{PREFIX}{key.upper()}": str(value) for key, value in own.items()}
    command = [sys.executable, "-m", "tests.benchmarks.backfill", *arguments]
    if subprocess.run(command, env={**os.environ, **variables}).returncode != 0:
        raise BenchmarkError(f"The measurement of {name} failed; what it said stands above.")
    return msgspec.json.decode(result.read_bytes(), type=Measured)


def ratio(found: dict[str, list[Measured]], name: str) -> Spread:
    """A rate over the limit's, round by round."""
    pairs = zip(found[name], found["limit"], strict=True)
    return Spread.of([one.events_per_second / limit.events_per_second for one, limit in pairs])


def goal_of(found: dict[str, list[Measured]]) -> Goal:
    """What is asked of the back-fill as the command does it."""
    measured = ratio(found, "published").median
    return Goal("back-fill with publishing, of the limit", "at least", GOAL, measured, "", 2)


def section_of(found: dict[str, list[Measured]]) -> Section:
    """Rates and ratios."""
    first = found["limit"][0]
    rows, spreads = [], []
    for name, measured in found.items():
        spread = Spread.of([one.events_per_second for one in measured])
        spreads.append(spread)
        of_limit = None if name == "limit" else ratio(found, name)
        cpu = Spread.of([1e6 * one.cpu_seconds / one.events for one in measured])
        rows.append(
            [
                name,
                f"{spread.median:,.0f}",
                f"{spread.lowest:,.0f} to {spread.highest:,.0f}",
                "" if of_limit is None else f"{of_limit.median:.2f}",
                "" if of_limit is None else f"{of_limit.lowest:.2f} to {of_limit.highest:.2f}",
                f"{cpu.median:.1f}",
            ]
        )
    return Section(
        "backfill",
        "Back-fill of a history",
        f"{first.events:,} events of {first.users:,} users in a file. Published is "
        "`interest-stream replay --offline`, from the first byte read of the file until an "
        "embedded broker on the same processors has acknowledged the last row; rows is the same "
        "without publishing; the limit is the worker's own code over the same records in memory, "
        "without Kafka and store. A ratio is taken within a round. CPU us: processor time of the "
        f"process per event.{as_list([goal_of(found)])}",
        Table(["", "events/s", "spread", "of the limit", "spread", "CPU us"], rows),
        Plot(
            "bars",
            "",
            "events/s",
            [
                Series(
                    "events/s",
                    list(found),
                    [spread.median for spread in spreads],
                    [spread.lowest for spread in spreads],
                    [spread.highest for spread in spreads],
                )
            ],
        ),
    )


def report(found: dict[str, list[Measured]]) -> dict[str, Any]:
    """The figures as plain values."""
    return {
        "events": found["limit"][0].events,
        "users": found["limit"][0].users,
        "events_per_second": {
            name: [one.events_per_second for one in measured] for name, measured in found.items()
        },
        "ratio_to_limit": {name: asdict(ratio(found, name)) for name in found if name != "limit"},
        "measurements": {name: [asdict(one) for one in many] for name, many in found.items()},
    }


def main() -> None:
    """Runs the benchmark; or, with ``--measure``, one measurement of it."""
    parser = make_parser("Measure the back-fill of a file.", "one round, a short log", ROUNDS)
    parser.add_argument("--events", type=positive, metavar="N", help="events of the log")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a log of yours instead")
    parser.add_argument("--measure", choices=list(MEASURES), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        torch.set_num_threads(1)
        measured = MEASURES[arguments.measure](arguments.data, Settings())
        arguments.result.write_bytes(msgspec.json.encode(measured))
        return
    console = make_console()
    events = arguments.events or (QUICK_EVENTS if arguments.quick else EVENTS)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    with ending(console):
        with tempfile.TemporaryDirectory(prefix="interest-backfill-") as folder:
            home = Path(folder)
            path = arguments.data or home / "log.parquet"
            if arguments.data is None:
                write_log(path, events)
                checkpoint = bench_checkpoint()
            else:
                log = read_event_log(path)
                checkpoint = named_checkpoint(log.items, log.categories)
            save(checkpoint, home / "checkpoint", "Random weights for the benchmark.")
            found = run(path, home, rounds, console)
        log_of = "--data FILE" if arguments.data else f"--events {events}"
        publish(
            console,
            arguments.json,
            "backfill",
            f"python -m tests.benchmarks.backfill --rounds {rounds} {log_of}",
            [section_of(found)],
            report(found),
            [goal_of(found)],
        )


if __name__ == "__main__":
    main()
