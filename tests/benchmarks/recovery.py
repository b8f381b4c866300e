"""How long a worker takes to have its rows: from the changelog, and from a standby's copy.

    python -m tests.benchmarks.recovery [--quick] [--rounds N] [--users N] [--json FILE]

The changelog has one row of each user before anything is measured (filled.py). A round starts a
worker with an empty data folder, and waits until it is ready. Afterwards a second worker joins it,
each keeps a copy of the other's rows, and the first is killed: a takeover lasts from there until
the second works on all partitions and is ready. Nothing is produced meanwhile.

Beside it stands what the libraries take for the same records in this process: aiokafka's consumer
that reads them, and the same with RocksDB that gets them as they come, unlooked at; and how long
the broker takes to let a consumer into a group of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil
import rocksdict
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from model.evaluation.goals import Goal
from stream_app.demo.processes import WorkerProcess
from stream_app.lane.table import WorkerBudget
from stream_app.settings import Settings
from stream_app.terminal import stages
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.figures import Spread
from tests.benchmarks.filled import (
    PARTITIONS,
    ROW_RECORD_BYTES,
    broker_for,
    fill,
    make_templates,
)
from tests.benchmarks.goals import as_list
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.results import Plot, Section, Series, Table
from tests.command_line import make_console
from tests.failures.chaos.brokers import bytes_in

USERS = 1_000_000
QUICK_USERS = 100_000
ROUNDS = 3
QUICK_ROUNDS = 1
GOAL_ROWS_PER_S = 150_000
GOAL_TAKEOVER_S = 5.0
"""Beside the session timeout, after which the group gives a dead worker's partitions away."""
TIMEOUT_S = 900.0
LOOK_S = 0.05
STILL_S = 3.0
"""A store that has not grown for so long is a whole copy."""
MB = 1e6


@dataclass
class Start:
    """One start with an empty data folder.

    join_s      from the start of the process until the recovery begins
    recovery_s  from there until the worker is ready
    """

    join_s: float
    recovery_s: float
    rss_peak_bytes: int


@dataclass
class Takeover:
    """A kill, and how long until the other worker has everything."""

    seconds: float
    session_timeout_s: float


@dataclass
class Floor:
    """What libraries and broker take alone.

    read_s    to read all records
    stored_s  to read and store them
    join_s    to join a group that has no other member
    """

    read_s: float
    stored_s: float
    join_s: float


@dataclass
class Measured:
    """All figures."""

    users: int
    broker: str
    floors: list[Floor] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    takeovers: list[Takeover] = field(default_factory=list)

    @property
    def rows_per_second(self) -> Spread:
        """Of the recovery alone."""
        return Spread.of([self.users / start.recovery_s for start in self.starts])

    @property
    def read_per_second(self) -> Spread:
        """Of aiokafka's consumer alone."""
        return Spread.of([self.users / floor.read_s for floor in self.floors])

    @property
    def stored_per_second(self) -> Spread:
        """Of aiokafka's consumer and RocksDB alone."""
        return Spread.of([self.users / floor.stored_s for floor in self.floors])


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    parser = make_parser("Measure how long a recovery takes.", "one round, few rows", ROUNDS)
    parser.add_argument("--users", type=positive, metavar="N", help="rows of the changelog")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    users = arguments.users or (QUICK_USERS if arguments.quick else USERS)
    console = make_console()
    with ending(console):
        measured = run(users, rounds, console)
        goals = goals_of(measured)
        publish(
            console,
            arguments.json,
            "recovery",
            f"python -m tests.benchmarks.recovery --rounds {rounds} --users {users}",
            [section(measured, goals)],
            asdict(measured),
            goals,
        )


def run(users: int, rounds: int, console: Console) -> Measured:
    """Fill a changelog, and measure starts and takeovers."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interest-recovery-")))
        show = stack.enter_context(stages(console))
        rows = make_templates(home, show)
        broker, bootstrap = broker_for(users * ROW_RECORD_BYTES, home, stack)
        settings, _ = stack.enter_context(cluster(bootstrap, home, PARTITIONS))
        fill(settings, rows, users, show)
        overrides = {**worker_overrides(settings, home), "standby_replicas": 1}
        measured = Measured(users, broker)
        for number in range(rounds):
            show("Rounds", number, rounds)
            measured.floors.append(_floor(settings, users, home / f"floor-{number}"))
            one = WorkerProcess(overrides, home, f"one-{number}")
            stack.callback(one.kill)
            measured.starts.append(_start(one))
            two = WorkerProcess(overrides, home, f"two-{number}")
            stack.callback(two.kill)
            measured.takeovers.append(_take_over(one, two, settings, overrides, home, number))
            two.stop()
        show("Rounds", rounds, rounds)
        return measured


def _floor(settings: Settings, users: int, folder: Path) -> Floor:
    began = time.monotonic()
    asyncio.run(_read(settings, users, None))
    read_at = time.monotonic()
    asyncio.run(_read(settings, users, folder))
    stored_at = time.monotonic()
    asyncio.run(_join(settings))
    return Floor(read_at - began, stored_at - read_at, time.monotonic() - stored_at)


async def _join(settings: Settings) -> None:
    """Be the only member of a new group, with the partitions of a topic."""
    consumer = AIOKafkaConsumer(
        settings.clicks_topic,
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=f"floor-{uuid.uuid4().hex}",
    )
    await consumer.start()  # waits for its partitions
    await consumer.stop()


async def _read(settings: Settings, users: int, folder: Path | None) -> None:
    """Read all records of the changelog, and put them into stores in a folder where one is named.

    A store for each partition, with the worker's options.
    """
    budget = WorkerBudget(settings.rocksdb_cache_mb)
    stores: dict[int, rocksdict.Rdict] = {}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        check_crcs=False,
    )
    consumer.assign([TopicPartition(settings.changelog_topic, n) for n in range(PARTITIONS)])
    await consumer.start()
    try:
        count = 0
        while count < users:
            for place, records in (await consumer.getmany(timeout_ms=1000)).items():
                count += len(records)
                if folder is None:
                    continue
                if place.partition not in stores:
                    path = folder / f"{place.partition}.db"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stores[place.partition] = budget.open(path)
                batch = rocksdict.WriteBatch(raw_mode=True)
                for record in records:
                    batch.put(record.key, record.value)
                stores[place.partition].write(batch)
    finally:
        for store in stores.values():
            store.close()
        await consumer.stop()


def _start(worker: WorkerProcess) -> Start:
    """Wait until a worker that has just been started is ready."""
    began = time.monotonic()
    recovering_at: float | None = None
    rss = 0
    process = psutil.Process(worker.pid)

    def is_ready() -> bool:
        nonlocal recovering_at, rss
        rss = max(rss, process.memory_info().rss)
        if recovering_at is None and _metric(worker, "interest_recovery_remaining_records") > 1:
            recovering_at = time.monotonic()
        return worker.is_ready()

    _wait_until(is_ready, worker, "is ready")
    ready_at = time.monotonic()
    begins_at = recovering_at or began
    return Start(begins_at - began, ready_at - begins_at, rss)


def _take_over(
    one: WorkerProcess,
    two: WorkerProcess,
    settings: Settings,
    overrides: dict[str, object],
    home: Path,
    number: int,
) -> Takeover:
    """Let each worker have a copy of the other's rows, kill one, and wait for the other."""
    _wait_until(lambda: 0 < _owned(two, settings) < PARTITIONS, two, "has its share")
    _wait_until(two.is_ready, two, "is ready")
    folder, sizes = home / f"two-{number}", [0]
    while len(sizes) * LOOK_S < STILL_S or sizes[-1] != sizes[-int(STILL_S / LOOK_S)]:
        sizes.append(bytes_in(folder))
        time.sleep(LOOK_S)
    began = time.monotonic()
    one.kill()
    _wait_until(
        lambda: _owned(two, settings) == PARTITIONS and two.is_ready(), two, "has taken over"
    )
    timeout_s = float(str(overrides["session_timeout_s"]))
    return Takeover(time.monotonic() - began, timeout_s)


def _owned(worker: WorkerProcess, settings: Settings) -> int:
    """Partitions that the worker works on."""
    lags = [name for name, _ in worker.metrics() if name == "interest_consumer_lag_events"]
    return len(lags) // len(settings.input_topics)


def _metric(worker: WorkerProcess, name: str) -> float:
    return sum(value for (found, _), value in worker.metrics().items() if found == name)


def _wait_until(reached: Callable[[], bool], worker: WorkerProcess, what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        worker.check_alive()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"After {TIMEOUT_S:g} s it is not true that the worker {what}.")
        time.sleep(LOOK_S)


def goals_of(measured: Measured) -> list[Goal]:
    """Rows a second, and the takeover beyond the session timeout."""
    beyond = [one.seconds - one.session_timeout_s for one in measured.takeovers]
    return [
        Goal(
            f"recovery of {measured.users:,} rows",
            "at least",
            GOAL_ROWS_PER_S,
            measured.rows_per_second.median,
            "rows/s",
        ),
        Goal(
            "takeover with a copy, beyond the session timeout",
            "at most",
            GOAL_TAKEOVER_S,
            statistics.median(beyond),
            "s",
            1,
        ),
    ]


def cause(measured: Measured) -> str:
    """How much of recovery and takeover the libraries and the broker take."""
    alone, whole = measured.stored_per_second.median, measured.rows_per_second.median
    join_s = statistics.median(floor.join_s for floor in measured.floors)
    return (
        f"Reading and storing alone take {1e6 / alone:.1f} us a row, in one process whose threads "
        "share the interpreter. A recovery, which also keeps the later of two states of a user and "
        f"reports progress, takes {1e6 / whole:.1f} us. The broker lets the only member of a new "
        f"group in after {join_s:.1f} s, and a takeover waits for such a join."
    )


def section(measured: Measured, goals: list[Goal]) -> Section:
    """One row a round, and the rate as bars."""
    rounds = list(zip(measured.floors, measured.starts, measured.takeovers, strict=True))
    rows = [
        [
            str(number),
            f"{measured.users / floor.read_s:,.0f}",
            f"{measured.users / floor.stored_s:,.0f}",
            f"{start.join_s:.1f}",
            f"{start.recovery_s:.1f}",
            f"{measured.users / start.recovery_s:,.0f}",
            f"{start.rss_peak_bytes / MB:,.0f}",
            f"{takeover.seconds:.1f}",
        ]
        for number, (floor, start, takeover) in enumerate(rounds, start=1)
    ]
    spreads = {
        "aiokafka alone": measured.read_per_second,
        "aiokafka and RocksDB": measured.stored_per_second,
        "recovery": measured.rows_per_second,
    }
    return Section(
        name="recovery",
        title="Recovery",
        text=(
            f"{measured.users:,} rows in the changelog of {PARTITIONS} partitions, on "
            f"{measured.broker}. Join: from the start of the process until the recovery begins. "
            "Recovery: from there until /readyz says ready. aiokafka: its consumer reads the same "
            "records and does nothing with them; and RocksDB: it stores them as they come, with "
            "the worker's options. Takeover: from kill -9 of one of two workers until the other, "
            "which has a copy, works on all partitions; the group waits "
            f"for the session timeout of {measured.takeovers[0].session_timeout_s:g} s first.\n\n"
            + cause(measured)
            + as_list(goals)
        ),
        table=Table(
            [
                "round",
                "aiokafka rows/s",
                "and RocksDB",
                "join s",
                "recovery s",
                "rows/s",
                "memory MB",
                "takeover s",
            ],
            rows,
        ),
        plot=Plot(
            kind="bars",
            x_label="",
            y_label="rows/s",
            series=[
                Series(name, [name], [rate.median], [rate.lowest], [rate.highest])
                for name, rate in spreads.items()
            ],
        ),
    )


if __name__ == "__main__":
    main()
