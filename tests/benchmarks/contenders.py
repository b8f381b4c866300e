"""The contenders of the throughput benchmark: each a fresh process, measured once per round."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from stream_app import topics
from stream_app.demo.processes import WorkerProcess
from stream_app.metrics import EVENT_TYPES, STAGES
from stream_app.settings import PREFIX, Settings
from tests.benchmarks.processes import WAIT_S, BenchmarkError, python_path, run_until
from tests.benchmarks.results import QUIX_FOLDER, installed
from tests.workers import committed_events

SCRAPE_S = 0.1
COMMIT_WAIT_S = 20.0

Metrics = dict[tuple[str, tuple[str, ...]], float]
_DECODED = ("interest_stage_seconds_count", ("decode",))


@dataclass(frozen=True)
class Measurement:
    """What one contender did in one round.

    seconds      from the first to the last processed event; ``events`` are those in between
    cpu_seconds  processor time of its process in that time; None where the system does not tell
    stages_us    microseconds per event by stage, where the contender tells them
    """

    events: int
    seconds: float
    cpu_seconds: float | None
    recommendations: int
    drifts: int
    stages_us: dict[str, float] = field(default_factory=dict)

    @property
    def events_per_second(self) -> float:
        """The rate."""
        return self.events / self.seconds

    @property
    def cpu_us_per_event(self) -> float | None:
        """Processor time per event: it depends less on what else the machine does."""
        return None if self.cpu_seconds is None else 1e6 * self.cpu_seconds / self.events


@dataclass(frozen=True)
class Place:
    """Where a contender works: its settings (as fields of Settings) and a folder of its own."""

    overrides: dict[str, object]
    home: Path
    events: int

    def settings(self) -> Settings:
        """The settings as a contender's process reads them."""
        return Settings(**self.overrides)


@dataclass(frozen=True)
class Contender:
    """A row of the table: what it is, what it does, and how it is measured.

    log       which of the logs it reads: "large", "small", "single" or, in memory, "none"
    left_out  a sentence that says why it cannot be measured here, None when it can
    is_in_quick  whether a quick run has it: the ratios that have a goal need it
    """

    name: str
    what: str
    log: str
    measure: Callable[[Place], Measurement]
    left_out: Callable[[], str | None] = lambda: None
    is_in_quick: bool = True


def measure_worker(
    place: Place, committed: int = 0, look: Callable[[int], None] = lambda pid: None
) -> Measurement:
    """The worker as a user starts it, watched through its /metrics.

    The time runs from the last look at which nothing was decoded to the first at which everything
    was acknowledged, so it is too long by up to two looks.

    Args:
        committed: events that an earlier worker of the group has committed.
        look: called with the worker's process id at every look.
    """
    settings = place.settings()
    topics.create(settings)
    worker = WorkerProcess(place.overrides, place.home)
    try:
        deadline = time.monotonic() + WAIT_S
        seen: Metrics = {}
        before = now = _Clock.read(worker.pid)
        while _applied(seen) < place.events:
            worker.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"The worker applied {_applied(seen):,} of {place.events:,} events in "
                    f"{WAIT_S:g} s; its log ends with: {worker.last_line()}"
                )
            time.sleep(SCRAPE_S)
            asked = _Clock.read(worker.pid)
            seen = worker.metrics() or seen
            now = _Clock.read(worker.pid)
            look(worker.pid)
            if seen and not seen[_DECODED]:
                before = asked
        _wait_for_commit(settings, committed + place.events)
    finally:
        worker.stop()
    return Measurement(
        events=place.events,
        seconds=now.seconds - before.seconds,
        cpu_seconds=now.cpu_since(before),
        recommendations=int(_total(seen, "interest_recommendations_total")),
        drifts=int(_total(seen, "interest_drift_events_total")),
        stages_us={
            stage: 1e6 * seen.get(("interest_stage_seconds_sum", (stage,)), 0.0) / place.events
            for stage in STAGES
        },
    )


@dataclass(frozen=True)
class _Clock:
    """The time, and the processor time of a process, in seconds."""

    seconds: float
    cpu_seconds: float | None

    @classmethod
    def read(cls, pid: int) -> _Clock:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text("ascii")
        except OSError:
            return cls(time.perf_counter(), None)
        user, system = stat.rpartition(")")[2].split()[11:13]
        ticks = int(user) + int(system)
        return cls(time.perf_counter(), ticks / os.sysconf("SC_CLK_TCK"))

    def cpu_since(self, before: _Clock) -> float | None:
        if self.cpu_seconds is None or before.cpu_seconds is None:
            return None
        return self.cpu_seconds - before.cpu_seconds


def _applied(seen: Metrics) -> int:
    return int(
        sum(seen.get(("interest_events_total", (kind, "applied")), 0.0) for kind in EVENT_TYPES)
    )


def _total(seen: Metrics, name: str) -> float:
    return sum(value for (sample, _), value in seen.items() if sample == name)


def _wait_for_commit(settings: Settings, events: int) -> None:
    deadline = time.monotonic() + COMMIT_WAIT_S
    while committed_events(settings) < events:
        if time.monotonic() > deadline:
            raise BenchmarkError(
                f"The worker applied all events and committed {committed_events(settings):,} of "
                f"{events:,} within {COMMIT_WAIT_S:g} s."
            )
        time.sleep(0.2)


def measure_stock(place: Place) -> Measurement:
    """The stock agent with the product's transition."""
    topics.create(place.settings())
    return _measure_module("tests.benchmarks.stock_agent", [], place)


def measure_stock_light(place: Place) -> Measurement:
    """The stock agent with the network alone."""
    topics.create(place.settings())
    return _measure_module("tests.benchmarks.stock_agent", ["--light"], place)


def measure_quix(place: Place) -> Measurement:
    """The Quix Streams application with the product's transition."""
    topics.create(place.settings())
    return _measure_module("tests.benchmarks.quix_agent", [], place, [QUIX_FOLDER])


def measure_quix_light(place: Place) -> Measurement:
    """The Quix Streams application with the network alone."""
    topics.create(place.settings())
    return _measure_module("tests.benchmarks.quix_agent", ["--light"], place, [QUIX_FOLDER])


def no_quix() -> str | None:
    """Why Quix Streams cannot be measured, None when it can."""
    if installed("quixstreams") is not None:
        return None
    return "Quix Streams is left out: quixstreams is not installed, which `make bench` does."


def measure_limit(place: Place) -> Measurement:
    """The worker's own code in memory."""
    return _measure_module("tests.benchmarks.limit", [], place)


def _measure_module(
    module: str, options: list[str], place: Place, packages: Sequence[Path] = ()
) -> Measurement:
    """Runs a module of this folder until it has written its figures."""
    result = place.home / "result.json"
    command = [sys.executable, "-m", module, "--events", str(place.events)]
    own = {**place.overrides, "data_dir": place.home / "data"}
    variables = {f"{PREFIX}{name.upper()}": str(value) for name, value in own.items()}
    run_until(
        result,
        [*command, "--result", str(result), *options],
        place.home,
        {**variables, **python_path(packages)},
        Path.cwd(),
    )
    return msgspec.json.decode(result.read_bytes(), type=Measurement)


CONTENDERS = (
    Contender(
        "worker",
        "interest-stream worker, as a user starts it: outputs, changelog, store and offsets "
        "acknowledged in order",
        "large",
        measure_worker,
    ),
    Contender(
        "stock_faust",
        "stock Faust agents, one event at a time, the same transition on a batch of one: LSTM, "
        "drift test, ranking with reasons, table with changelog",
        "small",
        measure_stock,
    ),
    Contender(
        "stock_faust_light",
        "the same agents with the network alone: LSTMCell, a counter of categories, torch.topk "
        "over the catalogue; no drift test, no decay, no reasons",
        "small",
        measure_stock_light,
        is_in_quick=False,
    ),
    Contender(
        "quix_streams",
        "a Quix Streams application, one event at a time, the same transition on a batch of one: "
        "LSTM, drift test, ranking with reasons, RocksDB state with changelog, written at commits",
        "small",
        measure_quix,
        no_quix,
    ),
    Contender(
        "quix_streams_light",
        "the same application with the network alone, as in stock_faust_light",
        "small",
        measure_quix_light,
        no_quix,
        is_in_quick=False,
    ),
    Contender(
        "worker_one_partition",
        "the worker with all events in one partition, so that its stages follow each other",
        "single",
        measure_worker,
        is_in_quick=False,
    ),
    Contender(
        "limit",
        "the worker's own code in memory: decode, assemble, transition, encode, batches of 4,000; "
        "no Kafka, no store",
        "none",
        measure_limit,
    ),
)
