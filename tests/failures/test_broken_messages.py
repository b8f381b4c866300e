"""1,000 broken messages of every kind among 10,000 good ones: each ends where it belongs."""

from __future__ import annotations

import json
import random
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from model.events import EventType
from stream_app import topics
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import Settings
from stream_app.verify import verify
from tests.checkpoints import tiny_checkpoint
from tests.integration.broken_messages import broken_messages, good_event
from tests.workers import committed_events, overrides_of, start_worker, wait_until

GOOD = 10_000
BROKEN = 1_000
USERS = 400


@pytest.mark.timeout(240)
def test_good_events_are_applied_and_broken_ones_are_dead_letters(
    settings: Settings, tmp_path: Path
) -> None:
    rng = random.Random(11)
    kinds = broken_messages(seed=11)
    broken = [kinds[i % len(kinds)] for i in range(BROKEN)]
    assert len({one.reason for one in broken}) >= 20
    topics.create(settings)
    messages: list[tuple[str, bytes | None, bytes | None, int]] = []
    for number in range(GOOD):
        event_type = EventType(rng.choices((0, 1, 2), (8, 1, 1))[0])
        user = f"user-{rng.randrange(USERS)}"
        key, value = user.encode(), json.dumps(good_event(event_type, user, number)).encode()
        place = partition_for(key, settings.partitions)
        messages.append((settings.input_topics[event_type], key, value, place))
    for one in broken:
        place = one.partition(settings.partitions)
        messages.append((settings.input_topics[one.event_type], one.key, one.value, place))
    rng.shuffle(messages)

    producer = KafkaProducer(**settings.kafka_python(), max_request_size=20_000_000, linger_ms=5)
    for topic, key, value, place in messages:
        producer.send(topic, value, key, partition=place)
    producer.flush(60)
    producer.close()

    checkpoint = tiny_checkpoint()
    worker = start_worker(overrides_of(settings, checkpoint, tmp_path), tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == GOOD + BROKEN, worker)
        samples = worker.metrics()
        assert worker.stop() == 0
    finally:
        worker.kill()

    letters = [
        letter
        for partition in range(settings.partitions)
        for letter in read_records(settings, settings.dead_letters_topic, partition)
    ]
    expected = Counter(str(one.reason) for one in broken)
    assert Counter(_headers(letter)["reason"] for letter in letters) == expected
    for reason, count in expected.items():
        assert samples["interest_dead_letters_total", (reason,)] == count
    assert_values_are_untouched(settings, letters)

    comparison, offline = verify(settings, checkpoint)
    assert offline.events - offline.duplicates == comparison.events == GOOD
    assert comparison.exact


def _headers(letter: Any) -> dict[str, str]:
    return {name: value.decode() for name, value in letter.headers}


def assert_values_are_untouched(settings: Settings, letters: list[Any]) -> None:
    """Every letter holds the bytes that stand at its source, or points to them by their hash."""
    sources = {
        (topic, partition, record.offset): record
        for topic in settings.input_topics
        for partition in range(settings.partitions)
        for record in read_records(settings, topic, partition)
    }
    for letter in letters:
        headers = _headers(letter)
        place = (
            headers["source-topic"],
            int(headers["source-partition"]),
            int(headers["source-offset"]),
        )
        source = sources[place]
        if headers.get("pointer") == "true":
            pointer = json.loads(letter.value)
            assert (pointer["topic"], pointer["partition"], pointer["offset"]) == place
            assert pointer["sha256"] == sha256(source.value).hexdigest()
        else:
            assert letter.value == (source.value or b"")
            assert ("null" in headers) == (source.value is None)
        assert letter.key.decode() == ":".join(map(str, place))
        assert dict(letter.headers).get("source-key") == source.key
