"""The figures that the demo ends with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from model.checkpoint import Checkpoint
from model.event_log import EventLog
from stream_app.comparison import Comparison
from stream_app.demo.judging import (
    FOUND_WITHIN_EVENTS,
    PlantedChange,
    judge_drift,
    judge_lists,
)
from stream_app.demo.observer import OutputObserver, percentile
from stream_app.settings import Settings
from stream_app.verify import OfflineRun


@dataclass(frozen=True)
class Facts:
    """Everything the summary is made of; log holds the rows that were produced."""

    settings: Settings
    log: EventLog
    planted: list[PlantedChange] | None
    cutoff_ms: int
    produced: int
    sent_rows: dict[tuple[str, int], list[int]]
    seconds: float
    workers: int
    duplicates: int
    comparison: Comparison
    offline: OfflineRun
    observer: OutputObserver
    checkpoint: Checkpoint
    name: str


def make_summary(facts: Facts) -> dict[str, Any]:
    """The figures as plain numbers; see the README for what each means."""
    observer, comparison = facts.observer, facts.comparison
    outputs = {*observer.drifts, *observer.given}
    lists = judge_lists(
        observer.given.values(),
        facts.sent_rows,
        facts.log,
        facts.cutoff_ms,
        facts.settings.top_k,
    )
    summary: dict[str, Any] = {
        "data": facts.name,
        "model_version": facts.checkpoint.version,
        "events_produced": facts.produced,
        "events_applied": comparison.events,
        "events_duplicate": facts.duplicates,
        "dead_letters": dict(facts.offline.dead_letters),
        "users": comparison.users,
        "drift_events": len(observer.drifts),
        "recommendations": len(observer.given),
        "recommendations_by_trigger": dict(observer.triggers),
        "outputs_repeated": observer.repeats,
        "outputs_missing": len(facts.offline.outputs.keys() - outputs),
        "outputs_unexpected": len(outputs - facts.offline.outputs.keys()),
        "events_per_second": round(comparison.events / facts.seconds, 1),
        "latency_p50_ms": _rounded(percentile(observer.latencies_ms, 0.5)),
        "latency_p99_ms": _rounded(percentile(observer.latencies_ms, 0.99)),
        "rows_equal_offline": comparison.hidden_difference,
        "rows_exact": comparison.exact,
        "rows_differing": len(comparison.differing),
        "workers": facts.workers,
        "seconds": round(facts.seconds, 2),
        "next_step": asdict(lists),
    }
    if facts.planted is not None:
        summary["planted_changes"] = asdict(
            judge_drift(observer.drifts.values(), facts.planted, facts.log)
        )
    return summary


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def render_summary(summary: dict[str, Any]) -> RenderableType:
    """The summary as a table for people."""
    flow = Table(title=f"Summary: {summary['data']}", title_justify="left", show_header=False)
    dead = summary["dead_letters"]
    rows = [
        ("events produced / applied", _pair(summary, "events_produced", "events_applied")),
        ("repeats / dead letters", f"{summary['events_duplicate']:,} / {sum(dead.values()):,}"),
        ("users", f"{summary['users']:,}"),
        ("drift events / recommendations", _pair(summary, "drift_events", "recommendations")),
        ("outputs missing / repeated", _pair(summary, "outputs_missing", "outputs_repeated")),
        (
            "throughput",
            f"{summary['events_per_second']:,.0f} events/s, {summary['workers']} worker(s)",
        ),
        (
            "produce to output, p50 / p99",
            f"{_ms(summary['latency_p50_ms'])} / {_ms(summary['latency_p99_ms'])}",
        ),
        ("rows equal to the offline transition", _rows_verdict(summary)),
    ]
    for name, value in rows:
        flow.add_row(name, value)
    return Group(flow, _quality(summary))


def _rows_verdict(summary: dict[str, Any]) -> str:
    exact = "all" if summary["rows_exact"] else f"{summary['rows_differing']:,} are not"
    return f"{exact}; hidden states within {summary['rows_equal_offline']:.6f}"


def _quality(summary: dict[str, Any]) -> RenderableType:
    table = Table(show_header=False)
    lists = summary["next_step"]
    if lists["cases"]:
        table.add_row(
            "next item on the list",
            f"{lists['items']:.1%}, most popular items {lists['items_popular']:.1%}",
        )
        table.add_row(
            "next category among the top 5",
            f"{lists['categories']:.1%}, most popular {lists['categories_popular']:.1%}",
        )
    planted = summary.get("planted_changes")
    if planted and planted["planted"]:
        delay = planted["delay_events"]
        late = "" if delay is None else f", median {delay:.0f} events late"
        table.add_row(
            f"planted changes found within {FOUND_WITHIN_EVENTS} events",
            f"{planted['found']} of {planted['planted']}{late}",
        )
        table.add_row(
            "drift events without a change before them",
            f"{planted['false_alarms']} of {planted['alarms']}",
        )
    return table


def _pair(summary: dict[str, Any], left: str, right: str) -> str:
    return f"{summary[left]:,} / {summary[right]:,}"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"
