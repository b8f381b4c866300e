"""A real Prometheus scrapes a real worker: no panel and no rule asks for what is not there.

What it answered is kept in tests/integration/answers.md, which git ignores.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.checkpoint import Checkpoint, DriftSettings, renamed
from model.evaluation.markdown import table_lines
from model.evaluation.report import Figures
from model.events import EventType
from stream_app import topics
from stream_app.log_records import LogRecord
from stream_app.settings import Settings
from tests.prometheus import Prometheus, program, scraping
from tests.unit.lane_records import START_MS, broken, record
from tests.unit.test_dashboards import queries
from tests.workers import FASTER, WAIT_S, overrides_of, send_all, start_worker

ANSWERS = Path(__file__).with_name("answers.md")
USERS, EVENTS = 20, 60
AWAY_S = 31 * 86400
COMPARISON = re.compile(r"\s(==|!=|>=|<=|>|<)\s")
STATED = DriftSettings(2.0, 1000.0, 900.0, 1100.0, 40.0, history_low=1.0, history_high=5.0)


def events() -> Iterator[LogRecord]:
    """Of each user one event an hour, so that the drift test gets its units; some are broken.

    The last ones come when the windows of the predictions have passed.
    """
    kinds = (
        EventType.CLICK,
        EventType.CLICK,
        EventType.SEARCH,
        EventType.CLICK,
        EventType.PURCHASE,
    )
    for number in range(USERS * EVENTS):
        user = f"user-{number % USERS}".encode()
        kind = kinds[number // USERS % len(kinds)]
        hour = number // USERS
        time_s = hour * 3600 + (AWAY_S if hour >= EVENTS - 10 else 0)
        good = record(kind, number, time_s, user.decode())
        value = broken(kind, number).value if number % 40 == 0 else good.value
        assert value is not None
        yield LogRecord(kind, user, value, START_MS, number)


def vectors(expression: str) -> str:
    """What an alert compares: each comparison gives 0 or 1 instead of taking samples away."""
    inside = re.fullmatch(r"absent\((.*)\)", expression.strip(), re.DOTALL)
    return COMPARISON.sub(r" \1 bool ", inside[1] if inside else expression)


@dataclass(frozen=True)
class Answer:
    """What a panel or a rule asks, and what came."""

    place: str
    expression: str
    values: Sequence[float]

    @property
    def is_missing(self) -> bool:
        """No sample, or only NaN."""
        return all(map(math.isnan, self.values))


def answers(server: Prometheus) -> list[Answer]:
    return [
        Answer(place, expression, server.ask(vectors(expression)))
        for place, expression in queries()
    ]


def table(found: Sequence[Answer]) -> str:
    """The answers in Markdown, the first values of each."""
    rows = [
        [
            one.place,
            f"`{' '.join(one.expression.split())}`",
            str(len(one.values)),
            ", ".join(f"{value:.4g}" for value in one.values[:4]),
        ]
        for one in found
    ]
    columns = ["panel or rule", "expression", "samples", "values"]
    return "\n".join(table_lines(Figures("", columns, rows))) + "\n"


def test_every_panel_and_rule_has_data(
    settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    program("prometheus")
    topics.create(settings)
    stated = renamed(replace(checkpoint, drift=STATED, trained_until_s=1_760_000_000))
    overrides: dict[str, Any] = {**overrides_of(settings, stated, tmp_path), **FASTER}
    worker = start_worker(overrides, tmp_path)
    try:
        with scraping(worker.port, tmp_path) as server:
            wait_for(server, 'count_over_time(up{job="interest-stream"}[1m]) >= 2')
            send_all(settings, events())
            deadline = time.monotonic() + WAIT_S
            found = answers(server)
            while missing := [one for one in found if one.is_missing]:
                worker.check_alive()
                assert time.monotonic() < deadline, table(missing)
                time.sleep(0.5)
                found = answers(server)
            ANSWERS.write_text(table(found), "utf-8")
            rules = server.rules()
            assert rules
            assert {rule["health"] for rule in rules} == {"ok"}, rules
            applied = server.ask('sum(interest_events_total{outcome="applied"})')
            assert applied[0] > 0
    finally:
        worker.kill()


def wait_for(server: Prometheus, expression: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not server.ask(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.2)
