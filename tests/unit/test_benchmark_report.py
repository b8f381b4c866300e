"""The pure parts of the benchmarks: ratios, accounts of time, and the report in Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from model.evaluation.goals import Goal
from stream_app.metrics import STAGES
from tests.benchmarks import results
from tests.benchmarks.contenders import CONTENDERS, Measurement
from tests.benchmarks.figures import (
    RATIOS,
    Spread,
    in_turn,
    ratio,
    side_by_side,
    stages_section,
    throughput_section,
)
from tests.benchmarks.report import render
from tests.benchmarks.results import Document, Plot, ResultError, Section, Series, Table


def measurement(seconds: float, cpu_seconds: float | None = 1.0) -> Measurement:
    """A million events; each stage takes as many microseconds per event as its place says."""
    stages = {stage: float(place) for place, stage in enumerate(STAGES, start=1)}
    return Measurement(1_000_000, seconds, cpu_seconds, 200_000, 10, stages)


def document(*names: str) -> Document:
    table = Table(["name", "figure"], [["a|b", "1.50"]])
    plot = Plot("bars", "", "us", [Series("us", ["a|b"], [1.5])])
    return Document(
        "throughput",
        "make bench",
        "2026-01-01T00:00:00+00:00",
        {"id": "0123456789abcdef", "changed": True},
        {"processor": "a processor", "cores": 2, "system": "Linux"},
        {"python": "3.11", "quixstreams": None},
        [Section(name, name.title(), "What it is.", table, plot) for name in names],
    )


def test_a_ratio_is_taken_within_a_round() -> None:
    results = {
        "worker": [measurement(2.0), measurement(4.0), measurement(8.0)],
        "stock_faust": [measurement(16.0), measurement(64.0), measurement(256.0)],
    }
    assert ratio(results, "stock_faust") == Spread(16.0, 8.0, 32.0)


def test_a_contender_that_was_left_out_has_no_ratio() -> None:
    assert ratio({"worker": [measurement(2.0)]}, "quix_streams") is None


def test_every_ratio_is_of_a_contender() -> None:
    assert set(RATIOS.values()) < {contender.name for contender in CONTENDERS}


def test_stages_in_turn_add_up_to_the_time_that_passes() -> None:
    account = in_turn([measurement(50.0), measurement(40.0), measurement(60.0)])
    assert account.total_us == 50.0
    assert account.beside_us == {"journal": 3.0, "commit": 10.0}
    assert sum(account.stages_us.values()) == 42.0
    assert account.other_us == 8.0
    assert account.explained == pytest.approx(0.84)


def test_stages_side_by_side_are_of_the_processor_time() -> None:
    account = side_by_side([measurement(10.0, cpu_seconds=40.0)])
    assert account is not None
    assert account.total_us == 40.0
    assert set(account.beside_us) == {"journal", "outputs", "changelog", "commit"}
    assert sum(account.stages_us.values()) + account.other_us == 40.0


def test_processor_time_that_is_not_told_gives_no_account() -> None:
    assert side_by_side([measurement(10.0, cpu_seconds=None)]) is None


def test_the_stages_are_shown_with_their_sum() -> None:
    serial, many = in_turn([measurement(50.0)]), side_by_side([measurement(10.0, 40.0)])
    rows = {row[0]: list(row[1:]) for row in stages_section(serial, many).table.rows}
    assert rows["decode"] == ["1.00", "1.00"]
    assert rows["outputs"] == ["7.00", "(7.00)"]
    assert rows["journal"] == ["(3.00)", "(3.00)"]
    assert rows["commit"] == ["(10.00)", "(10.00)"]
    assert rows["other"] == ["8.00", "13.00"]
    assert rows["explained"] == ["84%", "68%"]


def test_throughput_is_shown_with_ratios_and_notes() -> None:
    shown = [contender for contender in CONTENDERS if contender.name in ("worker", "limit")]
    measured = {"worker": [measurement(20.0)], "limit": [measurement(10.0)]}
    events = {"worker": 1_000_000, "limit": 1_000_000}
    section = throughput_section(shown, measured, events, "Left out.")
    assert [row[0] for row in section.table.rows] == ["worker", "limit"]
    assert section.table.rows[0][1:4] == ["50,000", "50,000 to 50,000", ""]
    assert section.table.rows[1][3] == "0.50"
    assert section.text.endswith("Left out.")


def test_the_report_has_a_table_and_a_plot_for_each_section() -> None:
    report = render([document("throughput", "stages"), document("latency")])
    for name in ("throughput", "stages", "latency"):
        assert f"## {name.title()}\n\nWhat it is.\n\n| name | figure |\n| --- | ---: |" in report
        assert f"![{name.title()}](plots/{name}.png)" in report
    assert report.count("a\\|b") == 3


def test_the_report_says_where_figures_come_from() -> None:
    report = render([document("latency")])
    assert "Repeated by `make bench`" in report
    assert "commit 0123456789ab with changes, a processor, 2 cores, Linux; python 3.11." in report
    assert "quixstreams" not in report


def test_two_sections_of_one_name_are_refused() -> None:
    with pytest.raises(ResultError, match="Two files have a section latency"):
        render([document("latency"), document("latency")])


def test_a_document_is_read_as_it_was_written(tmp_path: Path) -> None:
    given, path = document("latency"), tmp_path / "latency.json"
    results.write(path, "latency", "make bench", given.sections, {"p99_ms": 12.5})
    [found] = results.read(path)
    assert (found.benchmark, found.command) == ("latency", "make bench")
    assert found.sections[0].table == given.sections[0].table
    assert found.sections[0].plot.series[0].y == [1.5]
    assert '"p99_ms": 12.5' in path.read_text("utf-8")


def test_the_documents_of_a_run_are_read_from_one_file(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    documents = {}
    for name in ("latency", "growth"):
        goal = Goal("rate", "at least", 0.8, 0.9)
        results.write(path, name, "make bench", document(name).sections, {}, [goal])
        documents[name] = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"parts": documents}), "utf-8")
    found = results.read(path)
    assert [one.benchmark for one in found] == ["latency", "growth"]
    assert found[1].goals == [Goal("rate", "at least", 0.8, 0.9)]


def test_the_report_begins_with_the_goals() -> None:
    goal = Goal("p99", "at most", 50.0, 62.5, "ms", 1)
    report = render([replace(document("latency"), goals=[goal]), document("growth")])
    assert report.count("## Goals") == 1
    assert "| p99 | at most 50.0 ms | 62.5 ms | missed by 25.0% |" in report
    assert report.index("## Goals") < report.index("## Latency")


def test_a_report_without_goals_has_no_table_of_them() -> None:
    assert "Goals" not in render([document("latency")])


def test_a_file_that_is_no_document_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("{}", "utf-8")
    with pytest.raises(ResultError, match="no document of a benchmark"):
        results.read(path)
