"""Log and metrics of a real worker name no user, no item and no query; its log no secret."""

from __future__ import annotations

import json
import random
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import new_rows, pack
from stream_app import topics
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import SECRETS, Settings
from tests.checkpoints import named_checkpoint
from tests.integration.broken_messages import broken_messages, good_event
from tests.integration.test_worker import broken_worker
from tests.workers import committed_events, overrides_of, start_worker, wait_until

USER, ITEM, CATEGORY, QUERY = "geheime-person", "geheimes-ding", "geheime-sparte", "geheime suche"
NAMES = ("geheim", "broken-7")
"""What the names of all events have in common, and those of the broken ones."""
SECRET = "sehr-verborgen-47114711"


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return named_checkpoint(
        [f"{ITEM}-{number}" for number in range(40)], [f"{CATEGORY}-{n}" for n in range(6)]
    )


@pytest.fixture
def overrides(settings: Settings, checkpoint: Checkpoint, tmp_path: Path) -> dict[str, Any]:
    topics.create(settings)
    return {**overrides_of(settings, checkpoint, tmp_path), "log_level": "info"}


def named_event(event_type: EventType, number: int, **changes: Any) -> tuple[bytes, bytes]:
    """Key and value of an event in which everything has a name that can be found."""
    user, item = f"{USER}-{number % 9}", f"{ITEM}-{number % 40}"
    named: dict[str, Any] = {"category": f"{CATEGORY}-{number % 6}"}
    if event_type is EventType.CLICK:
        named["item_id"] = item
    elif event_type is EventType.SEARCH:
        named["query"] = f"{QUERY} {number}"
    else:
        named = {"items": [{"item_id": item, **named}]}
    event = good_event(event_type, user, number, **{**named, **changes})
    return user.encode(), json.dumps(event).encode()


def send(settings: Settings, count: int) -> int:
    """Good events and broken ones of every kind; how many in all."""
    producer = KafkaProducer(**settings.kafka_python(), max_request_size=20_000_000, linger_ms=5)
    rng = random.Random(7)
    wrong = [{"action": "geheime-tat"}, {"timestamp": "geheime-zeit"}, {"item_id": ""}]
    for number in range(count):
        event_type = EventType(rng.randrange(3))
        key, value = named_event(event_type, number)
        place = partition_for(key, settings.partitions)
        producer.send(settings.input_topics[event_type], value, key, partition=place)
    for number, changes in enumerate(wrong):
        key, value = named_event(EventType.CLICK, number, **changes)
        place = partition_for(key, settings.partitions)
        producer.send(settings.clicks_topic, value, key, partition=place)
    broken = broken_messages(seed=7)
    for one in broken:
        place, topic = one.partition(settings.partitions), settings.input_topics[one.event_type]
        producer.send(topic, one.value, one.key, partition=place)
    producer.flush(60)
    producer.close()
    return count + len(wrong) + len(broken)


def test_neither_log_nor_metrics_name_anybody(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    worker = start_worker(overrides, tmp_path)
    try:
        count = send(settings, 600)
        wait_until(lambda: committed_events(settings) == count, worker)
        pages = ""
        for page in ("metrics", "livez", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}/{page}") as answer:
                pages += answer.read().decode()
        assert worker.stop() == 0
    finally:
        worker.kill()
    log = worker.log_file.read_text()
    assert "Health and metrics at" in log  # the level is info
    assert 'interest_dead_letters_total{reason="unknown_action"}' in pages
    for name in NAMES:
        assert name not in log
        assert name not in pages
    lists = [
        record.value.decode()
        for partition in range(settings.partitions)
        for record in read_records(settings, settings.recommendations_topic, partition)
    ]
    assert all(name in "".join(lists) for name in (USER, ITEM, CATEGORY))


def test_a_failure_names_nobody(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    send(settings, 50)
    status, errors = broken_worker(overrides, tmp_path, "refuse", settings.dead_letters_topic)
    assert status == 1
    assert "refuses writes" in errors
    for name in NAMES:
        assert name not in errors


def test_a_damaged_row_stops_the_worker_and_names_nobody(
    settings: Settings, overrides: dict[str, Any], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    key, value = named_event(EventType.CLICK, 1)
    place = partition_for(key, settings.partitions)
    row = new_rows(1, checkpoint.hidden)
    row["h"][0, 0] = np.nan
    producer = KafkaProducer(**settings.kafka_python())
    producer.send(settings.changelog_topic, pack(row)[0], key, partition=place)
    producer.send(settings.clicks_topic, value, key, partition=place)
    producer.flush(60)
    producer.close()
    status, errors = broken_worker(overrides, tmp_path, "refuse", "no-topic")
    assert status == 1
    *_, sentence = errors.strip().splitlines()
    assert sentence.startswith("StoreError: A stored row is damaged (its h is out of bounds)")
    assert "Traceback" not in errors
    assert "geheim" not in errors
    assert committed_events(settings) == 0


def test_no_secret_in_the_log_at_any_level(
    settings: Settings, overrides: dict[str, Any], tmp_path: Path
) -> None:
    secrets = dict.fromkeys(SECRETS, SECRET)
    worker = start_worker({**overrides, **secrets, "log_level": "debug"}, tmp_path)
    try:
        count = send(settings, 20)
        wait_until(lambda: committed_events(settings) == count, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    log = worker.log_file.read_text(errors="replace")
    assert "aiokafka" in log  # the level is debug
    assert SECRET not in log
    # There aiokafka writes whole requests, those with passwords among them.
    assert "Request to" not in log
