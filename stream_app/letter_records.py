"""The record that a dead letter gives when it is sent again, and why it cannot be sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec

from model.events import EventType
from stream_app.dead_letters import Headers, Letter, user_in
from stream_app.errors import DeadLetterError, InvalidEvent
from stream_app.events import Source, decode_event
from stream_app.lane.reading import stream_records
from stream_app.partitioner import partition_for
from stream_app.settings import Settings

CHUNK_LETTERS = 500
CHUNK_BYTES = 8 * 1024 * 1024
"""What is marked, sent and marked together; it has to go out within the delivery timeout."""

Where = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True)
class Ready:
    """A letter that can be sent: the record, and the partition that its key belongs to.

    headers are those that make it a CloudEvent.
    """

    source: Source
    partition: int
    key: bytes
    value: bytes
    headers: Headers = field(default_factory=list)

    @property
    def where(self) -> Where:
        """The input partition."""
        return self.source.topic, self.partition


def in_order(letters: Iterable[Letter], input_topics: Sequence[str]) -> list[Letter]:
    """Letters by source topic, partition and offset; those of unknown topics last."""
    rank = {topic: number for number, topic in enumerate(input_topics)}

    def key(letter: Letter) -> tuple[int, str, int, int]:
        topic, partition, offset = msgspec.structs.astuple(letter.source)
        return rank.get(topic, len(rank)), topic, partition, offset

    return sorted(letters, key=key)


def prepare(letter: Letter, value: bytes | None, settings: Settings, now_ms: int) -> Ready:
    """The record that a letter gives, checked as the worker is going to check it.

    Its key is the user id in the value, whatever the key was that it came with.

    Args:
        value: the letter's value, or the one that its pointer leads to.
        now_ms: what the record's Kafka timestamp is going to be.

    Raises:
        DeadLetterError: the worker would refuse it again; one sentence without the user.
    """
    event_type = _event_type(letter, settings)
    user = None if value is None else user_in(value, letter.attributes)
    key = (user or "unknown").encode()
    partition = partition_for(key, settings.partitions)
    try:
        decode_event(
            event_type,
            key,
            value,
            now_ms,
            partition=partition,
            partitions=settings.partitions,
            future_allowance_ms=settings.future_allowance_ms,
            max_value_bytes=settings.max_event_bytes,
            headers=letter.attributes,
        )
    except InvalidEvent as error:
        raise DeadLetterError(f"It would be refused again ({error.reason}): {error}") from None
    assert value is not None  # or else it is refused
    return Ready(letter.source, partition, key, value, letter.attributes)


def follow(settings: Settings, letter: Letter) -> bytes | None:
    """The value of a letter, from its source where a pointer stands for it.

    Raises:
        DeadLetterError: the source is gone, or another record is there.
        RecoveryError: it cannot be read.
    """
    if letter.pointer is None:
        return letter.value
    if letter.source.topic not in settings.adapters:
        _event_type(letter, settings)
    record = source_record(settings, letter.source)
    if record is None or record.value is None:
        raise DeadLetterError("Its value was too long to be kept, and its source is gone.")
    if sha256(record.value).hexdigest() != letter.pointer.sha256:
        raise DeadLetterError(
            "Its value was too long to be kept, and another record is at its source by now."
        )
    value: bytes = record.value
    return value


def _event_type(letter: Letter, settings: Settings) -> EventType:
    if letter.source.topic not in settings.input_topics:
        raise DeadLetterError(
            "Its topic is none of the input topics; see the settings, or send a record of a mixed "
            "topic there again."
        )
    return EventType(settings.input_topics.index(letter.source.topic))


def source_record(settings: Settings, source: Source) -> Any | None:
    """The record at a place, None when it is gone."""
    records = stream_records(settings, source.topic, source.partition, source.offset)
    record = next(records, None)
    records.close()
    return record if record is not None and record.offset == source.offset else None


def chunks(ready: Iterable[Ready]) -> Iterator[list[Ready]]:
    """Letters in their order, cut into chunks of a bounded size."""
    chunk: list[Ready] = []
    size_bytes = 0
    for one in ready:
        if len(chunk) == CHUNK_LETTERS or (chunk and size_bytes + len(one.value) > CHUNK_BYTES):
            yield chunk
            chunk, size_bytes = [], 0
        chunk.append(one)
        size_bytes += len(one.value)
    if chunk:
        yield chunk
