"""The real worker over a real broker: rows, outputs, restart, takeover, and its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rocksdict
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import new_rows, pack, unpack
from stream_app import topics
from stream_app.demo.processes import WorkerProcess
from stream_app.lane.journal import read_journal
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import PREFIX, Settings
from stream_app.verify import stored_rows, verify
from tests.unit.lane_records import broken, record
from tests.workers import WAIT_S, committed_events, start_worker, wait_until

USERS = 60
ROWS = 10_000


class Feed:
    """Sends good events of many users to the three topics, in the order of their times."""

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
        self.sent = 0

    def send(self, count: int, broken_every: int = 0) -> int:
        for _ in range(count):
            kind = EventType(int(self._rng.choice(3, p=[0.7, 0.15, 0.15])))
            user = f"user-{self._rng.integers(USERS)}"
            one = record(kind, self.sent, self.sent, user)
            if broken_every and self.sent % broken_every == 0:
                one = broken(kind, self.sent)._replace(key=user.encode())
            place = partition_for(user.encode(), self._settings.partitions)
            topic = self._settings.input_topics[kind]
            self._producer.send(topic, one.value, one.key, partition=place)
            self.sent += 1
        self._producer.flush(60)
        return self.sent

    def close(self) -> None:
        self._producer.close()


@pytest.fixture
def feed(settings: Settings) -> Any:
    one = Feed(settings)
    yield one
    one.close()


def all_committed(settings: Settings, count: int) -> Callable[[], bool]:
    return lambda: committed_events(settings) == count


def local_rows(folder: Path) -> dict[str, bytes]:
    """All rows in the stores of a worker that has ended."""
    rows = {}
    for path in sorted(folder.rglob("user_state-*.db")):
        store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
        rows.update({key.decode(): value for key, value in store.items() if b"\0" not in key})
        store.close()
    return rows


def changelog_rows(settings: Settings) -> dict[str, bytes]:
    rows = {}
    for partition in range(settings.partitions):
        rows.update(stored_rows(settings, partition))
    return rows


def assert_exact(settings: Settings, checkpoint: Checkpoint, events: int) -> None:
    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    assert comparison.hidden_difference < 0.005
    assert comparison.events == events
    sent = {
        json.loads(message.value)["id"]
        for topic in (settings.drift_topic, settings.recommendations_topic)
        for partition in range(settings.partitions)
        for message in read_records(settings, topic, partition)
    }
    assert sent == offline.outputs.keys()
    assert sent


def test_events_in_rows_and_outputs_out(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    count = feed.send(2000, broken_every=100)
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(all_committed(settings, count), worker)
        count = feed.send(500)  # live, after the backlog
        wait_until(all_committed(settings, count), worker)
        samples = worker.metrics()
        assert worker.stop() == 0
    finally:
        worker.kill()
    letters = [
        letter
        for partition in range(settings.partitions)
        for letter in read_records(settings, settings.dead_letters_topic, partition)
    ]
    assert len(letters) == 20
    assert samples["interest_dead_letters_total", ("invalid_json",)] == 20
    assert sum(v for k, v in samples.items() if k[0] == "interest_events_total") == count
    assert_exact(settings, checkpoint, count - 20)
    assert local_rows(tmp_path / "worker") == changelog_rows(settings)


def test_a_restart_without_its_data_folder_restores_every_state(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path, feed: Feed
) -> None:
    count = feed.send(3000)
    first = start_worker(overrides, tmp_path, "first")
    try:
        wait_until(all_committed(settings, count), first)
        assert first.stop() == 0
    finally:
        first.kill()
    before = changelog_rows(settings)
    assert len(before) == USERS
    second = start_worker(overrides, tmp_path, "second")
    try:
        assert second.stop() == 0
    finally:
        second.kill()
    assert local_rows(tmp_path / "second") == before
    assert changelog_rows(settings) == before, "nothing was applied twice"


@pytest.mark.usefixtures("dead_sessions_end")
@pytest.mark.parametrize("standby_replicas", [0, 1])
def test_a_second_worker_takes_over_after_a_kill(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
    standby_replicas: int,
) -> None:
    overrides["standby_replicas"] = standby_replicas
    feed.send(2000)
    one = start_worker(overrides, tmp_path, "one")
    two = WorkerProcess(overrides, tmp_path, "two")
    try:
        feed.send(2000)
        two.wait_until_ready(WAIT_S)
        one.kill()
        count = feed.send(2000)
        wait_until(all_committed(settings, count), two)
        assert two.stop() == 0
    finally:
        one.kill()
        two.kill()
    assert_exact(settings, checkpoint, count)


@pytest.mark.usefixtures("dead_sessions_end")
def test_a_standby_that_starts_with_many_polls_to_read_has_every_row(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    put_rows(settings, pack(new_rows(1, checkpoint.hidden))[0])
    overrides["standby_replicas"] = 1
    one = start_worker(overrides, tmp_path, "one")
    two = WorkerProcess(overrides, tmp_path, "two")
    try:
        two.wait_until_ready(WAIT_S)
        one.kill()
        count = feed.send(500)
        wait_until(all_committed(settings, count), two)
        assert two.stop() == 0
    finally:
        one.kill()
        two.kill()
    kept = local_rows(tmp_path / "two")
    assert len(kept) > ROWS
    assert kept == changelog_rows(settings)


def put_rows(settings: Settings, row: bytes) -> None:
    """Rows of users without events, each in the partition of its user."""
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=20, batch_size=500_000)
    for number in range(ROWS):
        user = b"with-a-row-%d" % number
        place = partition_for(user, settings.partitions)
        producer.send(settings.changelog_topic, row, user, partition=place)
    producer.flush(60)
    producer.close()


def committed_offsets(settings: Settings) -> Mapping[TopicPartition, int]:
    admin = KafkaAdminClient(**settings.kafka_python())
    try:
        offsets = admin.list_group_offsets(settings.app_id).get(settings.app_id, {})
        return {place: found.offset for place, found in offsets.items()}
    finally:
        admin.close()


def test_sigterm_under_load_commits_all_that_was_applied(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    feed.send(6000)
    # Small batches and rare commits: the end alone decides what is committed.
    slow = {**overrides, "max_batch_events": 50, "commit_interval_s": 3600.0}
    worker = start_worker(slow, tmp_path)
    try:
        wait_until(lambda: _applied(worker) > 100, worker)
        assert worker.stop(timeout_s=10.0) == 0
    finally:
        worker.kill()
    committed = committed_offsets(settings)
    applied = 0
    for partition in range(settings.partitions):
        last = read_journal(settings, partition)[-1]
        for topic, end in zip(settings.input_topics, last.end, strict=True):
            assert committed.get(TopicPartition(topic, partition), 0) == end
        applied += sum(last.end)
    rows = changelog_rows(settings)
    assert int(unpack(list(rows.values()), checkpoint.hidden)["events"].sum()) == applied


def test_a_worker_that_does_not_end_in_time_says_what_it_is_at(
    overrides: dict[str, Any], tmp_path: Path, feed: Feed
) -> None:
    worker = start_worker({**overrides, "shutdown_timeout_s": 0.001}, tmp_path)
    try:
        feed.send(10)
        wait_until(lambda: _applied(worker) == 10, worker)
        assert worker.stop() == 1
    finally:
        worker.kill()
    said = worker.last_line()
    assert said.startswith("WorkerError: The worker did not end within 0.001 s of being told to;")
    assert "Still under way: " in said
    assert "Worker._stop_on_signal in " in said


def _applied(worker: WorkerProcess) -> float:
    samples = worker.metrics()
    return sum(v for k, v in samples.items() if k[0] == "interest_events_total")


def broken_worker(overrides: Mapping[str, Any], home: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a worker with something broken, see chaos/faults.py."""
    own = {**overrides, "data_dir": home / "worker", "http_port": 0}
    variables = {f"{PREFIX}{key.upper()}": str(value) for key, value in own.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.failures.chaos.faults", *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_dead_letter_topic_that_refuses_writes_stops_the_worker(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    producer = KafkaProducer(**settings.kafka_python())
    producer.send(settings.clicks_topic, b"{", b"ann", partition=0)
    producer.flush(60)
    producer.close()
    status, errors = broken_worker(overrides, tmp_path, "refuse", settings.dead_letters_topic)
    assert status == 1
    *_, sentence = errors.strip().splitlines()
    assert sentence.startswith(f"WorkerError: Topic {settings.dead_letters_topic} refuses writes")
    assert "Traceback" not in errors
    assert committed_events(settings) == 0


@pytest.mark.usefixtures("dead_sessions_end")
@pytest.mark.timeout(300)
def test_killed_at_each_step_of_a_commit_it_loses_and_doubles_nothing(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    feed: Feed,
) -> None:
    count = feed.send(4000)
    small = {**overrides, "max_batch_events": 40}
    # The n-th time; of few commits the first, as there need not be another.
    times = {
        "after journal": 3,
        "before changelog": 3,
        "after changelog": 3,
        "before offsets": 3,
        "after offsets": 3,
        "before committed": 1,
        "after committed": 1,
    }
    for step, time in times.items():
        status, errors = broken_worker(small, tmp_path, "kill", step, str(time))
        assert status == -9, f"{step}: {errors}"
    worker = start_worker(small, tmp_path)
    try:
        wait_until(all_committed(settings, count), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert_exact(settings, checkpoint, count)


def test_a_port_that_is_taken_is_one_sentence(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        own = {**overrides, "data_dir": tmp_path / "worker", "http_port": port}
        done = subprocess.run(
            [sys.executable, "-m", "stream_app.cli", "worker"],
            env={**os.environ, **{f"{PREFIX}{k.upper()}": str(v) for k, v in own.items()}},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"WorkerError: 127.0.0.1:{port}")
    assert "Traceback" not in done.stderr


def test_a_group_that_refuses_the_worker_is_one_sentence(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    noida = pytest.importorskip("tests.noida")
    with noida.NoidaBroker(tmp_path / "noida") as broker:
        own = settings.model_copy(update={"kafka_bootstrap": broker.bootstrap})
        topics.create(own)
        refused = {
            **overrides,
            "kafka_bootstrap": broker.bootstrap,
            "session_timeout_s": 3.0,  # less than this broker takes
            "http_port": 0,
            "data_dir": tmp_path / "worker",
        }
        done = subprocess.run(
            [sys.executable, "-m", "stream_app.cli", "worker"],
            env={**os.environ, **{f"{PREFIX}{k.upper()}": str(v) for k, v in refused.items()}},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    assert done.returncode == 1
    *_, sentence = done.stderr.strip().splitlines()
    assert sentence.startswith("WorkerError: The broker does not take the worker into its group")
