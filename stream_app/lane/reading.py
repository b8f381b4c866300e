"""Reads one partition of a topic from its beginning to its end, with a plain consumer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition

from stream_app.errors import RecoveryError

if TYPE_CHECKING:
    from stream_app.settings import Settings

POLL_MS = 200
READ_TIMEOUT_S = 10.0
MAX_POLL_RECORDS = 10_000


def read_records(settings: Settings, topic: str, partition: int) -> list[Any]:
    """All records of a partition, oldest first. Joins no consumer group.

    The end is the highwater that came with the last fetch: asked for the end offset, the embedded
    broker leaves out the last batch but for its first record.

    Raises:
        RecoveryError: nothing came for `READ_TIMEOUT_S` seconds before the end was reached.
    """
    consumer = KafkaConsumer(
        **settings.kafka_python(),
        group_id=None,
        enable_auto_commit=False,
        max_poll_records=MAX_POLL_RECORDS,
        fetch_max_wait_ms=POLL_MS // 2,
    )
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        records: list[Any] = []
        deadline = time.monotonic() + READ_TIMEOUT_S
        while True:
            found = consumer.poll(timeout_ms=POLL_MS).get(place, [])
            records += found
            end = consumer.highwater(place)
            if end is not None and consumer.position(place) >= end:
                return records
            if found:
                deadline = time.monotonic() + READ_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise RecoveryError(
                    f"Partition {partition} of topic {topic} cannot be read to its end; check the "
                    "brokers and try again."
                )
    finally:
        consumer.close()
