"""The consumer in deploy/MESSAGES.md that drops repeats, run as a program against a broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream_app import topics
from stream_app.settings import Settings

MESSAGES = (Path(__file__).parents[2] / "deploy" / "MESSAGES.md").read_text("utf-8")
REMEMBERED = 4000


@pytest.fixture
def consumer(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """The program, with the broker and the topic of this test."""
    _, _, section = MESSAGES.partition("## Delivery")
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    program = block[1]
    for shown, own in {
        "127.0.0.1:9092": settings.kafka_bootstrap,
        "interest.drift.v1": settings.drift_topic,
        'group_id="my-shop"': 'auto_offset_reset="earliest"',  # joining a group takes its time
    }.items():
        assert shown in program
        program = program.replace(shown, own)
    topics.create(settings)
    command = [sys.executable, "-u", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_repeats_are_dropped_and_memory_is_bounded(
    settings: Settings, consumer: subprocess.Popen[str]
) -> None:
    others = [f"other-{i}" for i in range(REMEMBERED - 1)]
    sent = ["a", "b", "a", "b", "a", *others, "b", "one-too-many", "a", "last"]
    producer = KafkaProducer(**settings.kafka_python(), acks="all")
    for name in sent:
        message = {"id": name, "user_id": name, "from": [], "to": []}
        producer.send(settings.drift_topic, json.dumps(message).encode(), partition=0)
    producer.flush()
    producer.close()

    assert consumer.stdout is not None
    printed = []
    while not printed or printed[-1] != "last":
        printed.append(consumer.stdout.readline().split(maxsplit=1)[0])

    # "b" is remembered over all the others, "a" just not any more.
    assert printed == ["a", "b", *others, "one-too-many", "a", "last"]
