"""Latency from produce to the output in another process, at shares of the throughput.

    python -m tests.benchmarks.latency [--throughput N] [--seconds S] [--bootstrap HOST:PORT]
        [--json FILE]

A producer, the worker and a consumer, each a process of its own, at 10, 50 and 80 % of the worker's
throughput, which is measured first unless it is given. The latency of an event runs from the time
at which it was due until the consumer has its recommendation (paced_producer.py, output_reader.py).
Beside each rate stands the same chain without the worker: the consumer then reads the events
themselves, which is what producer, broker, consumer and machine take alone.

Every case has a broker of its own, unless --bootstrap names a cluster.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from stream_app.demo.processes import WorkerProcess
from stream_app.errors import InterestStreamError
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.contenders import BenchmarkError, Place, measure_worker
from tests.benchmarks.ends import End
from tests.benchmarks.output_reader import Seen
from tests.benchmarks.paced_producer import Sent
from tests.benchmarks.processor_time import family, read
from tests.benchmarks.throughput import EVENTS, PARTITIONS, commit, machine
from tests.benchmarks.where_time_goes import Stay, stay_between
from tests.benchmarks.workload import make_records, produce

SHARES = (0.1, 0.5, 0.8)
SECONDS = 30.0
WARM_UP_S = 5.0
DRAIN_S = 30.0
"""How long what was sent may take to come out."""
SETTLE_S = 1.0
PERCENTILES = (50, 99, 99.9)


@dataclass(frozen=True)
class Case:
    """What one rate gave.

    share, rate    of the throughput; events/s
    worker         whether the worker was between producer and consumer
    samples        events whose latency was taken
    p50_ms ...     from the time at which an event was due until it, or its list, was read
    late_p99_ms    how far behind its own rate the producer was, which is in the latency
    drain_s        from the last event sent until the worker had applied everything
    cores          that each process kept busy, out of the machine's
    stay           where the worker's share of the latency went
    """

    share: float
    rate: float
    worker: bool
    samples: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    late_p99_ms: float
    drain_s: float | None
    cores: dict[str, float]
    stay: Stay | None


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    parser = argparse.ArgumentParser(description="Measure the latency from produce to output.")
    parser.add_argument(
        "--throughput", type=float, metavar="N", help="events/s of the worker; measured by default"
    )
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="S", help="of each rate, 30 by default"
    )
    parser.add_argument(
        "--bootstrap", metavar="HOST:PORT", help="a cluster; a broker of its own by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    arguments = parser.parse_args()
    console = Console()
    try:
        figures = run(arguments.throughput, arguments.seconds, arguments.bootstrap, console)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BenchmarkError, InterestStreamError) as error:
        console.print(f"[red]{type(error).__name__}:[/] {error}", soft_wrap=True, highlight=False)
        sys.exit(1)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")


def run(
    throughput: float | None, seconds: float, bootstrap: str | None, console: Console
) -> dict[str, Any]:
    """All rates, with and without the worker, and the tables of what they gave."""
    with tempfile.TemporaryDirectory(prefix="interest-latency-") as folder:
        home = Path(folder)
        if throughput is None:
            throughput = measure_throughput(home, bootstrap)
            console.print(f"The worker's throughput is {throughput:,.0f} events/s.")
        cases = []
        for share in SHARES:
            for worker in (False, True):
                place = home / f"{share:g}-{worker}"
                place.mkdir()
                cases.append(measure(share, throughput, seconds, worker, place, bootstrap))
                console.print(_sentence(cases[-1]), highlight=False)
    console.print(latency_table(cases), stays_table(cases))
    return {
        "throughput_events_per_s": throughput,
        "seconds": seconds,
        "warm_up_s": WARM_UP_S,
        "partitions": PARTITIONS,
        "cases": [asdict(case) for case in cases],
        "commit": commit(),
        "machine": machine(),
    }


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
) -> Case:
    """One rate, with or without the worker."""
    rate = share * throughput
    with ExitStack() as stack:
        settings, brokers = stack.enter_context(cluster(bootstrap, home, PARTITIONS))
        overrides = worker_overrides(settings, home)
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


def latency_table(cases: list[Case]) -> Table:
    """Percentiles of each rate."""
    table = Table(
        title="Latency from produce to the consumer, ms",
        caption="Floor: the same chain without the worker. Late: p99 of how far the producer was "
        "behind its rate. Drain: until all that was sent was applied. Cores: kept busy.",
        caption_justify="left",
    )
    table.add_column("chain", no_wrap=True)
    for name in ("events/s", "samples", "p50", "p99", "p99.9", "late", "drain s", "cores"):
        table.add_column(name, justify="right")
    for case in cases:
        table.add_row(
            f"{case.share:.0%} {'worker' if case.worker else 'floor'}",
            f"{case.rate:,.0f}",
            f"{case.samples:,}",
            *(f"{ms:.1f}" for ms in (case.p50_ms, case.p99_ms, case.p999_ms, case.late_p99_ms)),
            "-" if case.drain_s is None else f"{case.drain_s:.1f}",
            "  ".join(f"{name} {cores:.2f}" for name, cores in case.cores.items()),
        )
    return table


def stays_table(cases: list[Case]) -> Table:
    """Where the time of an event goes in the worker."""
    table = Table(
        title="Where an event stays, mean ms",
        caption="Fetch: until the worker has it. Merge: until its batch begins. Batch: until its "
        "outputs are acknowledged. The steps are of a batch, and each has the wait for the broker.",
        caption_justify="left",
    )
    table.add_column("share")
    stays = [(case.share, case.stay) for case in cases if case.stay is not None]
    names = [*stays[0][1].event_ms, "batch events", "batches/s", *stays[0][1].batch_ms]
    for name in names:
        table.add_column(name, justify="right")
    for share, stay in stays:
        table.add_row(
            f"{share:.0%}",
            *(f"{ms:.1f}" for ms in stay.event_ms.values()),
            f"{stay.batch_events:.0f}",
            f"{stay.batches_per_s:.0f}",
            *(f"{ms:.2f}" for ms in stay.batch_ms.values()),
        )
    return table


if __name__ == "__main__":
    main()
