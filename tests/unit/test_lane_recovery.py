"""The watch over a recovery: what it passes over, and when it gives up."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from faust.tables.recovery import Recovery
from faust.types import TP

from stream_app.errors import RecoveryError
from stream_app.lane.recovery import PASSED_AFTER_LOOKS, STALLED_S, RecoveryWatch, check_store
from stream_app.settings import Settings

PLACE = TP("changelog", 3)


class Tables:
    """Faust's recovery at offset 7 of a changelog whose last offset is 9."""

    def __init__(self) -> None:
        self.changelog_queue: asyncio.Queue[int] = asyncio.Queue()
        self.recovery: Any = Recovery.__new__(Recovery)
        self.recovery.in_recovery = True
        self.recovery._recovery_started_at = 1.0
        self.recovery.active_highwaters = Counter({PLACE: 9})
        self.recovery.active_offsets = Counter({PLACE: 7})


class App:
    """As much of the app as the watch asks; the consumer's position is set by the test."""

    def __init__(self, position: int) -> None:
        self.tables = Tables()
        self.consumer = self
        self.position = position
        self.now = 0.0

    def position_now(self, tp: TP) -> int:
        return self.position

    def clock(self) -> float:
        return self.now


def look(watch: RecoveryWatch, times: int) -> None:
    for _ in range(times):
        watch.look()


def test_a_position_past_the_end_ends_the_recovery() -> None:
    app = App(position=10)
    watch = RecoveryWatch(app, app.clock)
    look(watch, PASSED_AFTER_LOOKS)
    assert app.tables.recovery.need_recovery()
    watch.look()
    assert not app.tables.recovery.need_recovery()


def test_nothing_is_passed_over_while_records_may_be_on_their_way() -> None:
    app = App(position=10)
    watch = RecoveryWatch(app, app.clock)
    app.tables.changelog_queue.put_nowait(1)
    look(watch, 3 * PASSED_AFTER_LOOKS)
    assert app.tables.recovery.need_recovery(), "one waits for Faust's loop"
    app.tables.changelog_queue.get_nowait()
    app.tables.recovery.active_offsets[PLACE] = 8
    look(watch, PASSED_AFTER_LOOKS)
    assert app.tables.recovery.need_recovery(), "one has come meanwhile"


def test_a_position_before_the_end_is_waited_for_but_not_for_ever() -> None:
    app = App(position=9)
    watch = RecoveryWatch(app, app.clock)
    look(watch, 2 * PASSED_AFTER_LOOKS)
    app.now = STALLED_S
    watch.look()
    assert watch.still_s == STALLED_S
    app.now = STALLED_S + 1
    with pytest.raises(RecoveryError, match="2 records of changelog partition 3 are left"):
        watch.look()


def test_progress_and_another_recovery_begin_the_wait_anew() -> None:
    app = App(position=8)
    watch = RecoveryWatch(app, app.clock)
    for change in (
        lambda: app.tables.recovery.active_offsets.update({PLACE: 1}),
        lambda: setattr(app.tables.recovery, "_recovery_started_at", 2.0),
        lambda: setattr(app.tables.recovery, "in_recovery", False),
    ):
        watch.look()
        app.now += 2 * STALLED_S
        change()
        watch.look()
        assert watch.still_s == 0.0


def test_a_store_within_its_changelog_is_fine() -> None:
    check_store(Settings(), 0, 0)
    check_store(Settings(), 1, 1)
    with pytest.raises(RecoveryError, match="ahead of its changelog"):
        check_store(Settings(), 2, 1)
