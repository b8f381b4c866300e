"""Recovery from changelogs whose end is not as it was left: it ends, or the worker does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, KafkaAdminClient

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app import topics
from stream_app.broker import free_port
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import PREFIX, Settings
from stream_app.verify import stored_rows, verify
from tests.conftest import own_settings
from tests.noida import NoidaBroker
from tests.unit.lane_records import record
from tests.workers import WAIT_S, committed_events, overrides_of, start_worker, wait_until

FASTER = {"rebalance_timeout_s": 6.0, "session_timeout_s": 6.0, "commit_interval_s": 0.2}
EVENTS = 300


@pytest.fixture(scope="module")
def noida(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NoidaBroker]:
    """A broker with transactions and DeleteRecords, which the embedded one has not."""
    pytest.importorskip("noida_db", reason="noida-db, a broker with transactions, is not installed")
    with NoidaBroker(tmp_path_factory.mktemp("noida")) as broker:
        yield broker


@pytest.fixture
def on_noida(noida: NoidaBroker, tmp_path: Path) -> Iterator[Settings]:
    settings = own_settings(noida.bootstrap, tmp_path / "data")
    yield settings
    topics.delete(settings)


def send(settings: Settings, first: int, stop: int) -> None:
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=2)
    for number in range(first, stop):
        user = f"user-{number % 20}"
        one = record(EventType.CLICK, number, number, user)
        place = partition_for(user.encode(), settings.partitions)
        producer.send(settings.clicks_topic, one.value, user.encode(), partition=place)
    producer.flush(60)
    producer.close()


def apply(
    settings: Settings, checkpoint: Checkpoint, home: Path, name: str, first: int = 0
) -> dict[str, Any]:
    """Settings of a worker that has applied events, and has ended."""
    topics.create(settings)
    overrides = {**overrides_of(settings, checkpoint, home), **FASTER}
    go_on(settings, overrides, home, name, first)
    return overrides


def go_on(settings: Settings, overrides: dict[str, Any], home: Path, name: str, first: int) -> None:
    send(settings, first, first + EVENTS)
    worker = start_worker(overrides, home, name)
    try:
        wait_until(lambda: committed_events(settings) == first + EVENTS, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()


def append_transaction(settings: Settings, abort: bool = False) -> None:
    """A record and a marker behind it, in each partition of the changelog."""
    producer = KafkaProducer(**settings.kafka_python(), transactional_id=settings.app_id)
    producer.init_transactions()
    producer.begin_transaction()
    for partition in range(settings.partitions):
        (*_, last) = read_records(settings, settings.changelog_topic, partition)
        producer.send(last.topic, last.value, last.key, partition=partition)
    producer.abort_transaction() if abort else producer.commit_transaction()
    producer.close()


def empty(settings: Settings) -> None:
    """Delete all records of the changelog; its offsets go on."""
    admin = KafkaAdminClient(**settings.kafka_python())

    def policy(value: str) -> None:
        resource = ConfigResource(
            "TOPIC", settings.changelog_topic, configs={"cleanup.policy": value}
        )
        admin.alter_configs([resource])

    policy("delete")
    places = [TopicPartition(settings.changelog_topic, n) for n in range(settings.partitions)]
    admin.delete_records(dict.fromkeys(places, -1))
    policy("compact")
    admin.close()


@pytest.mark.parametrize("abort", [False, True])
@pytest.mark.parametrize("store", ["lost", "kept"])
def test_recovery_ends_where_no_record_stands_at_the_end(
    on_noida: Settings, checkpoint: Checkpoint, tmp_path: Path, store: str, abort: bool
) -> None:
    overrides = apply(on_noida, checkpoint, tmp_path, "one")
    append_transaction(on_noida, abort)
    go_on(on_noida, overrides, tmp_path, "one" if store == "kept" else "two", EVENTS)
    comparison, _ = verify(on_noida, checkpoint)
    assert comparison.exact
    assert comparison.events == 2 * EVENTS


def test_an_emptied_changelog_is_recovered_at_once_and_the_store_goes_on(
    on_noida: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    overrides = apply(on_noida, checkpoint, tmp_path, "one")
    empty(on_noida)
    go_on(on_noida, overrides, tmp_path, "one", EVENTS)
    rows = {}
    for partition in range(on_noida.partitions):
        rows.update(stored_rows(on_noida, partition))
    assert len(rows) == 20
    comparison, _ = verify(on_noida, checkpoint)
    assert comparison.exact


@pytest.mark.parametrize("records", [0, 1])
def test_a_store_that_is_ahead_of_its_changelog_is_refused(
    settings: Settings, checkpoint: Checkpoint, tmp_path: Path, records: int
) -> None:
    overrides = apply(settings, checkpoint, tmp_path, "one")
    admin = KafkaAdminClient(**settings.kafka_python())
    admin.delete_topics([settings.changelog_topic])
    admin.close()
    topics.create(settings)
    producer = KafkaProducer(**settings.kafka_python())
    for partition in range(settings.partitions):
        for _ in range(records):
            producer.send(settings.changelog_topic, None, b"nobody", partition=partition)
    producer.flush(60)
    producer.close()
    status, _, errors = run_worker(overrides, tmp_path / "one")
    assert status == 1
    *_, sentence = errors.strip().splitlines()
    assert sentence.startswith("RecoveryError: The local store is ahead of its changelog")
    assert str(tmp_path / "one") in sentence


def test_a_recovery_that_stands_is_told_and_ends_the_worker(
    settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    overrides = apply(settings, checkpoint, tmp_path, "one")
    status, seen, errors = run_worker(overrides, tmp_path / "two", "stall")
    assert status == 1
    assert any("changelog records left, and none has come for" in reason for reason in seen)
    *_, sentence = errors.strip().splitlines()
    assert sentence.startswith("RecoveryError: The recovery stands")
    assert "Traceback" not in errors


def test_a_store_that_cannot_be_written_ends_the_recovery_and_the_worker(
    settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    overrides = apply(settings, checkpoint, tmp_path, "one")
    status, _, errors = run_worker(overrides, tmp_path / "two", "full")
    assert status == 1
    *_, sentence = errors.strip().splitlines()
    assert sentence.startswith("StoreError: ")
    assert "No space left on device" in sentence
    assert "Traceback" not in errors


def run_worker(overrides: dict[str, Any], folder: Path, *broken: str) -> tuple[int, set[str], str]:
    """Exit status, reasons of /readyz and standard error of a worker, see chaos/faults.py."""
    port = free_port()
    own = {**overrides, "data_dir": folder, "http_port": port}
    module = ["tests.failures.chaos.faults", *broken] if broken else ["stream_app.cli", "worker"]
    reasons: set[str] = set()
    log = folder.with_suffix(".log")
    with open(log, "w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            env={**os.environ, **{f"{PREFIX}{k.upper()}": str(v) for k, v in own.items()}},
            stderr=stderr,
        )
        try:
            wait_until(lambda: _has_ended(process, port, reasons))
        finally:
            process.kill()
        return process.wait(WAIT_S), reasons, log.read_text()


def _has_ended(process: subprocess.Popen[bytes], port: int, reasons: set[str]) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            reasons.update(json.load(answer)["reasons"])
    except urllib.error.HTTPError as error:
        with error:
            reasons.update(json.load(error)["reasons"])
    except OSError:
        pass
    return process.poll() is not None
