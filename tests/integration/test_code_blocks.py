"""The producers and consumers of deploy/MESSAGES.md, and commands, run against a broker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaProducer

from model.events import EventType
from stream_app import topics
from stream_app.events import Click, decode_event
from stream_app.lane.reading import read_records
from stream_app.settings import PREFIX, Settings
from tests.code_blocks import block, node_folder, program, with_names
from tests.unit.test_readme import example

HERE = Path(__file__).parents[2]
LANGUAGES = ("python", "js")
QUIET = {"KAFKAJS_NO_PARTITIONER_WARNING": "1", "KAFKAJS_LOG_LEVEL": "nothing"}


@contextmanager
def running(language: str, text: str) -> Iterator[subprocess.Popen[str]]:
    """The program of a block."""
    if language == "python":
        command, folder = [sys.executable, "-u", "-c", text], HERE
    else:
        node = program("node", "nodejs")
        command, folder = [node, "--input-type=module", "--eval", text], node_folder()
    environment = {**os.environ, **QUIET}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_producer_sends_is_an_event_in_its_partition(
    settings: Settings, language: str
) -> None:
    topics.create(settings)
    names = {
        "127.0.0.1:9092": settings.kafka_bootstrap,
        "interest.clicks.v1": settings.clicks_topic,
    }
    text = with_names(block(f"deploy/MESSAGES.md / Produce / {language} 1"), names)

    with running(language, text) as process:
        assert process.wait(60) == 0

    (record,) = [
        record
        for partition in range(settings.partitions)
        for record in read_records(settings, settings.clicks_topic, partition)
    ]
    event = decode_event(
        EventType.CLICK,
        record.key,
        record.value,
        record.timestamp,
        partition=record.partition,
        partitions=settings.partitions,
        future_allowance_ms=settings.future_allowance_ms,
        max_value_bytes=settings.max_event_bytes,
        headers=record.headers,
    )
    assert isinstance(event, Click)
    assert (event.user_id, event.item_id) == ("u-17", "kettle-3")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_consumer_shows_recommendations_and_passes_over_erased_users(
    settings: Settings, language: str
) -> None:
    topics.create(settings)
    names = {
        "127.0.0.1:9092": settings.kafka_bootstrap,
        "interest.recommendations.v1": settings.recommendations_topic,
    }
    if language == "python":
        names['group_id="my-shop", '] = ""  # joining a group takes its time
    else:
        names["my-shop"] = f"{settings.app_id}-{language}"
    text = with_names(block(f"deploy/MESSAGES.md / Consume / {language} 1"), names)
    message = json.loads(example("interest.recommendations.v1"))
    producer = KafkaProducer(**settings.kafka_python(), acks="all")
    producer.send(settings.recommendations_topic, None, b"erased", partition=0)
    producer.send(settings.recommendations_topic, json.dumps(message).encode(), b"u", partition=0)
    producer.flush()
    producer.close()

    with running(language, text) as process:
        assert process.stdout is not None
        line = process.stdout.readline()

    assert line == "u-17 boots-8 3.5 often goes with socks-2\n"


def test_the_topics_of_your_own_kafka(settings: Settings) -> None:
    """All lines of the block but the one that starts a worker."""
    text = with_names(
        block("deploy/README.md / With your own Kafka / sh 1"),
        {
            "kafka-1:9092,kafka-2:9092": settings.kafka_bootstrap,
            "INTEREST_REPLICATION=3 INTEREST_MIN_INSYNC=2 INTEREST_PARTITIONS=24": (
                f"INTEREST_PARTITIONS={settings.partitions}"
            ),
            ".venv/bin/interest-stream": f"{sys.executable} -m stream_app.cli",
        },
    )
    script = "\n".join(line for line in text.splitlines() if " worker " not in line)
    own = {
        f"{PREFIX}{name.upper()}": str(getattr(settings, name))
        for name in Settings.model_fields
        if name == "app_id" or name.endswith("_topic")
    }

    subprocess.run(["bash", "-euc", script], env={**os.environ, **own}, check=True, timeout=120)

    assert [one.sentence for one in topics.check(settings) if one.is_certain] == []
