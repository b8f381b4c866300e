"""How rate, memory and sizes grow with the number of users, every one of whom has a row.

    python -m tests.benchmarks.growth [--quick] [--rounds N] [--users N ...] [--events N]
                                      [--json FILE]

The rows are there before anything is measured (filled.py), and the first start of a worker reads
them into its store. Then, round by round, each size in turn gets a
log over random users, as in the throughput benchmark, and a worker that applies it with the store
of the one before.

All sizes lie on one broker: the embedded one, which keeps everything in memory, or, where that does
not suffice, noida-db, which keeps it on disk.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console

from stream_app.demo.processes import WorkerProcess
from stream_app.lane.reading import bounds, stream_records
from stream_app.settings import Settings
from stream_app.terminal import Stages, stages
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, make_parser, positive
from tests.benchmarks.command_line import publish as publish_document
from tests.benchmarks.contenders import Place, measure_worker
from tests.benchmarks.filled import (
    PARTITIONS,
    ROW_RECORD_BYTES,
    Rows,
    broker_for,
    fill,
    make_templates,
)
from tests.benchmarks.growth_sections import Size, goals_of, memory_section, rate_section
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.workload import (
    Population,
    make_records,
    produce,
    user_keys,
)
from tests.command_line import make_console
from tests.failures.chaos.brokers import bytes_in

USERS = (10_000, 100_000, 1_000_000)
QUICK_USERS = (10_000, 100_000)
EVENTS = 200_000
QUICK_EVENTS = 100_000
ROUNDS = 3
QUICK_ROUNDS = 1
EVENT_BYTES = 3_500
"""Of an event, of its row in the changelog and of its share of the outputs, in a broker."""
RECOVERY_TIMEOUT_S = 900.0
LOOK_S = 0.1


@dataclass
class Ground:
    """One size: its topics, its folder, and what was measured there so far."""

    settings: Settings
    overrides: dict[str, Any]
    home: Path
    population: Population
    size: Size
    rss_bytes: list[int] = field(default_factory=list)

    def look(self, pid: int) -> None:
        """Notes how much memory the worker has."""
        self.rss_bytes.append(psutil.Process(pid).memory_info().rss)


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    arguments = _arguments()
    console = make_console()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    events = arguments.events or (QUICK_EVENTS if arguments.quick else EVENTS)
    users = sorted(arguments.users or (QUICK_USERS if arguments.quick else USERS))
    with ending(console):
        broker, sizes = run(users, events, rounds, console)
        goals, rest_bytes = goals_of(sizes), rest()
        cache_mb = Settings.model_fields["rocksdb_cache_mb"].default
        publish_document(
            console,
            arguments.json,
            "growth",
            "python -m tests.benchmarks.growth "
            f"--rounds {rounds} --events {events} --users {' '.join(map(str, users))}",
            [
                rate_section(sizes, events, broker, goals),
                memory_section(sizes, goals, rest_bytes, cache_mb),
            ],
            {
                "events": events,
                "broker": broker,
                "rest_bytes": rest_bytes,
                "sizes": [asdict(size) for size in sizes],
            },
            goals,
        )


def _arguments() -> argparse.Namespace:
    parser = make_parser(
        "Measure how rate, memory and sizes grow with the users.", "one round, few users", ROUNDS
    )
    parser.add_argument("--users", type=positive, nargs="+", metavar="N", help="numbers of users")
    parser.add_argument("--events", type=positive, metavar="N", help="of a round and size")
    return parser.parse_args()


def run(users: list[int], events: int, rounds: int, console: Console) -> tuple[str, list[Size]]:
    """What broker it was, and the figures of each size."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interest-growth-")))
        show = stack.enter_context(stages(console))
        rows = make_templates(home, show)
        needed = sum(users) * ROW_RECORD_BYTES + len(users) * rounds * events * EVENT_BYTES
        broker, bootstrap = broker_for(needed, home, stack)
        grounds = [_ground(count, rows, bootstrap, home, stack, show) for count in users]
        for number in range(rounds):
            turn = number % len(grounds)
            for done, ground in enumerate(grounds[turn:] + grounds[:turn]):
                show(f"Round {number + 1} of {rounds}", done, len(grounds))
                _measure(ground, events, number)
                console.print(
                    f"Round {number + 1} of {rounds}: {ground.size.users:,} users, "
                    f"{ground.size.rounds[-1].events_per_second:,.0f} events/s",
                    highlight=False,
                )
            show(f"Round {number + 1} of {rounds}", len(grounds), len(grounds))
        return broker, [_weighed(ground) for ground in grounds]


AT_REST = """
import psutil
import stream_app.worker
from model.transition import warm_up
from tests.benchmarks.workload import bench_checkpoint
warm_up(bench_checkpoint())
print(psutil.Process().memory_info().rss)
"""


def rest() -> int:
    """Resident bytes of a process that has the worker's libraries and its model, warmed up."""
    done = subprocess.run(
        [sys.executable, "-c", AT_REST], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def _ground(
    users: int, rows: Rows, bootstrap: str, home: Path, stack: ExitStack, show: Stages
) -> Ground:
    """Topics with the rows of so many users, and a worker's store that has them."""
    own_home = home / f"{users}"
    own_home.mkdir()
    settings, _ = stack.enter_context(cluster(bootstrap, own_home, PARTITIONS))
    template = fill(settings, rows, users, show)
    population = Population(np.full(users, 1 / users), rows.own[template])
    row_bytes = len(rows.values[0])
    ground = Ground(
        settings,
        worker_overrides(settings, own_home),
        own_home,
        population,
        Size(users, row_bytes=row_bytes, key_bytes=len(user_keys(1)[0])),
    )
    show(f"Reading {users:,} rows", 0, 1)
    ground.size.recovery_s = _recover(ground)
    show(f"Reading {users:,} rows", 1, 1)
    return ground


def _recover(ground: Ground) -> float:
    """Seconds until a worker without a store is ready."""
    began = time.monotonic()
    worker = WorkerProcess(ground.overrides, ground.home)
    try:
        while not worker.is_ready():
            worker.check_alive()
            ground.look(worker.pid)
            if time.monotonic() - began > RECOVERY_TIMEOUT_S:
                raise BenchmarkError(f"The worker is not ready after {RECOVERY_TIMEOUT_S:g} s.")
            time.sleep(LOOK_S)
        return time.monotonic() - began
    finally:
        worker.stop()


def _measure(ground: Ground, events: int, number: int) -> None:
    """One round of one size."""
    records = make_records(events, PARTITIONS, ground.size.users, ground.population, number + 1)
    produce(ground.settings, records)
    place = Place(ground.overrides, ground.home, events)
    ground.size.rounds.append(measure_worker(place, number * events, ground.look))
    ground.size.rss_end_bytes.append(ground.rss_bytes[-1])


def _weighed(ground: Ground) -> Size:
    """The figures of a size, with its memory and what lies in its store and changelog."""
    size = ground.size
    size.rss_peak_bytes = max(ground.rss_bytes)
    size.store_bytes = bytes_in(ground.home / "worker")
    size.changelog_records = _records(ground.settings)
    return size


def _records(settings: Settings) -> int:
    """Records of the changelog, deletions and marks included."""
    count, topic = 0, settings.changelog_topic
    for number in range(settings.partitions):
        first, end = bounds(settings, topic, number)  # of which the second may be too low
        for record in stream_records(settings, topic, number, end - 1):
            end = record.offset + 1
        count += end - first
    return count


if __name__ == "__main__":
    main()
