"""The consumer: what it hands to Faust's thread, and which partitions Faust may resume."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from stream_app.lane.intake import Intake
from stream_app.lane.transport import LaneConsumer

INPUT, CHANGELOG = TP("clicks", 0), TP("app-user_state-changelog", 0)


class Thread:
    """Faust's consumer thread: a poll lasts until the partitions were changed meanwhile."""

    def __init__(self) -> None:
        self.polled: Any = None

    async def getmany(self, active_partitions: Any, timeout: float) -> dict[TP, Any]:
        self.polled = active_partitions
        return {}


@pytest.fixture
def consumer() -> LaneConsumer:
    one = object.__new__(LaneConsumer)
    intake = Intake(10, lambda _tps: None)
    lane = SimpleNamespace(intake=intake, is_input=lambda topic: topic == INPUT.topic)
    one.app = SimpleNamespace(lane=lane)  # type: ignore[assignment]
    one._thread = Thread()  # type: ignore[assignment]
    one._active_partitions = set()
    one._paused_partitions = {INPUT, CHANGELOG}
    return one


async def test_a_poll_asks_for_the_partitions_that_were_active_when_it_began(
    consumer: LaneConsumer,
) -> None:
    active = {CHANGELOG}
    await consumer._getmany(active, 1.0)
    active.clear()  # the recovery has ended
    assert consumer._thread.polled == {CHANGELOG}  # type: ignore[attr-defined]


def test_faust_resumes_changelogs_and_only_the_lane_its_inputs(consumer: LaneConsumer) -> None:
    consumer.resume_partitions({INPUT, CHANGELOG})
    assert consumer._active_partitions == {CHANGELOG}
    consumer.resume_inputs({INPUT})
    assert consumer._active_partitions == {CHANGELOG, INPUT}
    assert consumer._paused_partitions == set()
