"""Events per second of 1, 2 and 4 workers over 8 and 32 partitions, and of one worker on one core.

    python -m tests.benchmarks.scale_out [--events N] [--bootstrap HOST:PORT] [--json FILE]

Each case has a broker of its own, unless --bootstrap names a cluster. When the workers share all
partitions the log is written as fast as it goes. The rates are those from its end until the first
worker has nothing left, so that every worker is busy all the time. Beside them stands how many
cores the broker and the workers kept busy, and how many nobody used: where none is left, the
machine is the limit. In one case the worker may use one core alone and the broker another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from stream_app.demo.processes import PROGRAM, WorkerProcess
from stream_app.errors import InterestStreamError
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.contenders import BenchmarkError, Metrics
from tests.benchmarks.processor_time import IDLE, Reading, confine, family, read
from tests.benchmarks.throughput import commit, machine
from tests.benchmarks.workload import InputRecord, make_records, produce

EVENTS = 800_000
WORKERS = (1, 2, 4)
PARTITIONS = (8, 32)
BROKER_CORE, WORKER_CORE = 0, 1
PINNED_PROGRAM = ("tests.benchmarks.pinned_worker", str(WORKER_CORE))
LOOK_S = 0.25
WAIT_S = 300.0
SHORTEST_S = 2.0
SPARE_CORES = 0.1
"""Fewer idle cores than these, and the machine is the limit."""
LAG, APPLIED = "interest_consumer_lag_events", "interest_events_total"


@dataclass(frozen=True)
class Case:
    """What one number of workers gave.

    pinned                 whether worker and broker had one core each
    seconds                from the end of the log until the first worker had nothing left
    rates                  events/s of each worker in that time
    shares                 partitions of each worker
    cores                  kept busy in that time by the broker, if it is ours, and each worker
    producer_us_per_event  processor time of writing the log, before that time
    """

    workers: int
    partitions: int
    pinned: bool
    seconds: float
    rates: list[float]
    shares: list[int]
    cores: dict[str, float]
    producer_us_per_event: float

    @property
    def rate(self) -> float:
        """Events/s of all workers."""
        return sum(self.rates)

    @property
    def fairness(self) -> float:
        """The rate of the slowest worker over that of the fastest."""
        return min(self.rates) / max(self.rates)

    @property
    def worker_cores(self) -> float:
        """Cores that all workers kept busy."""
        return sum(self.cores[_name(number)] for number in range(self.workers))

    @property
    def limit(self) -> str:
        """What keeps the rate from being higher."""
        if self.pinned:
            return "one core"
        return "the machine" if self.cores[IDLE] < SPARE_CORES else "the workers"

    def figures(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        broker = self.cores.get("broker")
        return {
            **asdict(self),
            "events_per_second": self.rate,
            "fairness": self.fairness,
            "limit": self.limit,
            "worker_us_per_event": 1e6 * self.worker_cores / self.rate,
            "broker_us_per_event": None if broker is None else 1e6 * broker / self.rate,
        }


@dataclass(frozen=True)
class Look:
    """All workers at one time: events applied, and events that wait, of each."""

    cpu: Reading
    applied: list[float]
    waiting: list[float]


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    parser = argparse.ArgumentParser(description="Measure how the rate grows with the workers.")
    parser.add_argument("--events", type=int, default=EVENTS, metavar="N", help="of the log")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a cluster; a broker by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    arguments = parser.parse_args()
    console = Console()
    try:
        cases = run(arguments.events, arguments.bootstrap, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BenchmarkError, InterestStreamError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    console.print(rates_table(cases))
    if arguments.json is not None:
        figures = {
            "events": arguments.events,
            "cases": [case.figures() for case in cases],
            "commit": commit(),
            "machine": machine(),
        }
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def run(events: int, bootstrap: str | None, console: Console) -> list[Case]:
    """All cases; the pinned one where there are two cores."""
    cases = []
    for partitions in PARTITIONS:
        records = make_records(events, partitions)
        pinned = (os.cpu_count() or 1) > 1 and partitions == min(PARTITIONS)
        for workers, alone in [*((number, False) for number in WORKERS), *[(1, True)] * pinned]:
            cases.append(measure(workers, records, partitions, bootstrap, alone))
            console.print(
                f"{workers} workers, {partitions} partitions{', pinned' * alone}: "
                f"{cases[-1].rate:,.0f} events/s"
            )
    return cases


def measure(
    count: int,
    records: list[InputRecord],
    partitions: int,
    bootstrap: str | None,
    pinned: bool,
) -> Case:
    """One case, with workers and topics of its own."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interest-scale-")))
        settings, brokers = stack.enter_context(cluster(bootstrap, home, partitions))
        overrides = worker_overrides(settings, home)
        if pinned:
            confine(brokers, BROKER_CORE)
        workers = []
        for number in range(count):
            program = PINNED_PROGRAM if pinned else PROGRAM
            workers.append(WorkerProcess(overrides, home, _name(number), program))
            stack.callback(workers[-1].kill)
        shares = _wait_for_shares(workers, partitions)
        parts = {_name(number): family(worker.pid) for number, worker in enumerate(workers)}
        if brokers:
            parts["broker"] = brokers
        spent_s = time.process_time()
        produce(settings, records)
        producer_s = time.process_time() - spent_s
        first, last = _while_all_are_busy(workers, parts)
    seconds = last.cpu.at_s - first.cpu.at_s
    if seconds < SHORTEST_S:
        raise BenchmarkError(f"All was done in {seconds:.1f} s; give more --events.")
    return Case(
        workers=count,
        partitions=partitions,
        pinned=pinned,
        seconds=seconds,
        rates=[(b - a) / seconds for a, b in zip(first.applied, last.applied, strict=True)],
        shares=shares,
        cores=last.cpu.cores_since(first.cpu),
        producer_us_per_event=1e6 * producer_s / len(records),
    )


def _name(number: int) -> str:
    return f"worker-{number}"


def _wait_for_shares(workers: list[WorkerProcess], partitions: int) -> list[int]:
    """How many partitions each worker has, when all are ready and every partition has one owner."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        shares = [_partitions_of(worker.metrics()) for worker in workers]
        owned = [number for share in shares for number in share]
        is_shared = sorted(owned) == list(range(partitions)) and all(shares)
        if is_shared and all(worker.is_ready() for worker in workers):
            return [len(share) for share in shares]
        for worker in workers:
            worker.check_alive()
        time.sleep(LOOK_S)
    raise BenchmarkError(f"{len(workers)} workers do not share {partitions} partitions in time.")


def _partitions_of(seen: Metrics) -> set[int]:
    return {int(labels[1]) for name, labels in seen if name == LAG}


def _while_all_are_busy(workers: list[WorkerProcess], parts: dict[str, Any]) -> tuple[Look, Look]:
    """The first look, and the last one at which every worker still has events that wait."""
    deadline = time.monotonic() + WAIT_S
    first = last = _look(workers, parts)
    while time.monotonic() < deadline:
        time.sleep(LOOK_S)
        now = _look(workers, parts)
        if not all(now.waiting):
            return first, last
        last = now
    raise BenchmarkError(f"The workers did not come to the end of the log in {WAIT_S:g} s.")


def _look(workers: list[WorkerProcess], parts: dict[str, Any]) -> Look:
    for worker in workers:
        worker.check_alive()
    seen = [worker.metrics() for worker in workers]
    return Look(
        cpu=read(parts),
        applied=[_sum(metrics, APPLIED) for metrics in seen],
        waiting=[_sum(metrics, LAG) for metrics in seen],
    )


def _sum(seen: Metrics, name: str) -> float:
    return sum(value for (sample, _), value in seen.items() if sample == name)


def rates_table(cases: list[Case]) -> Table:
    """Rates and cores of each case."""
    table = Table(
        title="How the rate grows with the workers",
        caption="Rates while every worker is busy. Fairness: the slowest worker over the fastest. "
        "Cores: kept busy; idle: by nobody. Us: processor time of all workers per event.",
        caption_justify="left",
    )
    table.add_column("workers", no_wrap=True)
    for name in ("partitions", "events/s", "fairness", "workers", "broker", "idle", "us", "limit"):
        table.add_column(name, justify="right")
    for case in cases:
        broker = case.cores.get("broker")
        table.add_row(
            f"{case.workers}{', one core' * case.pinned}",
            str(case.partitions),
            f"{case.rate:,.0f}",
            f"{case.fairness:.2f}",
            f"{case.worker_cores:.2f}",
            "-" if broker is None else f"{broker:.2f}",
            f"{case.cores[IDLE]:.2f}",
            f"{1e6 * case.worker_cores / case.rate:.1f}",
            case.limit,
        )
    return table


if __name__ == "__main__":
    main()
