"""What the benchmarks show of their figures: medians, ratios, goals and what follows from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_app.metrics import EVENT_WAITS, STAGES
from tests.benchmarks import backfill, growth_sections, latency_sections
from tests.benchmarks.contenders import Measurement
from tests.benchmarks.growth_sections import Size, memory_section, rate_section
from tests.benchmarks.latency_sections import Case, latency_section, stays_section
from tests.benchmarks.list_figures import CANDIDATES, EXACT_NETWORK, Figure
from tests.benchmarks.processor_time import IDLE
from tests.benchmarks.ranking_sections import conclusion, fastest_index, ranking_section
from tests.benchmarks.scale_out_section import Case as Scaled
from tests.benchmarks.scale_out_section import scale_out_section
from tests.benchmarks.where_time_goes import Stay
from tests.benchmarks.workload import (
    EVENTS_PER_USER,
    START_MS,
    Population,
    make_records,
    population_of,
)


def latency(share: float, worker: bool, p99_ms: float) -> Case:
    stay = Stay(dict.fromkeys(EVENT_WAITS, 2.0), dict.fromkeys(STAGES, 0.5), 40.0, 100.0, 0.9)
    return Case(
        share,
        40_000 * share,
        worker,
        1_000,
        p99_ms / 5,
        p99_ms,
        2 * p99_ms,
        0.5,
        1.0 if worker else None,
        {IDLE: 0.25},
        stay if worker else None,
    )


@pytest.fixture
def latencies() -> list[Case]:
    rounds = (30.0, 40.0, 90.0)
    return [
        latency(share, worker, p99 * (2 if worker else 1))
        for p99 in rounds
        for share in (0.1, 0.5)
        for worker in (False, True)
    ]


def test_the_goals_of_the_latency_are_of_medians_at_half_of_the_throughput(
    latencies: list[Case],
) -> None:
    p50, p99 = latency_sections.goals_of(latencies)
    assert (p50.measured, p50.is_met) == (16.0, False)
    assert (p99.measured, p99.is_met) == (80.0, False)


def test_a_rate_has_a_row_with_the_worker_and_one_without(latencies: list[Case]) -> None:
    section = latency_section(latencies, 40_000, latency_sections.goals_of(latencies))
    rows = {row[0]: row for row in section.table.rows}
    assert list(rows) == ["10% floor", "10% worker", "50% floor", "50% worker"]
    assert rows["50% worker"][1:3] == ["20,000", "3,000"]
    assert rows["50% worker"][4] == "80.0 (60.0 to 180.0)"
    assert "missed by 60.0%" in section.text
    assert "without the worker takes 8.0 ms (p50) and 40.0 ms (p99)" in section.text
    assert "so that 24 ms would be the p50 of a worker that takes no time; it is 16.0 ms" in (
        section.text
    )
    assert section.plot.series[1].y == [80.0, 80.0]


def test_where_an_event_stays_is_of_the_worker_alone(latencies: list[Case]) -> None:
    section = stays_section(latencies)
    rows = {row[0]: list(row[1:]) for row in section.table.rows}
    assert rows["fetch, ms"] == ["2.0", "2.0"]
    assert rows["- store, ms"] == ["0.50", "0.50"]


def size(users: int, *rates: float) -> Size:
    stages = dict.fromkeys(STAGES, 1.0)
    rounds = [Measurement(1000, 1000 / rate, 1.0, 200, 0, stages) for rate in rates]
    end = [500_000_000] * len(rounds)
    records = users + 1000 * len(rounds)
    return Size(users, 2032, 12, 3.0, rounds, end, 900_000_000, users * 4000, records)


def test_growth_compares_the_largest_size_with_the_smallest_round_by_round() -> None:
    sizes = [size(10, 100.0, 200.0, 400.0), size(1000, 50.0, 180.0, 320.0)]
    rate, memory, row = growth_sections.goals_of(sizes)
    assert (rate.measured, rate.is_met) == (pytest.approx(0.8), True)
    assert (memory.measured, memory.is_met) == (900.0, False)
    assert row.is_met
    section = rate_section(sizes, 1000, "a broker", [rate, memory, row])
    assert section.table.rows[1][:4] == ["1,000", "180", "50 to 320", "0.80"]
    assert section.text.count("Goal:") == 1
    assert section.table.rows[1][5] == "1.00"
    assert "takes 1000.0 us" in section.text


def test_sizes_are_shown_as_they_are_and_as_compaction_would_leave_them() -> None:
    sizes = [size(1000, 100.0), size(100_000, 100.0)]
    section = memory_section(sizes, growth_sections.goals_of(sizes), 400_000_000, 64)
    assert section.table.rows[1] == [
        "100,000",
        "500",
        "900",
        "3.0",
        "400",
        "4,000",
        "101,000",
        "206",
        "204",
    ]


def scaled(workers: int, idle: float, pinned: bool = False) -> Scaled:
    cores = {f"worker-{n}": 1.5 / workers for n in range(workers)} | {"broker": 0.4, IDLE: idle}
    rates = [30_000.0 / workers] * workers
    return Scaled(workers, 8, pinned, 5.0, rates, [8 // workers] * workers, cores, 3.0)


def test_scale_out_says_where_the_machine_is_the_limit_and_what_one_core_does() -> None:
    cases = [scaled(1, 0.5), scaled(2, 0.05), scaled(1, 0.9, pinned=True)]
    section = scale_out_section(cases, 2)
    assert [row[-1] for row in section.table.rows] == ["the workers", "the machine", "one core"]
    assert "the limit of 1 of the 2 cases" in section.text
    assert "does 30,000 events/s with 1.50 cores" in section.text
    assert [series.name for series in section.plot.series] == ["8 partitions"]


def lists(items: int, way: str, rate: float, recall: float, effort: int | None = None) -> Figure:
    return Figure("clustered", items, way, effort, rate, recall, build_s=10.0)


RANKED = [
    *(lists(items, CANDIDATES, 40_000, 0.9) for items in (1_000, 300_000)),
    lists(1_000, EXACT_NETWORK, 200_000, 1.0),
    lists(300_000, EXACT_NETWORK, 1_000, 1.0),
    *(lists(items, "usearch graph", 30_000, 0.99, 64) for items in (1_000, 300_000)),
    *(lists(items, "usearch graph", 60_000, 0.5, 8) for items in (1_000, 300_000)),
]


def test_an_index_stands_for_exact_lists_only_with_a_good_recall() -> None:
    fastest = fastest_index(RANKED, 300_000)
    assert fastest is not None
    assert fastest.effort == 64


def test_a_library_pays_from_the_size_at_which_exact_lists_are_slower() -> None:
    text = conclusion(RANKED)
    assert "lose from 300,000 items on" in text
    assert "no index that was built" not in text
    small = [figure for figure in RANKED if figure.items == 1_000]
    assert "lose at none of these sizes" in conclusion(small)
    bad = [figure for figure in RANKED if figure.effort != 64]
    assert "At 1,000 and 300,000 items no index that was built has that recall." in conclusion(bad)


def test_an_index_that_was_given_up_has_a_row_that_says_so() -> None:
    given_up = Figure("clustered", 300_000, "faiss graph", note="given up after 20,000 items")
    rows = {row[0]: row[1:] for row in ranking_section([*RANKED, given_up]).table.rows}
    assert rows["faiss graph"] == ["", "given up after 20,000 items"]
    assert rows["usearch graph, 64"] == ["30,000 (0.990)", "30,000 (0.990)"]


def test_the_back_fill_is_compared_with_the_limit_of_its_round() -> None:
    one = backfill.Measured(1000, 50, 1.0, 1.0)
    found = {
        "limit": [one, replace(one, seconds=2.0)],
        "rows": [one, one],
        "published": [replace(one, seconds=2.0), replace(one, seconds=2.0)],
    }
    goal = backfill.goal_of(found)
    assert (goal.measured, goal.is_met) == (0.75, False)
    rows = backfill.section_of(found).table.rows
    assert rows[1][3:5] == ["1.50", "1.00 to 2.00"]


def test_a_log_may_be_of_a_given_population_and_follow_another_log() -> None:
    population = Population(np.array([0.0, 1.0]), population_of(2 * EVENTS_PER_USER).own)
    first, second = (make_records(10, 4, 0, population, turn) for turn in (0, 1))
    assert {record.key for record in [*first, *second]} == {b"user-0000001"}
    assert second[0].time_ms > first[-1].time_ms > START_MS
    assert not {record.value for record in first} & {record.value for record in second}
