"""The dashboard is what its code writes, and asks for what is exported or recorded."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from stream_app.metrics import Metrics

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy/grafana/dashboards/interest-stream.json"
NAME = re.compile(r"\b(?:job:)?(?:interest|process)_\w+(?::\w+)?")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Where each expression of dashboard and rules stands, and the expression."""
    for panel in panels():
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for rule in rules():
        yield rule.get("record", rule.get("alert")), rule["expr"]


def test_the_committed_dashboard_is_the_generated_one() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("grafana-foundation-sdk needs Python 3.11")
    from deploy.grafana import dashboards

    assert dashboards.FILE == FILE
    assert dashboards.FILE.read_text("utf-8") == dashboards.dashboard(), "run `make dashboards`"


def test_the_dashboard_has_its_uid_and_no_panel_lies_on_another() -> None:
    made = json.loads(FILE.read_text("utf-8"))
    assert made["uid"] == "interest-stream"
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    sources = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    uid = yaml.safe_load(sources)["datasources"][0]["uid"]
    for panel in panels():
        assert panel["datasource"]["uid"] == uid
        assert all(target["datasource"]["uid"] == uid for target in panel["targets"])


def test_what_is_asked_for_is_exported_or_recorded() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = Metrics(registry)
    metrics.set_model("1", 64)
    metrics.set_lag("topic", 0, 0)
    known = {s.name for family in registry.collect() for s in family.samples}
    known |= {rule["record"] for rule in rules() if "record" in rule}
    for place, expression in queries():
        names = set(NAME.findall(expression))
        assert names or place == "InterestNoWorker", place
        assert names <= known, place


def test_each_recorded_series_is_asked_for() -> None:
    asked = {
        name
        for place, expression in queries()
        for name in NAME.findall(expression)
        if not place.startswith("job:")
    }
    assert {rule["record"] for rule in rules() if "record" in rule} <= asked
