"""CloudEvents through a real worker: in beside plain records, out, refused and sent again."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings import kafka
from kafka import KafkaProducer

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app.events import Reason
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.redrive import Choice, redrive
from stream_app.settings import Settings
from stream_app.verify import verify
from tests.unit.lane_records import FakeRecord, record
from tests.unit.test_cloud_events import BINARY, MODES, as_mode, wrapped
from tests.workers import committed_events, start_worker, wait_until

USERS = 20
EVENTS = 300


def records(settings: Settings) -> list[tuple[FakeRecord, int]]:
    """Events in all three forms, and two that are none; each with its partition."""
    found = []
    for number in range(EVENTS):
        one = record(EventType(number % 3), number, number, f"user-{number % USERS}")
        one = as_mode(one, ("plain", *MODES)[number % 7 % 3])
        found.append((one, partition_for(one.key or b"", settings.partitions)))
    one, place = found[0]
    found.append((one._replace(headers=BINARY[1:]), place))
    # It lacks an id and a user, which are in the headers, and is not in its partition.
    fields = json.loads(record(EventType.CLICK, EVENTS, EVENTS).value or b"")
    del fields["event_id"], fields["user_id"]
    headers, value = wrapped("binary", fields, subject="user-1")
    place = partition_for(b"user-1", settings.partitions)
    lost = FakeRecord("clicks", 0, 0, 0, b"user-1", value, headers)
    found.append((lost, (place + 1) % settings.partitions))
    return found


def send(settings: Settings) -> int:
    topics = dict(zip(("clicks", "searches", "purchases"), settings.input_topics, strict=True))
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
    sent = records(settings)
    for one, place in sent:
        producer.send(
            topics[one.topic], one.value, one.key, headers=list(one.headers), partition=place
        )
    producer.flush(60)
    producer.close()
    return len(sent)


def all_of(settings: Settings, topic: str) -> list[Any]:
    return [
        one
        for partition in range(settings.partitions)
        for one in read_records(settings, topic, partition)
    ]


@pytest.mark.parametrize("mode", MODES)
def test_cloud_events_in_and_out(
    settings: Settings,
    overrides: dict[str, Any],
    checkpoint: Checkpoint,
    tmp_path: Path,
    mode: str,
) -> None:
    count = send(settings)
    worker = start_worker({**overrides, "output_format": f"cloudevents-{mode}"}, tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == count, worker)
        choice = Choice(reason=str(Reason.WRONG_PARTITION))
        assert len(redrive(settings, choice, lambda: int(time.time() * 1000)).sent) == 1
        wait_until(lambda: committed_events(settings) == count + 1, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()

    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    assert comparison.events == EVENTS + 1
    refused = Counter({Reason.CLOUDEVENT_INVALID: 1, Reason.WRONG_PARTITION: 1})
    assert offline.dead_letters == Counter({str(reason): n for reason, n in refused.items()})
    letters = [
        dict(one.headers)["reason"].decode()
        for one in all_of(settings, settings.dead_letters_topic)
        if "source-key" in dict(one.headers)
    ]
    assert Counter(letters) == offline.dead_letters

    found = {}
    for topic in (settings.drift_topic, settings.recommendations_topic):
        for one in all_of(settings, topic):
            message = kafka.KafkaMessage(dict(one.headers), one.key, one.value)
            event = kafka.from_kafka_event(message)
            assert event.get_subject() == one.key.decode()
            assert event.get_source() == f"/interest-stream/{settings.app_id}"
            found[event.get_id()] = event.get_data()
    assert found == {name: json.loads(value) for name, value in offline.outputs.items()}
    assert found
