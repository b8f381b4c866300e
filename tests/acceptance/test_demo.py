"""The demo as a user runs it, on real logs and on the simulator."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from model.checkpoint import DriftSettings, renamed, save
from model.event_log import read_event_log
from tests.acceptance.test_cli import interest_stream
from tests.checkpoints import named_checkpoint
from tests.shared_data import shared_log


def run_demo(tmp_path: Path, *arguments: str) -> dict:
    """The summary of a demo without its page."""
    return run_demo_with("--no-ui", *arguments, summary=tmp_path / "out.json")[0]


def run_demo_with(*arguments: str, summary: Path) -> tuple[dict, str]:
    """The summary of a demo, and what it shows on the terminal."""
    shown = interest_stream("demo", "--summary", str(summary), *arguments, timeout_s=600)
    assert shown.returncode == 0, shown.stderr
    return json.loads(summary.read_text()), shown.stdout


def assert_nothing_lost(summary: dict, events: int) -> None:
    """Every event applied once, rows and outputs as the offline transition gives them."""
    assert summary["events_produced"] == summary["events_applied"] == events
    assert summary["events_duplicate"] == 0
    assert summary["dead_letters"] == {}
    assert summary["rows_exact"] is True
    assert summary["rows_equal_offline"] < 0.005
    assert summary["outputs_missing"] == summary["outputs_unexpected"] == 0
    assert summary["recommendations"] > 0
    assert summary["latency_p50_ms"] <= summary["latency_p99_ms"]
    assert summary["events_per_second"] > 0


def untrained(tmp_path: Path, data: Path) -> str:
    """A checkpoint that knows the names of a log, made without training."""
    log = read_event_log(data)
    directory = tmp_path / "checkpoint"
    made = named_checkpoint(log.items, log.categories)
    save(renamed(replace(made, drift=DriftSettings(threshold=2.2))), directory, "For a test.")
    return str(directory)


@pytest.mark.timeout(660)
def test_taobao_two_hours(tmp_path: Path) -> None:
    data = shared_log("taobao_2h")
    summary = run_demo(tmp_path, "--data", str(data), "--checkpoint", untrained(tmp_path, data))
    assert_nothing_lost(summary, 96_168)
    assert summary["users"] == 58_732


@pytest.mark.timeout(660)
def test_tmall(tmp_path: Path) -> None:
    data = shared_log("tmall2014")
    summary = run_demo(tmp_path, "--data", str(data), "--checkpoint", untrained(tmp_path, data))
    assert_nothing_lost(summary, 182_880)
    assert summary["users"] == 884
    assert summary["drift_events"] > 0


@pytest.mark.timeout(660)
def test_simulated_shop_with_two_workers(tmp_path: Path) -> None:
    arguments = ("--seconds", "15", "--users", "300", "--workers", "2")
    summary, shown = run_demo_with(*arguments, summary=tmp_path / "out.json")
    assert re.search(r"Live page at http://127\.0\.0\.1:\d+/", shown)
    assert_nothing_lost(summary, summary["events_produced"])
    assert summary["workers"] == 2
    planted = summary["planted_changes"]
    assert planted["planted"] > 0
    assert planted["found"] > 0
    lists = summary["next_step"]
    assert lists["items"] > lists["items_popular"]
