"""How the rate of workers that share partitions is shown, and what keeps it from being higher."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.figures import Spread
from tests.benchmarks.processor_time import IDLE
from tests.benchmarks.results import Plot, Section, Series, Table

SPARE_CORES = 0.1
"""Fewer idle cores than these, and the machine is the limit."""


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
        return sum(self.cores[worker_name(number)] for number in range(self.workers))

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


def worker_name(number: int) -> str:
    """The name of a worker among the readings of processor time."""
    return f"worker-{number}"


def scale_out_section(cases: Sequence[Case], machine_cores: int) -> Section:
    """Rates and cores of each number of workers, medians over the rounds."""
    chains = _chains(cases)
    rows = [_row(own) for own in chains]
    return Section(
        "scale_out",
        "How the rate grows with the workers",
        "Events/s while every worker of one group is busy, the log written before. Fairness: the "
        "slowest worker's rate over the fastest's. Cores: kept busy by all workers and by the "
        "broker, and idle ones. us: processor time of all workers per event. Limit: the machine "
        f"where fewer than {SPARE_CORES:g} cores are idle.\n\n{_conclusion(chains, machine_cores)}",
        Table(
            [
                "workers",
                "partitions",
                "events/s",
                "spread",
                "fairness",
                "workers' cores",
                "broker's",
                "idle",
                "us",
                "limit",
            ],
            rows,
        ),
        Plot("lines", "workers", "events/s", _series(chains)),
    )


def _chains(cases: Sequence[Case]) -> list[list[Case]]:
    """The rounds of each case."""
    chains: dict[tuple[int, int, bool], list[Case]] = {}
    for case in cases:
        chains.setdefault((case.workers, case.partitions, case.pinned), []).append(case)
    return list(chains.values())


def _row(own: Sequence[Case]) -> list[str]:
    rate = Spread.of([case.rate for case in own])
    broker = [case.cores["broker"] for case in own if "broker" in case.cores]
    return [
        f"{own[0].workers}{', one core' * own[0].pinned}",
        str(own[0].partitions),
        f"{rate.median:,.0f}",
        f"{rate.lowest:,.0f} to {rate.highest:,.0f}",
        f"{_median(own, lambda case: case.fairness):.2f}",
        f"{_median(own, lambda case: case.worker_cores):.2f}",
        f"{statistics.median(broker):.2f}" if broker else "",
        f"{_median(own, lambda case: case.cores[IDLE]):.2f}",
        f"{_median(own, _us_per_event):.1f}",
        statistics.mode(case.limit for case in own),
    ]


def _series(chains: Sequence[Sequence[Case]]) -> list[Series]:
    """A line for each number of partitions."""
    series = []
    for partitions in dict.fromkeys(own[0].partitions for own in chains):
        line = [own for own in chains if own[0].partitions == partitions and not own[0].pinned]
        spreads = [Spread.of([case.rate for case in own]) for own in line]
        series.append(
            Series(
                f"{partitions} partitions",
                [own[0].workers for own in line],
                [spread.median for spread in spreads],
                [spread.lowest for spread in spreads],
                [spread.highest for spread in spreads],
            )
        )
    return series


def _conclusion(chains: Sequence[Sequence[Case]], machine_cores: int) -> str:
    """What is the machine's limit and what is ours, from the measured cores."""
    free = [own for own in chains if not own[0].pinned]
    bound = [own for own in free if statistics.mode(c.limit for c in own) == "the machine"]
    sentences = [
        f"On {machine_cores} cores, which the workers share with their broker, the machine is the "
        f"limit of {len(bound)} of the {len(free)} cases without a core of their own: more workers "
        "there divide the same processor time."
    ]
    one = next((own for own in free if own[0].workers == 1), None)
    most = max(free, key=lambda own: own[0].workers)
    if one is not None and most is not one:
        cost = _median(most, _us_per_event) / _median(one, _us_per_event)
        sentences.append(
            f"What is ours is the cost of an event: with {most[0].workers} workers it takes "
            f"{cost:.2f} times the processor time that it takes with one."
        )
    pinned = next((own for own in chains if own[0].pinned), None)
    if pinned is not None:
        rate = _median(pinned, lambda case: case.rate)
        sentences.append(
            f"A worker that has one core, and its broker another, does {rate:,.0f} events/s with "
            f"{_median(pinned, lambda case: case.worker_cores):.2f} cores: that is the figure per "
            "core."
        )
    return " ".join(sentences)


def _us_per_event(case: Case) -> float:
    return 1e6 * case.worker_cores / case.rate


def _median(own: Sequence[Case], figure: Callable[[Case], float]) -> float:
    return statistics.median(map(figure, own))
