"""Recording rules and alerts: what Prometheus makes of them, and where their runbooks lead."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus import FOLDER, program

ROOT = Path(__file__).parents[2]


def loaded(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text("utf-8"))


ALERTS = {
    rule["alert"]: rule
    for group in loaded("rules.yml")["groups"]
    for rule in group["rules"]
    if "alert" in rule
}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),  # and the rule files that it names
        ("test", "rules", "rules_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_to_fire_and_to_keep_silent() -> None:
    tests = [test for of in loaded("rules_test.yml")["tests"] for test in of["alert_rule_test"]]
    fires = {test["alertname"] for test in tests if test.get("exp_alerts")}
    silent = {test["alertname"] for test in tests if not test.get("exp_alerts")}
    assert fires == silent == ALERTS.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    summary = alert["annotations"]["summary"]
    assert re.fullmatch(r"[^;]+; [^;]+\.", summary), summary
    file, _, heading = alert["annotations"]["runbook"].partition("#")
    titles = re.findall(r"^### (\w+)$", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    assert name in titles
    assert heading == name.lower()
