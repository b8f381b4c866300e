"""Latency from produce to the output in another process, at shares of the throughput.

    python -m tests.benchmarks.latency [--quick] [--rounds N] [--throughput N] [--seconds S]
        [--bootstrap HOST:PORT] [--json FILE]

A producer, the worker and a consumer, each a process of its own, at 10, 50 and 80 % of the worker's
throughput, which is measured first unless it is given. The latency of an event runs from the time
at which it was due until the consumer has its recommendation (paced_producer.py, output_reader.py).
Beside each rate stands the same chain without the worker: the consumer then reads the events
themselves, which is what producer, broker, consumer and machine take alone.

Every case has an embedded broker of its own, unless --bootstrap names a cluster, and comes once a
round. latency_noida.py measures the same on another broker.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
from rich.console import Console

from stream_app.demo.processes import WorkerProcess
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, make_parser, publish
from tests.benchmarks.contenders import Place, measure_worker
from tests.benchmarks.ends import End
from tests.benchmarks.latency_sections import (
    EMBEDDED,
    Broker,
    Case,
    goals_of,
    latency_section,
    stays_section,
)
from tests.benchmarks.output_reader import Seen
from tests.benchmarks.paced_producer import Sent
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.processor_time import family, read
from tests.benchmarks.where_time_goes import Stay, stay_between
from tests.benchmarks.workload import make_records, produce
from tests.command_line import make_console

SHARES = (0.1, 0.5, 0.8)
PARTITIONS = 8
EVENTS = 400_000
"""Of the log by which the throughput is measured."""
ROUNDS = 3
QUICK_ROUNDS = 1
SECONDS = 20.0
QUICK_SECONDS = 5.0
WARM_UP_S = 5.0
DRAIN_S = 30.0
"""How long what was sent may take to come out."""
SETTLE_S = 1.0
PERCENTILES = (50, 99, 99.9)


def main() -> None:
    """Measure on the embedded broker, or the cluster that is named."""
    parser = make_latency_parser()
    parser.add_argument(
        "--bootstrap", metavar="HOST:PORT", help="a cluster; a broker of its own by default"
    )
    arguments = parser.parse_args()
    measure_all(arguments, EMBEDDED, arguments.bootstrap)


def measure_all(
    arguments: argparse.Namespace,
    broker: Broker,
    bootstrap: str | None,
    processes: Sequence[psutil.Process] = (),
) -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted.

    Args:
        arguments: of the command line.
        broker: where it is measured, and what repeats it.
        bootstrap: of a cluster; None starts an embedded broker for each case.
        processes: of the cluster, whose processor time is told.
    """
    console = make_console()
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    with ending(console):
        with tempfile.TemporaryDirectory(prefix="interest-latency-") as folder:
            home = Path(folder)
            throughput = arguments.throughput or measure_throughput(home, bootstrap)
            console.print(f"The worker's throughput is {throughput:,.0f} events/s.")
            cases = run(throughput, seconds, rounds, bootstrap, processes, home, console)
        goals = goals_of(cases, broker)
        publish(
            console,
            arguments.json,
            broker.module,
            f"python -m tests.benchmarks.{broker.module} --rounds {rounds} --seconds {seconds:g}",
            [latency_section(cases, throughput, goals, broker), stays_section(cases, broker)],
            {
                "throughput_events_per_s": throughput,
                "seconds": seconds,
                "warm_up_s": WARM_UP_S,
                "partitions": PARTITIONS,
                "cases": [asdict(case) for case in cases],
            },
            goals,
        )


def make_latency_parser() -> argparse.ArgumentParser:
    """The options that do not depend on where it is measured."""
    parser = make_parser(
        "Measure the latency from produce to output.", "one round, short cases", ROUNDS
    )
    parser.add_argument(
        "--throughput", type=float, metavar="N", help="events/s of the worker; measured by default"
    )
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"of each case, {SECONDS:g} by default"
    )
    return parser


def run(
    throughput: float,
    seconds: float,
    rounds: int,
    bootstrap: str | None,
    processes: Sequence[psutil.Process],
    home: Path,
    console: Console,
) -> list[Case]:
    """All rates with and without the worker, round by round."""
    cases = []
    for number in range(rounds):
        for share in SHARES:
            for worker in (False, True):
                place = home / f"{number}-{share:g}-{worker}"
                place.mkdir()
                cases.append(
                    measure(share, throughput, seconds, worker, place, bootstrap, processes)
                )
                console.print(
                    f"Round {number + 1} of {rounds}: {_sentence(cases[-1])}", highlight=False
                )
    return cases


def measure_throughput(home: Path, bootstrap: str | None) -> float:
    """Events a second that the worker applies of a log that waits for it."""
    with cluster(bootstrap, home, PARTITIONS) as (settings, _):
        overrides = worker_overrides(settings, home)
        produce(settings, make_records(EVENTS, PARTITIONS))
        return measure_worker(Place(overrides, home, EVENTS)).events_per_second


def measure(
    share: float,
    throughput: float,
    seconds: float,
    with_worker: bool,
    home: Path,
    bootstrap: str | None,
    processes: Sequence[psutil.Process],
) -> Case:
    """One rate, with or without the worker."""
    rate = share * throughput
    with ExitStack() as stack:
        settings, own = stack.enter_context(cluster(bootstrap, home, PARTITIONS))
        overrides = worker_overrides(settings, home)
        brokers = [*own, *processes]
        parts = {"broker": brokers} if brokers else {}
        worker = None
        if with_worker:
            worker = WorkerProcess(overrides, home)
            stack.callback(worker.kill)
            worker.wait_until_ready()
            parts["worker"] = family(worker.pid)
        seen, sent = home / "seen.npz", home / "sent.npz"
        options = ["--result", str(seen), *([] if with_worker else ["--inputs"])]
        reader = End("output_reader", options, overrides, home)
        stack.callback(reader.kill)
        reader.wait_for_word()
        options = ["--result", str(sent), "--rate", str(rate)]
        options += ["--seconds", str(WARM_UP_S + seconds)]
        producer = End("paced_producer", options, overrides, home)
        stack.callback(producer.kill)
        producer.wait_for_word()
        parts |= {"producer": family(producer.pid), "consumer": family(reader.pid)}
        time.sleep(WARM_UP_S)
        before, metrics = read(parts), worker.metrics() if worker else {}
        time.sleep(seconds)
        after = read(parts)
        took_s = after.at_s - before.at_s
        stay = stay_between(metrics, worker.metrics(), took_s) if worker else None
        producer.wait(DRAIN_S)
        drain_s = _drain(worker, len(Sent.load(sent).kind)) if worker else None
        time.sleep(SETTLE_S)
        reader.end()
    return _case(share, rate, drain_s, after.cores_since(before), stay, Sent.load(sent), seen)


def _drain(worker: WorkerProcess, events: int) -> float:
    """Seconds until the worker has applied all events, after the last one was acknowledged."""
    began = time.monotonic()
    while (left := events - _applied(worker)) > 0:
        worker.check_alive()
        if time.monotonic() - began > DRAIN_S:
            raise BenchmarkError(f"{left:,} of {events:,} events wait after {DRAIN_S:g} s.")
        time.sleep(0.02)
    return time.monotonic() - began


def _applied(worker: WorkerProcess) -> int:
    metrics = worker.metrics()
    return int(sum(n for (name, _), n in metrics.items() if name == "interest_events_total"))


def _case(
    share: float,
    rate: float,
    drain_s: float | None,
    cores: dict[str, float],
    stay: Stay | None,
    sent: Sent,
    file: Path,
) -> Case:
    seen = Seen.load(file)
    due_ns = sent.due_at(seen.kind, seen.partition, seen.offset)
    first_ns = sent.due_ns[0] + WARM_UP_S * 1e9
    latency_ms = (seen.seen_ns - due_ns)[due_ns >= first_ns] / 1e6
    late_ms = (sent.handed_ns - sent.due_ns)[sent.due_ns >= first_ns] / 1e6
    p50, p99, p999 = np.percentile(latency_ms, PERCENTILES).tolist()
    late = float(np.percentile(late_ms, 99))
    return Case(
        share, rate, stay is not None, len(latency_ms), p50, p99, p999, late, drain_s, cores, stay
    )


def _sentence(case: Case) -> str:
    return (
        f"{case.share:.0%} {'worker' if case.worker else 'floor '} {case.rate:8,.0f}/s  "
        f"p50 {case.p50_ms:.1f}  p99 {case.p99_ms:.1f}  p99.9 {case.p999_ms:.1f} ms"
    )


if __name__ == "__main__":
    main()
