"""How long a worker takes to answer about a user while it applies events.

    python -m tests.benchmarks.user_endpoint [--quick] [--rates N ...] [--asked N] [--seconds S]
        [--without N] [--bootstrap HOST:PORT] [--json FILE]

A worker, a producer of so many events a second and one who asks, each a process of its own. Users
have rows before it begins. A question is due at its place in an even rate, and its time runs from
then on, whether a connection was free or not. /livez is asked in turn with it, which shows what
waiting for the worker's event loop takes alone. Where others use the processors, too, the worker's
processor time between question and answer bounds what it takes with a core of its own: it counts on
until the one who asks runs again.

Every rate has a broker of its own, unless --bootstrap names a cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import numpy as np

from model.evaluation.goals import Goal
from stream_app.demo.processes import WorkerProcess
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.ends import End
from tests.benchmarks.paced_producer import EVENTS
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.processor_time import family, read
from tests.benchmarks.results import Plot, Section, Series, Table
from tests.benchmarks.workload import make_records, population_of, produce, user_keys
from tests.command_line import make_console

RATES = (0, 1_000, 2_500, 5_000)
"""Events a second; a worker alone on two cores with its broker does about 25,000."""
ASKED = 20
SECONDS = 15.0
QUICK_RATES = (2_500,)
QUICK_SECONDS = 5.0
PARTITIONS = 8
FILL_EVENTS = 60_000
WARM_UP_S = 3.0
READY_S = 120.0
TOKEN = "a-token-for-the-benchmark"
GOAL_MS = 20.0
PERCENTILES = (50, 99, 100)


@dataclass(frozen=True)
class Case:
    """One rate: ms from when questions were due to their answers, and of /livez; p50, p99, most.

    own_ms         processor time of the worker between a question about a user and its answer
    lag_events     that the worker was behind at the end
    cores          of the worker, over the time
    """

    rate: float
    answers: int
    user_ms: tuple[float, float, float]
    livez_ms: tuple[float, float, float]
    own_ms: tuple[float, float, float]
    lag_events: int
    cores: float


def main() -> None:
    """Measure; exit code 1 when something fails, 130 when it is interrupted."""
    arguments = _arguments()
    console = make_console()
    cases = []
    with ending(console):
        for rate in arguments.rates:
            with tempfile.TemporaryDirectory(prefix="interest-users-") as folder:
                cases.append(measure(rate, arguments, Path(folder)))
        goals = [
            Goal(
                f"p99 of an answer about a user beside {case.rate:,.0f} events/s",
                "at most",
                GOAL_MS,
                case.user_ms[1],
                "ms",
                1,
            )
            for case in cases
        ]
        publish(
            console,
            arguments.json,
            "user_endpoint",
            f"python -m tests.benchmarks.user_endpoint --asked {arguments.asked} "
            f"--seconds {arguments.seconds:g}",
            [_section(cases, arguments, goals)],
            {"seconds": arguments.seconds, "cases": [asdict(case) for case in cases]},
            goals,
        )


def _arguments() -> argparse.Namespace:
    parser = make_parser("Measure the answers about users.", "one rate, for a short time")
    parser.add_argument("--rates", type=float, nargs="+", metavar="N", help="events a second")
    parser.add_argument("--asked", type=positive, default=ASKED, metavar="N", help="a second")
    parser.add_argument("--seconds", type=float, metavar="S", help=f"{SECONDS:g} by default")
    parser.add_argument("--without", type=positive, metavar="N", help="ask without the last steps")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a cluster")
    arguments = parser.parse_args()
    arguments.rates = arguments.rates or (QUICK_RATES if arguments.quick else RATES)
    arguments.seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    return arguments


def measure(rate: float, arguments: argparse.Namespace, home: Path) -> Case:
    """One rate of events, which may be 0."""
    with ExitStack() as stack:
        settings, _ = stack.enter_context(cluster(arguments.bootstrap, home, PARTITIONS))
        overrides = {**worker_overrides(settings, home), "http_token": TOKEN}
        population = population_of(EVENTS)
        records = make_records(FILL_EVENTS, PARTITIONS, population=population)
        produce(settings, records)
        worker = WorkerProcess(overrides, home)
        stack.callback(worker.kill)
        worker.wait_until_ready(READY_S)
        deadline = time.monotonic() + READY_S
        while _applied(worker) < FILL_EVENTS:
            worker.check_alive()
            if time.monotonic() > deadline:
                raise BenchmarkError("The worker does not apply the events of the users in time.")
            time.sleep(0.1)
        if rate:
            options = ["--result", str(home / "sent.npz"), "--rate", str(rate)]
            options += ["--seconds", str(WARM_UP_S + arguments.seconds + 1)]
            producer = End("paced_producer", options, overrides, home)
            stack.callback(producer.kill)
            producer.wait_for_word()
        time.sleep(WARM_UP_S)
        keys = {record.key for record in records}
        users = [key.decode() for key in user_keys(len(population.activity)) if key in keys]
        before = read({"worker": family(worker.pid)})
        user_s, livez_s, own_s = asyncio.run(_ask(worker, users, arguments))
        after = read({"worker": family(worker.pid)})
        lag = sum(n for (name, _), n in worker.metrics().items() if name == LAG)
        return Case(
            rate,
            len(user_s),
            _percentiles(user_s),
            _percentiles(livez_s),
            _percentiles(own_s),
            int(lag),
            after.cores_since(before)["worker"],
        )


LAG = "interest_consumer_lag_events"


def _applied(worker: WorkerProcess) -> int:
    metrics = worker.metrics()
    return int(sum(n for (name, _), n in metrics.items() if name == "interest_events_total"))


def _processor_s(pid: int) -> float:
    """Processor time of a process: its clock, as clock_getcpuclockid(3) gives it on Linux."""
    return time.clock_gettime((~pid << 3) | 2)


async def _ask(
    worker: WorkerProcess, users: list[str], arguments: argparse.Namespace
) -> tuple[list[float], list[float], list[float]]:
    """Seconds from due to answered, of users and of /livez, and of processor time for users."""
    rng = np.random.default_rng(0)
    count = int(arguments.asked * arguments.seconds)
    asked = rng.choice(users, count)
    query = f"?without={arguments.without}" if arguments.without else ""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    address = f"http://127.0.0.1:{worker.port}"
    async with aiohttp.ClientSession(address, headers=headers) as session:

        async def answer(path: str, due: float) -> tuple[float, float]:
            before = _processor_s(worker.pid)
            async with session.get(path) as found:
                body = await found.read()
                if found.status != 200:
                    raise BenchmarkError(f"{path} answers {found.status}: {body.decode()}")
            return time.perf_counter() - due, _processor_s(worker.pid) - before

        await answer("/livez", 0.0)
        step, start = 0.5 / arguments.asked, time.perf_counter()
        tasks: list[list[asyncio.Task[tuple[float, float]]]] = [[], []]
        for number in range(2 * count):
            due = start + number * step
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
            of_user = number % 2 == 0
            path = f"/users/{asked[number // 2]}{query}" if of_user else "/livez"
            tasks[number % 2].append(asyncio.create_task(answer(path, due)))
        of_users, of_livez = [await asyncio.gather(*some) for some in tasks]
    user_s, own_s = zip(*of_users, strict=True)
    return list(user_s), [took for took, _ in of_livez], list(own_s)


def _percentiles(seconds: list[float]) -> tuple[float, float, float]:
    p50, p99, most = (1000 * np.percentile(seconds, PERCENTILES)).tolist()
    return p50, p99, most


def _section(cases: list[Case], arguments: argparse.Namespace, goals: list[Goal]) -> Section:
    what = f" without the last {arguments.without} steps" if arguments.without else ""
    rows = [
        [
            f"{case.rate:,.0f}",
            f"{case.answers:,}",
            *(f"{ms:.1f}" for ms in (*case.user_ms, *case.own_ms[:2], *case.livez_ms[:2])),
            f"{case.cores:.2f}",
            f"{case.lag_events:,}",
        ]
        for case in cases
    ]
    columns = ["events/s", "answers", "p50 ms", "p99 ms", "max ms"]
    columns += ["processor p50 ms", "p99 ms", "/livez p50 ms", "p99 ms", "cores", "lag"]
    text = f"{arguments.asked} questions a second about users{what}, for {arguments.seconds:g} s."
    lines = [
        Series(name, [case.rate for case in cases], [of(case)[1] for case in cases])
        for name, of in (("/users", lambda c: c.user_ms), ("/livez", lambda c: c.livez_ms))
    ]
    return Section(
        "user_endpoint",
        "Answers about users beside the lane",
        text + "".join(f"\n{goal}" for goal in goals),
        Table(columns, rows),
        Plot("lines", "events/s", "p99 in ms", lines),
    )


if __name__ == "__main__":
    main()
