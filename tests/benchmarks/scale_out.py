"""Events per second of 1, 2 and 4 workers over 8 and 32 partitions, and of one worker on one core.

    python -m tests.benchmarks.scale_out [--quick] [--rounds N] [--events N]
        [--bootstrap HOST:PORT] [--json FILE]

Each case comes once a round, with a broker of its own unless --bootstrap names a cluster. When the
workers share all partitions they are stopped (SIGSTOP) while the log is written, so that all of it
waits for them and its writing takes nothing of their time. The rates are those from when they go on
until the first worker has nothing left, so that every worker is busy all the time. Beside them
stands how many cores the broker and the workers kept busy, and how many nobody used: where none is
left, the machine is the limit. In one case the worker may use one core alone, the broker another.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from stream_app.demo.processes import PROGRAM, WorkerProcess
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.contenders import Metrics
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.processor_time import Reading, confine, family, read
from tests.benchmarks.scale_out_section import Case, scale_out_section, worker_name
from tests.benchmarks.workload import InputRecord, make_records, produce
from tests.command_line import make_console

EVENTS = 300_000
QUICK_EVENTS = 150_000
ROUNDS = 3
QUICK_ROUNDS = 1
WORKERS = (1, 2, 4)
PARTITIONS = (8, 32)
BROKER_CORE, WORKER_CORE = 0, 1
PINNED_PROGRAM = ("tests.benchmarks.pinned_worker", str(WORKER_CORE))
LOOK_S = 0.25
WAIT_S = 300.0
SHORTEST_S = 2.0
STOPPED_S = 60.0
"""The session timeout of the workers, which send no heartbeat while they are stopped."""
LAG, APPLIED = "interest_consumer_lag_events", "interest_events_total"


@dataclass(frozen=True)
class Look:
    """All workers at one time: events applied, and events that wait, of each."""

    cpu: Reading
    applied: list[float]
    waiting: list[float]


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    arguments = _arguments()
    console = make_console()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    events = arguments.events or (QUICK_EVENTS if arguments.quick else EVENTS)
    with ending(console):
        cases = run(events, rounds, arguments.bootstrap, console)
        publish(
            console,
            arguments.json,
            "scale_out",
            f"python -m tests.benchmarks.scale_out --rounds {rounds} --events {events}",
            [scale_out_section(cases, os.cpu_count() or 1)],
            {"events": events, "cases": [case.figures() for case in cases]},
        )


def _arguments() -> argparse.Namespace:
    parser = make_parser(
        "Measure how the rate grows with the workers.", "one round, a shorter log", ROUNDS
    )
    parser.add_argument("--events", type=positive, metavar="N", help="of the log")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a cluster; a broker by default")
    return parser.parse_args()


def run(events: int, rounds: int, bootstrap: str | None, console: Console) -> list[Case]:
    """All cases, round by round; the pinned one where there are two cores."""
    logs = {partitions: make_records(events, partitions) for partitions in PARTITIONS}
    plan = [(number, partitions, False) for partitions in PARTITIONS for number in WORKERS]
    if (os.cpu_count() or 1) > 1:
        plan.append((1, min(PARTITIONS), True))
    cases = []
    for number in range(rounds):
        for workers, partitions, pinned in plan:
            case = measure(workers, logs[partitions], partitions, bootstrap, pinned)
            cases.append(case)
            console.print(
                f"Round {number + 1} of {rounds}: {workers} workers, {partitions} partitions"
                f"{', one core each' * pinned}: {case.rate:,.0f} events/s",
                highlight=False,
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
        overrides = worker_overrides(settings, home) | {"session_timeout_s": STOPPED_S}
        if pinned:
            confine(brokers, BROKER_CORE)
        workers = []
        for number in range(count):
            program = PINNED_PROGRAM if pinned else PROGRAM
            workers.append(WorkerProcess(overrides, home, worker_name(number), program))
            stack.callback(workers[-1].kill)
        shares = _wait_for_shares(workers, partitions)
        parts = {worker_name(number): family(worker.pid) for number, worker in enumerate(workers)}
        spent_s = time.process_time()
        with _stopped([process for processes in parts.values() for process in processes]):
            produce(settings, records)
        producer_s = time.process_time() - spent_s
        if brokers:
            parts["broker"] = brokers
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


@contextmanager
def _stopped(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Keeps processes from running."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            process.resume()


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
    # The labels of a sample are exposed in the order of their names: partition, topic.
    return {int(labels[0]) for name, labels in seen if name == LAG}


def _while_all_are_busy(workers: list[WorkerProcess], parts: dict[str, Any]) -> tuple[Look, Look]:
    """The first and the last look at which every worker has events that wait.

    A worker knows of them when its first fetch is back, and may have none for a moment.
    """
    deadline = time.monotonic() + WAIT_S
    first = last = None
    while time.monotonic() < deadline:
        now = _look(workers, parts)
        if all(now.waiting):
            first, last = first or now, now
        if first is not None and last is not None and not any(now.waiting):
            return first, last
        time.sleep(LOOK_S)
    raise BenchmarkError(
        f"The workers were not all busy, or not at the end of the log, in {WAIT_S:g} s."
    )


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


if __name__ == "__main__":
    main()
