"""Reads one partition of a topic to its end, with a plain consumer that joins no group."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream_app.errors import RecoveryError

if TYPE_CHECKING:
    from stream_app.settings import Settings

POLL_MS = 200
READ_TIMEOUT_S = 10.0
MAX_POLL_RECORDS = 10_000


def read_records(settings: Settings, topic: str, partition: int) -> list[Any]:
    """All records of a partition, oldest first; see `stream_records`."""
    return list(stream_records(settings, topic, partition))


def stream_records(
    settings: Settings, topic: str, partition: int, start: int = 0
) -> Generator[Any, None, None]:
    """The records of a partition from an offset on, or from the first that is still there.

    Raises:
        RecoveryError: nothing came for `READ_TIMEOUT_S` seconds before the end was reached, or the
            broker refuses to be read.
    """
    with _consumer(settings, topic, partition) as (consumer, place):
        first, end = _bounds(consumer, place)
        if first == end:  # empty; a fetch would wait for what may come
            return
        # Before the first record a consumer would begin at the end.
        consumer.seek(place, max(start, first))
        yield from to_the_end(consumer, place)


def to_the_end(consumer: Any, place: TopicPartition) -> Iterator[Any]:
    """The records of a partition from the position of its consumer on.

    The end is the highwater that came with the last fetch: asked for the end offset, the embedded
    broker leaves out the last batch but for its first record.

    Raises:
        RecoveryError: nothing came for `READ_TIMEOUT_S` seconds before the end was reached.
    """
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        found = consumer.poll(timeout_ms=POLL_MS).get(place, [])
        yield from found
        end = consumer.highwater(place)
        if end is not None and consumer.position(place) >= end:
            return
        if found:
            deadline = time.monotonic() + READ_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise _unreadable(place.topic, place.partition, "no answer")


def bounds(settings: Settings, topic: str, partition: int) -> tuple[int, int]:
    """The first offset of a partition, and one that is not beyond its end.

    It is the end but on the embedded broker, which stops after the first record of the last batch.
    """
    with _consumer(settings, topic, partition) as (consumer, place):
        return _bounds(consumer, place)


def offset_at(settings: Settings, topic: str, partition: int, time_ms: int) -> int | None:
    """An offset before which no record is as late as `time_ms`; None when none is.

    It is the first such record's but on the embedded broker, which always answers 0.
    """
    with _consumer(settings, topic, partition) as (consumer, place):
        found = consumer.offsets_for_times({place: time_ms})[place]
        return None if found is None else int(found.offset)


def _bounds(consumer: Any, place: TopicPartition) -> tuple[int, int]:
    return consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]


def plain_consumer(settings: Settings, **more: Any) -> KafkaConsumer:
    """A consumer of no group, for reading to an end; ``more`` are options of kafka-python."""
    return KafkaConsumer(
        **settings.kafka_python(),
        group_id=None,
        enable_auto_commit=False,
        max_poll_records=MAX_POLL_RECORDS,
        fetch_max_wait_ms=POLL_MS // 2,
        **more,
    )


@contextmanager
def _consumer(settings: Settings, topic: str, partition: int) -> Iterator[tuple[Any, Any]]:
    try:
        consumer = plain_consumer(settings)
        try:
            place = TopicPartition(topic, partition)
            consumer.assign([place])
            yield consumer, place
        finally:
            consumer.close()
    except KafkaError as error:
        raise _unreadable(topic, partition, type(error).__name__) from error


def _unreadable(topic: str, partition: int, cause: str) -> RecoveryError:
    return RecoveryError(
        f"Partition {partition} of topic {topic} cannot be read to its end ({cause}); check the "
        "brokers and try again."
    )
