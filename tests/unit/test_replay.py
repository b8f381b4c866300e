"""What a replay of the topics checks before it asks the broker, and what it says afterwards."""

from __future__ import annotations

import pytest
from kafka import TopicPartition

from stream_app.errors import SettingsError, UsageError
from stream_app.log_range import Span
from stream_app.replay import Replay, check_expiry, check_times, settings_beside, what_next
from stream_app.settings import Settings
from stream_app.times import format_time, parse_time

HOUR_MS = 3_600_000
NOW_MS = parse_time("2026-03-01T12:00:00Z")


def test_a_range_that_can_hold_nothing_is_refused() -> None:
    check_times(NOW_MS - HOUR_MS, None, NOW_MS)
    check_times(NOW_MS - HOUR_MS, NOW_MS, NOW_MS)
    with pytest.raises(UsageError, match=r"--from 2026-03-01T13:00:00.000Z lies in the future"):
        check_times(NOW_MS + HOUR_MS, None, NOW_MS)
    with pytest.raises(UsageError, match=r"--to .* lies in the future"):
        check_times(NOW_MS, NOW_MS + HOUR_MS, NOW_MS)
    for to_ms in (NOW_MS - HOUR_MS, NOW_MS - 2 * HOUR_MS):
        with pytest.raises(UsageError, match="is not after --from"):
            check_times(NOW_MS - HOUR_MS, to_ms, NOW_MS)


def test_on_top_of_rows_that_may_have_expired_is_refused() -> None:
    check_expiry(Settings(), 0, NOW_MS)
    hour = Settings(state_ttl="1h")
    check_expiry(hour, NOW_MS - HOUR_MS, NOW_MS)
    with pytest.raises(UsageError, match="Rows expire after 1h"):
        check_expiry(hour, NOW_MS - HOUR_MS - 1, NOW_MS)


def test_times_are_said_as_they_are_read() -> None:
    for text in ("2026-03-01T12:00:00.250Z", "1970-01-01T00:00:00.000Z"):
        assert format_time(parse_time(text)) == text


def test_outputs_beside_go_to_topics_of_their_own() -> None:
    settings = Settings(partitions=3, drift_topic="drift")
    own = settings_beside(settings, "again")
    assert own.app_id == "again"
    assert own.drift_topic == "drift.again"
    assert own.recommendations_topic == f"{settings.recommendations_topic}.again"
    assert own.dead_letters_topic == f"{settings.dead_letters_topic}.again"
    assert own.input_topics == settings.input_topics
    assert own.partitions == 3
    assert own.changelog_topic.startswith("again-")
    with pytest.raises(SettingsError, match="INTEREST_"):
        settings_beside(settings, "no/name")


def test_it_says_what_to_do_next() -> None:
    place = TopicPartition("clicks", 0)
    own = settings_beside(Settings(), "again")
    beside = Replay(own, {place: Span(0, 2, 5)}, None)
    assert beside.offsets == 3
    assert "INTEREST_APP_ID=again" in what_next(beside, is_done=True)
    assert "interrupted" in what_next(beside, is_done=False)
    on_top = Replay(Settings(), {place: Span(0, 2, 5)}, {place: 5})
    assert "start the workers of interest-stream again" in what_next(on_top, is_done=True)
    assert "interrupted" in what_next(on_top, is_done=False)
