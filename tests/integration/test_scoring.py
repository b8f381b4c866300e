"""A real worker counts each prediction once, whether its user comes back or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.event_hash import event_hash
from model.events import EventType
from model.kept_prediction import SAMPLE
from model.state import KEPT
from stream_app.log_records import LogRecord
from stream_app.settings import Settings
from tests.unit.lane_records import START_MS, record
from tests.workers import committed_events, send_all, start_worker, wait_until

USERS = 60
DAY_S = 86400


def one_event_each(name: str, first: int, day: int) -> Iterator[LogRecord]:
    """One click of each user of a name, on a day; offsets and ids go on from ``first``."""
    for number in range(USERS):
        user = f"{name}-{number}"
        click = record(EventType.CLICK, first + number, day * DAY_S + number, user)
        assert click.value is not None
        yield LogRecord(EventType.CLICK, user.encode(), click.value, START_MS, number)


def kept(first: int) -> int:
    """How many probabilities are kept of one first event each."""
    hashes = event_hash([f"CLICK-{number}" for number in range(first, first + USERS)])
    return KEPT * int((hashes % SAMPLE == 0).sum())


def test_predictions_of_who_comes_back_and_of_who_does_not(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    worker = start_worker(overrides, tmp_path)

    def counted(name: str) -> float:
        """Of all bins of the worker's probabilities."""
        metric = f"interest_prediction_{name}_total"
        return sum(v for k, v in worker.metrics().items() if k[0] == metric and "worker" in k[1])

    try:
        sent = send_all(settings, one_event_each("away", 0, day=0))
        wait_until(lambda: committed_events(settings) == sent, worker)
        assert counted("cases") == 0
        # The windows of the first users have passed: the worker looks for them in its rows.
        sent += send_all(settings, one_event_each("back", sent, day=31))
        wait_until(lambda: counted("cases") == kept(0), worker)
        assert counted("happened") == 0
        # Their late return says nothing new; the others come back after their own windows.
        sent += send_all(settings, one_event_each("away", sent, day=40))
        wait_until(lambda: committed_events(settings) == sent, worker)
        assert counted("cases") == kept(0)
        sent += send_all(settings, one_event_each("back", sent, day=65))
        wait_until(lambda: committed_events(settings) == sent, worker)
        wait_until(lambda: counted("cases") == kept(0) + kept(USERS), worker)
        assert counted("happened") == 0
        assert 0 < counted("probability") < counted("cases")
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert kept(0) > 0 < kept(USERS)
