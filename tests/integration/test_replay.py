"""Replays of the input topics over a real broker: beside the present rows, and on top of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer, TopicPartition

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app import topics
from stream_app.control import Erase, encode
from stream_app.errors import UsageError
from stream_app.group_offsets import committed, set_offsets
from stream_app.lane.journal import read_journal
from stream_app.lane.reading import read_records
from stream_app.lane.stored_rows import is_marker
from stream_app.log_range import Span, find_spans
from stream_app.partitioner import partition_for
from stream_app.replay import settings_beside
from stream_app.settings import PREFIX, Settings
from stream_app.times import format_time
from stream_app.verify import stored_rows, stored_values, verify
from tests.unit.lane_records import START_MS, record
from tests.workers import WAIT_S, committed_events, start_worker, wait_until

USERS = 40
# Kafka times go on from here: gone by, and recent enough for the retention of any broker.
FIRST_MS = int(time.time() * 1000) - 12 * 3_600_000


@pytest.fixture
def own(settings: Settings) -> Iterator[Settings]:
    """Settings of new rows beside; their topics are gone afterwards."""
    beside = settings_beside(settings, f"{settings.app_id}-new")
    yield beside
    topics.delete(beside)


class Feed:
    """Sends an event for each second, in event time and in Kafka time, to the three topics."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(0)
        self._producer = KafkaProducer(**settings.kafka_python(), linger_ms=2)
        self.sent = 0

    def send(self, count: int, users: Iterable[str] | None = None) -> int:
        among = list(users or (f"user-{n}" for n in range(USERS)))
        for _ in range(count):
            kind = EventType(int(self._rng.choice(3, p=[0.6, 0.2, 0.2])))
            user = among[int(self._rng.integers(len(among)))]
            one = record(kind, self.sent, self.sent, user)
            self._send(self._settings.input_topics[kind], user, one.value)
            self.sent += 1
        self._producer.flush(60)
        return self.sent

    def erase(self, user: str) -> None:
        request = Erase(request_id="erase", user_id=user, requested_ms=START_MS)
        self._send(self._settings.control_topic, user, encode(request))
        self._producer.flush(60)

    def _send(self, topic: str, user: str, value: bytes | None) -> None:
        place = partition_for(user.encode(), self._settings.partitions)
        at_ms = FIRST_MS + 1000 * self.sent
        self._producer.send(topic, value, user.encode(), partition=place, timestamp_ms=at_ms)

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def feed(settings: Settings) -> Iterator[Feed]:
    one = Feed(settings)
    yield one
    one.close()


def moment(event: int) -> str:
    """When the Feed sends its n-th event."""
    return format_time(FIRST_MS + 1000 * event)


def command(overrides: dict[str, Any], *arguments: str) -> tuple[list[str], dict[str, str]]:
    variables = {f"{PREFIX}{key.upper()}": str(value) for key, value in overrides.items()}
    return [sys.executable, "-m", "stream_app.cli", "replay", *arguments], {
        **os.environ,
        **variables,
        "COLUMNS": "200",
    }


def replay(overrides: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of the command."""
    words, environment = command(overrides, *arguments)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def apply_all(settings: Settings, overrides: dict[str, Any], home: Path, count: int) -> None:
    worker = start_worker(overrides, home)
    try:
        wait_until(lambda: committed_events(settings) == count, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()


def written(settings: Settings) -> dict[str, list[tuple[bytes | None, bytes | None]]]:
    """All that a worker has written, topic by topic."""
    names = (settings.changelog_topic, settings.journal_topic, settings.control_topic)
    names += tuple(getattr(settings, name) for name in topics.OUTPUT_FIELDS)
    return {
        name: [
            (one.key, one.value)
            for partition in range(settings.partitions)
            for one in read_records(settings, name, partition)
        ]
        for name in names
    }


def output_ids(settings: Settings) -> Counter[str]:
    return Counter(
        json.loads(message.value)["id"]
        for topic in (settings.drift_topic, settings.recommendations_topic)
        for partition in range(settings.partitions)
        for message in read_records(settings, topic, partition)
        if message.value is not None
    )


def rows_of(settings: Settings) -> dict[str, bytes]:
    rows = {}
    for partition in range(settings.partitions):
        rows.update(stored_rows(settings, partition))
    return rows


def events_between(settings: Settings, first: int, stop: int, without: str = "") -> int:
    """Events that the Feed sent between two of its times, but for those of one user."""
    return sum(
        FIRST_MS + 1000 * first <= one.timestamp < FIRST_MS + 1000 * stop
        and one.key != without.encode()
        for topic in settings.input_topics
        for partition in range(settings.partitions)
        for one in read_records(settings, topic, partition)
    )


def assert_exact(settings: Settings, checkpoint: Checkpoint, events: int) -> None:
    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    assert comparison.hidden_difference < 0.005
    assert comparison.events == events
    ids = output_ids(settings)
    assert ids.keys() == offline.outputs.keys()
    assert set(ids.values()) == {1}


def test_spans_are_found_by_the_times_of_the_records(settings: Settings) -> None:
    topics.create(settings)
    producer = KafkaProducer(**settings.kafka_python())
    for second in (1, 2, 3, 2.5, 4):
        at_ms = FIRST_MS + int(1000 * second)
        producer.send(settings.clicks_topic, b"x", partition=1, timestamp_ms=at_ms)
        producer.flush(60)
    producer.close()
    place = TopicPartition(settings.clicks_topic, 1)
    empty = TopicPartition(settings.searches_topic, 0)
    for from_ms, to_ms, span in [
        (0, None, Span(0, 0, 5)),
        (1001, None, Span(0, 1, 5)),
        (2000, 3000, Span(0, 1, 2)),
        (2600, 4000, Span(0, 2, 4)),
        (4001, None, Span(0, 5, 5)),
        (1, 1000, Span(0, 0, 0)),
    ]:
        spans = find_spans(settings, FIRST_MS + from_ms, to_ms and FIRST_MS + to_ms)
        assert spans[place] == span, (from_ms, to_ms)
        assert spans[empty] == Span(0, 0, 0)
        assert len(spans) == 3 * settings.partitions


@pytest.mark.timeout(300)
def test_new_rows_beside_the_old_ones(
    settings: Settings,
    own: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    count = feed.send(1500)
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == count, worker)
        feed.erase("user-7")
        wait_until(lambda: any(map(is_marker, all_keys(settings))), worker)
        status, errors = replay(overrides, "--from", moment(1000))
        assert status == 2
        assert f"The group {settings.app_id} has members" in errors
        assert worker.stop() == 0
    finally:
        worker.kill()
    before, offsets = written(settings), committed(settings)

    status, errors = replay(overrides, "--from", moment(1000), "--as", own.app_id)
    assert status == 0, errors
    assert f"INTEREST_APP_ID={own.app_id}" in errors
    assert own.recommendations_topic in errors
    assert written(settings) == before
    assert committed(settings) == offsets
    assert_exact(own, checkpoint, events_between(settings, 1000, 1500, without="user-7"))
    assert "user-7" not in rows_of(own), "she was erased, and a replay must not bring her back"

    status, errors = replay(overrides, "--from", moment(1000), "--as", own.app_id)
    assert status == 2
    assert f"{own.app_id} has been in use already" in errors

    # The switch: workers of the new rows go on where the replay ended.
    feed.send(300)
    own_overrides = {**overrides, "app_id": own.app_id}
    worker = start_worker(own_overrides, tmp_path, "new")
    try:
        wait_until(lambda: committed_events(own) == feed.sent, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    comparison, _ = verify(own, checkpoint)
    assert comparison.exact
    assert comparison.events == events_between(settings, 1000, 1500, "user-7") + events_between(
        settings, 1500, 1800
    )


def all_keys(settings: Settings) -> Iterator[bytes]:
    for partition in range(settings.partitions):
        yield from stored_values(settings, partition)


@pytest.mark.timeout(300)
def test_on_top_of_the_present_rows_skipped_events_come_in_and_nothing_twice(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    small = {**overrides, "max_batch_events": 50}
    apply_all(settings, small, tmp_path, feed.send(600))
    skipped = [f"skipped-{n}" for n in range(8)]
    feed.send(400, [*skipped, *(f"user-{n}" for n in range(USERS))])
    ends = find_spans(settings, 0, None)
    set_offsets(settings, {place: span.stop for place, span in ends.items()})
    apply_all(settings, small, tmp_path, feed.send(600))
    before, rows = output_ids(settings), rows_of(settings)
    assert not rows.keys() & set(skipped)
    assert_exact(settings, checkpoint, 1200)

    status, errors = replay(small, "--from", moment(0))
    assert status == 0, errors
    assert committed_events(settings) == feed.sent
    after = rows_of(settings)
    assert after.keys() > rows.keys()
    assert set(skipped) < after.keys(), "nothing later of theirs has been applied"
    comparison, _ = verify(settings, checkpoint)
    assert comparison.events > 1200
    assert output_ids(settings).keys() > before.keys()
    assert_exact(settings, checkpoint, comparison.events)

    # A second time there is nothing new.
    status, errors = replay(small, "--from", moment(0))
    assert status == 0, errors
    assert rows_of(settings) == after
    assert_exact(settings, checkpoint, comparison.events)
    apply_all(settings, small, tmp_path, feed.send(100))
    assert_exact(settings, checkpoint, comparison.events + 100)


@pytest.mark.timeout(300)
def test_a_bound_stops_exactly(
    settings: Settings,
    own: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    count = feed.send(1200)
    status, errors = replay(
        overrides, "--from", moment(300), "--to", moment(700), "--as", own.app_id
    )
    assert status == 0, errors
    spans = find_spans(settings, FIRST_MS + 300_000, FIRST_MS + 700_000)
    assert committed(own) == {place: span.stop for place, span in spans.items()}
    for partition in range(own.partitions):
        last = read_journal(own, partition)[-1]
        stops = [spans[TopicPartition(t, partition)].stop for t in own.input_topics]
        assert list(last.end) == stops
    assert_exact(own, checkpoint, events_between(settings, 300, 700))

    # On top of rows that are further on, the group goes on where it was.
    apply_all(settings, {**overrides, "max_batch_events": 50}, tmp_path, count)
    rows, offsets = rows_of(settings), committed(settings)
    status, errors = replay(overrides, "--from", moment(300), "--to", moment(700))
    assert status == 0, errors
    assert rows_of(settings) == rows
    assert committed(settings) == offsets
    assert_exact(settings, checkpoint, count)


def test_what_cannot_be_replayed_is_one_sentence(
    settings: Settings, own: Settings, overrides: dict[str, Any], feed: Feed
) -> None:
    feed.send(50)
    for arguments, sentence in [
        (["--from", "2100-01-01"], "lies in the future"),
        (["--from", moment(10), "--to", moment(5)], "is not after --from"),
        (["--from", moment(50)], "have no record from"),
        (["--from", moment(0), "--as", settings.app_id], "has the present rows"),
        (["--from", moment(0)], "has committed nothing"),
        (["log.csv", "--from", moment(0)], "give them no FILE"),
        (["--from", "yesterday"], "is no time"),
        ([], "There is nothing to replay"),
    ]:
        status, errors = replay(overrides, *arguments)
        assert status == 2, errors
        assert sentence in errors
    status, errors = replay({**overrides, "kafka_bootstrap": "127.0.0.1:1"}, "--from", moment(0))
    assert status == 1
    assert "No broker answers at 127.0.0.1:1" in errors
    with pytest.raises(UsageError):
        settings_beside(settings, "a/b")


@pytest.mark.timeout(300)
def test_an_interrupt_ends_the_worker_and_says_how_to_go_on(
    settings: Settings, own: Settings, overrides: dict[str, Any], feed: Feed
) -> None:
    feed.send(6000)
    words, environment = command(
        {**overrides, "max_batch_events": 10}, "--from", moment(0), "--as", own.app_id
    )
    with subprocess.Popen(
        words,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # Where the test itself runs in the background, SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        wait_until(lambda: committed_events(own) > 0)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"INTEREST_APP_ID={own.app_id}" in errors
    assert 0 < committed_events(own) < 6000
    set_offsets(own, committed(own))  # refused while the group has members
