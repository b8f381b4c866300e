"""How latencies are shown: percentiles by rate, and where an event stays in the worker."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model.evaluation.goals import Goal
from tests.benchmarks.figures import Spread
from tests.benchmarks.goals import as_list
from tests.benchmarks.results import Plot, Section, Series, Table
from tests.benchmarks.where_time_goes import Stay

GOAL_SHARE = 0.5
GOAL_P50_MS = 15.0
GOAL_P99_MS = 50.0
HOPS = 3
"""Times that an event's way to its output passes the broker."""
PERCENTILES: dict[str, Callable[[Case], float]] = {
    "p50": lambda case: case.p50_ms,
    "p99": lambda case: case.p99_ms,
    "p99.9": lambda case: case.p999_ms,
}


@dataclass(frozen=True)
class Broker:
    """What stands between producer, worker and consumer.

    module          of this folder, which measures on it
    section, title  what is added to the names and the titles of the sections
    where           the words for it
    """

    module: str
    section: str
    title: str
    where: str


EMBEDDED = Broker("latency", "", "", "the embedded broker")
NOIDA = Broker("latency_noida", "_noida", ", on noida-db", "noida-db")


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


def goals_of(cases: Sequence[Case], broker: Broker = EMBEDDED) -> list[Goal]:
    """What is asked of the latency at half of the throughput."""
    at_half = _chain(cases, GOAL_SHARE, worker=True)
    return [
        Goal(
            f"latency at {GOAL_SHARE:.0%} of the throughput, {name}{broker.title}",
            "at most",
            bound,
            _spread(at_half, name).median,
            "ms",
            1,
        )
        for name, bound in (("p50", GOAL_P50_MS), ("p99", GOAL_P99_MS))
    ]


def latency_section(
    cases: Sequence[Case], throughput: float, goals: Sequence[Goal], broker: Broker = EMBEDDED
) -> Section:
    """Percentiles of each rate, with the worker and without."""
    shares = _shares(cases)
    rows = []
    for share in shares:
        for worker in (False, True):
            own = _chain(cases, share, worker)
            spreads = [_spread(own, name) for name in PERCENTILES]
            cores = {
                name: statistics.median(case.cores[name] for case in own) for name in own[0].cores
            }
            rows.append(
                [
                    f"{share:.0%} {'worker' if worker else 'floor'}",
                    f"{own[0].rate:,.0f}",
                    f"{sum(case.samples for case in own):,}",
                    *(f"{s.median:.1f} ({s.lowest:.1f} to {s.highest:.1f})" for s in spreads),
                    f"{statistics.median(case.late_p99_ms for case in own):.1f}",
                    ", ".join(f"{name} {busy:.2f}" for name, busy in cores.items()),
                ]
            )
    lines = [
        *((f"worker, {name}", name, True) for name in PERCENTILES),
        ("floor, p99", "p99", False),
    ]
    series = []
    for line, name, worker in lines:
        spreads = [_spread(_chain(cases, share, worker), name) for share in shares]
        series.append(
            Series(
                line,
                [round(100 * share) for share in shares],
                [s.median for s in spreads],
                [s.lowest for s in spreads],
                [s.highest for s in spreads],
            )
        )
    return Section(
        f"latency{broker.section}",
        f"Latency from produce to output{broker.title}",
        "Milliseconds from the time at which an event was due at the producer until a consumer in "
        f"another process has read its recommendation, on {broker.where} at shares of a "
        f"throughput of {throughput:,.0f} events/s. Floor: the same chain without the worker, "
        "whose consumer reads the events themselves. Late: p99 of how far the producer was behind "
        "its own rate, which is in the latency. Cores: kept busy by each process.\n\n"
        f"{_floor(cases)}"
        f"{as_list(goals)}",
        Table(
            ["chain", "events/s", "samples", *(f"{n} ms" for n in PERCENTILES), "late", "cores"],
            rows,
        ),
        Plot("lines", "% of the throughput", "ms", series, is_logarithmic=True),
    )


def _floor(cases: Sequence[Case]) -> str:
    """What broker and machine take of the goals, and what the worker adds."""
    alone, whole = (_chain(cases, GOAL_SHARE, worker) for worker in (False, True))
    p50, p99 = _spread(alone, "p50").median, _spread(alone, "p99").median
    broker = statistics.median(case.cores.get("broker", 0.0) for case in alone)
    busy = statistics.median(sum(case.cores.values()) for case in whole)
    least = HOPS * p50
    return (
        f"At {GOAL_SHARE:.0%} the chain without the worker takes {p50:.1f} ms (p50) and "
        f"{p99:.1f} ms (p99), its broker busy on {broker:.2f} cores. With the worker an event goes "
        f"through the broker {HOPS} times one after the other (event, entry of the journal, "
        f"output), so that {least:.0f} ms would be the p50 of a worker that takes no time; it is "
        f"{_spread(whole, 'p50').median:.1f} ms, with {busy:.2f} cores busy in all processes."
    )


def stays_section(cases: Sequence[Case], broker: Broker = EMBEDDED) -> Section:
    """Where the time of an event goes in the worker."""
    shares = _shares(cases)
    stays = [
        [case.stay for case in _chain(cases, share, True) if case.stay is not None]
        for share in shares
    ]

    def row(name: str, figure: Callable[[Stay], float], decimals: int) -> list[str]:
        medians = [statistics.median(map(figure, own)) for own in stays]
        return [name, *(f"{median:,.{decimals}f}" for median in medians)]

    first = stays[0][0]
    rows = [
        *(row(f"{part}, ms", lambda s, p=part: s.event_ms[p], 1) for part in first.event_ms),
        row("events of a batch", lambda s: s.batch_events, 0),
        row("batches/s", lambda s: s.batches_per_s, 0),
        row("rows of an event", lambda s: s.event_rows, 2),
        *(row(f"- {step}, ms", lambda s, n=step: s.batch_ms[n], 2) for step in first.batch_ms),
    ]
    return Section(
        f"stays{broker.section}",
        f"Where an event stays in the worker{broker.title}",
        "Mean times, of an event: until the worker has fetched it, until its batch begins, until "
        "the outputs of its batch are acknowledged; and of a batch by its steps, each with its "
        "wait for the broker. Rows of an event are those that it writes to changelog and store: a "
        "log that waits for the worker, as in the throughput, comes in larger batches with several "
        "events of a user, which share one.",
        Table(["", *(f"{share:.0%}" for share in shares)], rows),
        Plot(
            "bars",
            "",
            "ms, mean of an event",
            [
                Series(
                    f"{share:.0%} of the throughput",
                    list(first.event_ms),
                    [statistics.median(s.event_ms[part] for s in own) for part in first.event_ms],
                )
                for share, own in zip(shares, stays, strict=True)
            ],
        ),
    )


def _shares(cases: Sequence[Case]) -> list[float]:
    return sorted({case.share for case in cases})


def _chain(cases: Sequence[Case], share: float, worker: bool) -> list[Case]:
    """The rounds of one rate, with the worker or without."""
    return [case for case in cases if case.share == share and case.worker == worker]


def _spread(cases: Sequence[Case], percentile: str) -> Spread:
    return Spread.of([PERCENTILES[percentile](case) for case in cases])
