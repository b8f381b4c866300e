"""The figures of a throughput run: rates, the worker's ratios to the others, where time goes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from stream_app.metrics import STAGES
from tests.benchmarks.contenders import Contender, Measurement
from tests.benchmarks.results import Plot, Section, Series, Table

RATIOS = {
    "ratio_stock_faust": "stock_faust",
    "ratio_stock_faust_light": "stock_faust_light",
    "ratio_quix_streams": "quix_streams",
    "ratio_quix_streams_light": "quix_streams_light",
    "ratio_limit": "limit",
}
"""The worker's rate over that of another contender."""

WAITING = ("journal", "outputs", "changelog", "commit")
"""Stages that wait for the broker, in which other partitions compute."""
BESIDE = ("journal", "commit")
"""Stages that run beside the computing of their own partition, too."""

Results = Mapping[str, Sequence[Measurement]]
T = TypeVar("T")


@dataclass(frozen=True)
class Spread:
    """Median and extremes over the rounds."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Account:
    """What one event costs by stage, in microseconds.

    total_us   of which the stages are parts
    stages_us  the stages that add up to the total
    beside_us  the stages that do not, as something else goes on in their time
    """

    total_us: float
    stages_us: Mapping[str, float]
    beside_us: Mapping[str, float]

    @property
    def other_us(self) -> float:
        """What no stage explains."""
        return self.total_us - sum(self.stages_us.values())

    @property
    def explained(self) -> float:
        """The share of the total that the stages explain."""
        return sum(self.stages_us.values()) / self.total_us


def rates(measured: Sequence[Measurement]) -> list[float]:
    """Events per second of each round."""
    return [m.events_per_second for m in measured]


def ratio(results: Results, to: str) -> Spread | None:
    """The worker's rate over a contender's, round by round; None when that one was left out."""
    if to not in results:
        return None
    pairs = zip(rates(results["worker"]), rates(results[to]), strict=True)
    return Spread.of([worker / other for worker, other in pairs])


def cpu_us(measured: Sequence[Measurement]) -> float | None:
    """Processor time per event, the median of the rounds that tell it."""
    told = [m.cpu_us_per_event for m in measured if m.cpu_us_per_event is not None]
    return statistics.median(told) if told else None


def stages_us(measured: Sequence[Measurement]) -> dict[str, float]:
    """Microseconds per event by stage, medians over the rounds."""
    return {
        stage: statistics.median(m.stages_us[stage] for m in measured)
        for stage in measured[0].stages_us
    }


def in_turn(measured: Sequence[Measurement]) -> Account:
    """The account of a worker with one partition, whose stages follow each other: of all time."""
    stages = stages_us(measured)
    beside = {stage: stages.pop(stage) for stage in BESIDE}
    return Account(1e6 / statistics.median(rates(measured)), stages, beside)


def side_by_side(measured: Sequence[Measurement]) -> Account | None:
    """The account of a worker with many partitions: of its processor time, where that is told."""
    total = cpu_us(measured)
    if total is None:
        return None
    stages = stages_us(measured)
    beside = {stage: stages.pop(stage) for stage in WAITING}
    return Account(total, stages, beside)


def throughput_section(
    contenders: Sequence[Contender], results: Results, events: Mapping[str, int], note: str
) -> Section:
    """Rates and ratios.

    Args:
        events: of each contender's log.
        note: ends the text: who was left out, and why.
    """
    to_ratio = {to: ratio(results, to) for to in RATIOS.values()}
    rows, spreads = [], []
    for contender in contenders:
        measured = results[contender.name]
        spread, cpu = Spread.of(rates(measured)), cpu_us(measured)
        spreads.append(spread)
        lists = sum(m.recommendations for m in measured) / sum(m.events for m in measured)
        times = to_ratio.get(contender.name)
        rows.append(
            [
                contender.name,
                f"{spread.median:,.0f}",
                f"{spread.lowest:,.0f} to {spread.highest:,.0f}",
                "" if times is None else f"{times.median:.2f}",
                "" if times is None else f"{times.lowest:.2f} to {times.highest:.2f}",
                "" if cpu is None else f"{cpu:,.1f}",
                f"{events[contender.name]:,}",
                f"{lists:.2f}",
            ]
        )
    who = "\n".join(f"- **{contender.name}**: {contender.what}" for contender in contenders)
    return Section(
        "throughput",
        "Throughput, end to end",
        "Events over the seconds from the first to the last processed event. A ratio is the "
        "worker's rate over the contender's in the same round. CPU is the processor time of the "
        "contender's own process per event, without the broker's. Lists are recommendations per "
        f"event. The slow contenders read a shorter log of the same kind.\n\n{who}\n{note}",
        Table(
            [
                "contender",
                "events/s",
                "spread",
                "worker is x",
                "spread",
                "CPU us",
                "events",
                "lists",
            ],
            rows,
        ),
        Plot(
            "bars",
            "",
            "events/s",
            [
                Series(
                    "events/s",
                    [contender.name for contender in contenders],
                    [spread.median for spread in spreads],
                    [spread.lowest for spread in spreads],
                    [spread.highest for spread in spreads],
                )
            ],
            is_logarithmic=True,
        ),
    )


def stages_section(serial: Account, many: Account | None) -> Section:
    """Where the time of the worker goes, from its own histograms."""
    accounts = [serial] if many is None else [serial, many]
    names = ["one partition, all the time", "many partitions, processor time"][: len(accounts)]
    rows = [[stage, *(_cell(account, stage) for account in accounts)] for stage in STAGES]
    rows.append(["other", *(f"{account.other_us:.2f}" for account in accounts)])
    rows.append(["total", *(f"{account.total_us:.2f}" for account in accounts)])
    rows.append(["explained", *(f"{account.explained:.0%}" for account in accounts)])
    return Section(
        "stages",
        "Where the time goes",
        "Microseconds per event by stage, from the worker's own histograms. With one partition the "
        "stages of a batch follow each other and add up to the time that passes. With many, a "
        "partition computes while others wait for the broker: the stages that never wait are set "
        "beside the processor time, and the rest of it goes into fetching, record batches and the "
        "connection. Stages are measured by the clock, so that they are longer when another "
        "process or thread has the processor meanwhile. In brackets, outside of the sum: stages in "
        "whose time something else goes on.",
        Table(["stage", *names], rows),
        Plot(
            "bars",
            "",
            "us per event",
            [
                Series(
                    name,
                    [*account.stages_us, "other"],
                    [*account.stages_us.values(), account.other_us],
                )
                for name, account in zip(names, accounts, strict=True)
            ],
        ),
    )


def _cell(account: Account, stage: str) -> str:
    if stage in account.stages_us:
        return f"{account.stages_us[stage]:.2f}"
    return f"({account.beside_us[stage]:.2f})"
