"""Erasure, expiry, and topics that are made anew: the real worker over a real broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import unpack
from stream_app import topics
from stream_app.control import Erase, Receipt, decode_receipt, encode
from stream_app.demo.processes import WorkerProcess
from stream_app.lane.reading import read_records
from stream_app.lane.stored_rows import is_marker
from stream_app.partitioner import partition_for
from stream_app.settings import PREFIX, Settings
from stream_app.verify import stored_values, verify
from tests.unit.lane_records import START_MS, record
from tests.workers import WAIT_S, committed_events, start_worker, wait_until

DAY_S = 86_400
TOKEN = "a-token-for-the-tests-1234"


class Feed:
    """Sends clicks of named users at given times."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer = KafkaProducer(**settings.kafka_python(), linger_ms=2)
        self.sent = 0

    def click(self, user: str, time_s: int) -> None:
        one = record(EventType.CLICK, self.sent, time_s, user)
        self.send(self._settings.clicks_topic, user, one.value)
        self.sent += 1

    def erase(self, user: str, name: str) -> None:
        request = Erase(request_id=name, user_id=user, requested_ms=START_MS)
        self.send(self._settings.control_topic, user, encode(request))

    def send(self, topic: str, user: str, value: bytes | None) -> None:
        place = partition_for(user.encode(), self._settings.partitions)
        self._producer.send(topic, value, user.encode(), partition=place)

    def flush(self) -> int:
        self._producer.flush(60)
        return self.sent


@pytest.fixture
def feed(settings: Settings) -> Any:
    one = Feed(settings)
    yield one
    one._producer.close()


def all_committed(settings: Settings, count: int) -> Callable[[], bool]:
    return lambda: committed_events(settings) == count


def receipts(settings: Settings, user: str) -> list[Receipt]:
    place = partition_for(user.encode(), settings.partitions)
    found = read_records(settings, settings.control_topic, place)
    answers = [decode_receipt(one.headers) for one in found if one.value is None]
    return [answer for answer in answers if answer is not None]


def last_values(settings: Settings, topic: str, user: str) -> list[bytes | None]:
    """The last value under the user's key, if there is one."""
    place = partition_for(user.encode(), settings.partitions)
    found = [one.value for one in read_records(settings, topic, place) if one.key == user.encode()]
    return found[-1:]


def assert_exact(settings: Settings, checkpoint: Checkpoint) -> None:
    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    sent = {
        json.loads(message.value)["id"]
        for topic in (settings.drift_topic, settings.recommendations_topic)
        for partition in range(settings.partitions)
        for message in read_records(settings, topic, partition)
        if message.value is not None
    }
    assert sent == offline.outputs.keys()


def test_an_erased_user_is_gone_and_stays_gone(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    for time_s in range(60):
        feed.click("ann", time_s)
        feed.click("bob", time_s)
    count = feed.flush()
    worker = start_worker(overrides, tmp_path, "one")
    try:
        wait_until(all_committed(settings, count), worker)
        feed.erase("ann", "first")
        feed.flush()
        wait_until(lambda: bool(receipts(settings, "ann")), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    (receipt,) = receipts(settings, "ann")
    place = partition_for(b"ann", settings.partitions)
    assert receipt.request_id == "first"
    assert receipt.had_row
    assert receipt.inputs[settings.clicks_topic] == len(
        read_records(settings, settings.clicks_topic, place)
    )
    assert_gone(settings, "ann")
    assert_exact(settings, checkpoint)

    # Recovered from the changelog alone, with the inputs replayed from their beginning.
    admin = KafkaAdminClient(**settings.kafka_python())
    admin.delete_groups([settings.app_id])
    admin.close()
    worker = start_worker(overrides, tmp_path, "two")
    try:
        wait_until(all_committed(settings, count), worker)
        assert_gone(settings, "ann")
        feed.click("ann", 100)  # a new event is the beginning of a new row
        count = feed.flush()
        wait_until(all_committed(settings, count), worker)
        feed.erase("ann", "second")
        feed.erase("nobody", "third")
        feed.flush()
        wait_until(lambda: len(receipts(settings, "ann")) == 3, worker)
        wait_until(lambda: bool(receipts(settings, "nobody")), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert_gone(settings, "ann")
    assert not receipts(settings, "nobody")[-1].had_row


def assert_gone(settings: Settings, user: str) -> None:
    place = partition_for(user.encode(), settings.partitions)
    assert user.encode() not in stored_values(settings, place)
    assert any(map(is_marker, stored_values(settings, place)))
    for topic in (
        settings.changelog_topic,
        settings.drift_topic,
        settings.recommendations_topic,
        settings.control_topic,
    ):
        assert last_values(settings, topic, user) in ([], [None]), topic


def test_rows_expire_by_event_time(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    settings = settings.model_copy(update={"state_ttl": "10d"})
    overrides = {**overrides, "state_ttl": "10d"}
    for number in range(40):
        feed.click(f"old-{number}", number)
    for day in range(30):
        for number in range(8):
            feed.click(f"user-{number}", day * DAY_S + number)
    feed.click("old-7", 30 * DAY_S)  # comes back after its row has expired
    count = feed.flush()
    worker = start_worker({**overrides, "max_batch_events": 20}, tmp_path)
    try:
        wait_until(all_committed(settings, count), worker)
        wait_until(
            lambda: worker.metrics().get(("interest_expired_rows_total", ()), 0) >= 30, worker
        )
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert_exact(settings, checkpoint)
    stored = {
        key.decode(): value
        for partition in range(settings.partitions)
        for key, value in stored_values(settings, partition).items()
    }
    left = [user for user in stored if user.startswith("old")]
    assert "old-7" in left
    assert len(left) < 10, "those whose partition had no later event may be left"
    assert int(unpack([stored["old-7"]], checkpoint.hidden)["steps"][0]) == 1


def test_rows_stay_until_the_journal_says_that_they_have_expired(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    settings = settings.model_copy(update={"state_ttl": "10d"})
    overrides = {**overrides, "state_ttl": "10d"}
    for number in range(40):
        feed.click(f"old-{number}", number)
    count = feed.flush()
    for time_s in (30 * DAY_S, 30 * DAY_S + 60):
        worker = start_worker(overrides, tmp_path)
        try:
            wait_until(all_committed(settings, count), worker)
            for number in range(8):
                feed.click(f"user-{number}", time_s)
            count = feed.flush()
            wait_until(all_committed(settings, count), worker)
            assert worker.stop() == 0
        finally:
            worker.kill()
        assert_exact(settings, checkpoint)


def test_a_topic_that_is_made_anew_is_begun_at_its_first_record(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    if 0 in topics.epochs(settings):
        pytest.skip("this broker gives topics no ids")
    for time_s in range(200):
        feed.click(f"user-{time_s % 10}", time_s)
    count = feed.flush()
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(all_committed(settings, count), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    admin = KafkaAdminClient(**settings.kafka_python())
    admin.delete_topics([settings.clicks_topic])
    admin.close()
    topics.create(settings)
    feed._producer.close()
    again = Feed(settings)
    again.sent = feed.sent
    for time_s in range(300, 360):
        again.click(f"user-{time_s % 10}", time_s)
    again.flush()
    again._producer.close()
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(all_committed(settings, 60), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    values = [
        value
        for partition in range(settings.partitions)
        for value in stored_values(settings, partition).values()
    ]
    rows = unpack(list(values), checkpoint.hidden)
    assert len(rows) == 10
    assert rows["events"].tolist() == [26] * 10


def interest_stream(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the program, with the settings of the test."""
    own = settings.model_dump(exclude_defaults=True, exclude={"http_token", "data_dir"})
    variables = {f"{PREFIX}{name.upper()}": str(value) for name, value in own.items()}
    return subprocess.run(
        [sys.executable, "-m", "stream_app.cli", *arguments],
        env={**os.environ, **variables, f"{PREFIX}HTTP_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_any_worker_tells_what_is_known_of_a_user_and_the_owner_erases_it(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    users = [f"user {number}/ä" for number in range(8)]
    for time_s in range(80):
        feed.click(users[time_s % 8], time_s)
    for user in users[:2]:
        feed.send(settings.searches_topic, user, json.dumps({"user_id": user}).encode())
    count = feed.flush() + 2
    shared = {**overrides, "http_token": TOKEN}
    one = start_worker(shared, tmp_path, "one")
    two = WorkerProcess(shared, tmp_path, "two")
    try:
        two.wait_until_ready(WAIT_S)
        wait_until(all_committed(settings, count), one)
        for worker in (one, two):
            for user in users[:3]:
                done = interest_stream(
                    settings, "inspect", user, "--json", "--url", f"http://127.0.0.1:{worker.port}"
                )
                assert done.returncode == 0, done.stderr
                found = json.loads(done.stdout)
                assert (found["user_id"], found["events"]) == (user, 10)
                assert found["recent"][0]["kind"] == "view"
                assert found["interests"]
                assert found["model_version"] == checkpoint.version
        url = f"http://127.0.0.1:{two.port}"
        shown = interest_stream(settings, "inspect", users[0], "--url", url)
        assert "10 events" in shown.stderr
        missing = interest_stream(settings, "inspect", "nobody", "--url", url)
        assert missing.returncode == 1
        assert "Nothing is stored of this user" in missing.stderr
        for token in ({}, {"Authorization": "Bearer wrong-wrong-wrong-wrong"}):
            request = urllib.request.Request(f"{url}/users/nobody", headers=token)
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(request, timeout=5)

        erased = interest_stream(settings, "erase", users[0], "--json")
        assert erased.returncode == 0, erased.stderr
        report = json.loads(erased.stdout)
        assert report["receipt"]["had_row"]
        left = {one["topic"]: one for one in report["held"]}
        assert left[settings.clicks_topic]["records"] == 10
        assert report["dead_letters"] == 1
        assert left[settings.dead_letters_topic]["records"] == 0
        assert not any(one["current"] for one in report["held"])
        again = interest_stream(settings, "inspect", users[0], "--json", "--url", url)
        assert json.loads(again.stdout)["erased"]
        assert not json.loads(again.stdout)["stored"]
        assert one.stop() == 0
        assert two.stop() == 0
    finally:
        one.kill()
        two.kill()
    for name in ("one", "two"):
        assert "user 0" not in (tmp_path / f"{name}.log").read_text()


def test_an_erasure_that_nobody_answers_says_so(settings: Settings) -> None:
    topics.create(settings)
    done = interest_stream(settings, "erase", "ann", "--timeout", "1")
    assert done.returncode == 1
    assert "No worker has answered within 1 s" in done.stderr
