"""Rows made from a file, as the changelog of an application id that has no rows yet.

The order is the meaning:

1. each partition is marked as begun: from now on no worker starts with its rows;
2. the rows are acknowledged, and tombstones for users whom an interrupted publication left there;
3. nobody else has written in between, and the group has no member;
4. each partition is marked as complete.

What is interrupted before the fourth step is done again from the first, with whatever file; within
the fourth, all rows are there, and the next call writes the marks that are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream_app import topics
from stream_app.admin import asking
from stream_app.errors import BrokerError, TopicError, UsageError
from stream_app.group_offsets import committed, set_offsets
from stream_app.history_rows import MadeRows
from stream_app.lane.history_mark import BEGUN, COMPLETE, MARK_KEY, decode_mark, encode_mark
from stream_app.lane.reading import plain_consumer, stream_records
from stream_app.producing import ACK_TIMEOUT_S, BATCH_BYTES, LINGER_MS
from stream_app.settings import Settings

ABANDON_S = 10.0
FLUSH_ROWS = 4096
"""Rows that are handed to the client before it waits for those before them."""


@dataclass
class Ground:
    """What the changelog holds before the rows are published.

    next_offset    offset that each partition's next record gets
    marks          what each partition's mark says, None without one
    left           keys in each partition that an interrupted publication left there
    has_inputs     whether the input topics have records, which workers apply on top
    """

    next_offset: list[int]
    marks: list[int | None]
    left: list[set[bytes]]
    has_inputs: bool

    @property
    def is_published(self) -> bool:
        """Whether all rows are there, and marks alone are missing."""
        return COMPLETE in self.marks


def look(settings: Settings) -> Ground:
    """What the changelog holds.

    Raises:
        UsageError: the application id has rows already, or had some, or its workers run.
        TopicError: the topics are missing, or not as they have to be.
        BrokerError, RecoveryError: the broker does not do what is asked.
    """
    for finding in topics.check(settings):
        if finding.is_certain:
            raise TopicError(finding.sentence)
    changelog, journal = settings.changelog_topic, settings.journal_topic
    ends = _ends(settings, (changelog, journal, *settings.input_topics))
    in_use = UsageError(
        f"The application id {settings.app_id} has rows already, or had some, and rows from a file "
        "can only be the first; name another with INTEREST_APP_ID."
    )
    if any(ends[journal]):
        raise in_use
    has_inputs = any(any(ends[topic]) for topic in settings.input_topics)
    ground = Ground([], [], [], has_inputs)
    for number, end in enumerate(ends[changelog]):
        next_offset, mark, keys = 0, None, set[bytes]()
        for record in stream_records(settings, changelog, number) if end else ():
            if not keys and mark is None and record.key != MARK_KEY:
                raise in_use
            if record.key == MARK_KEY:
                mark = decode_mark(record.value)
            else:
                keys.add(record.key)
            next_offset = record.offset + 1
        if end and mark is None:
            raise in_use
        ground.next_offset.append(next_offset)
        ground.marks.append(mark)
        ground.left.append(keys)
    if all(mark == COMPLETE for mark in ground.marks):
        raise in_use
    hold_offsets(settings)
    return ground


def hold_offsets(settings: Settings) -> None:
    """Set the group's offsets to where they are, and to the first records where they are nowhere.

    A broker refuses that while the group has members, and no other question that it answers
    everywhere tells of them.

    Raises:
        UsageError: the group has members.
        BrokerError: the broker does not do what is asked.
    """
    at = committed(settings)
    numbers = range(settings.partitions)
    places = [TopicPartition(topic, n) for topic in settings.input_topics for n in numbers]
    with asking(settings):
        consumer = plain_consumer(settings)
        try:
            first = consumer.beginning_offsets([place for place in places if place not in at])
        finally:
            consumer.close()
    set_offsets(settings, {**first, **at})


def publish(
    settings: Settings,
    ground: Ground,
    made: Iterable[MadeRows],
    progress: Callable[[int], None] = lambda rows: None,
) -> int:
    """Publish rows and return how many; every write is acknowledged by all replicas.

    Args:
        ground: see `look`.
        made: the rows, made while those before them are sent.
        progress: told how many rows are acknowledged so far.

    Raises:
        BrokerError: the broker refuses rows, or another has written to the changelog meanwhile.
        UsageError: workers have been started meanwhile.
    """
    with asking(settings):
        producer = RowProducer(settings, ground)
        try:
            # 1
            for number, mark in enumerate(ground.marks):
                if mark is None:
                    producer.send(number, MARK_KEY, _mark(settings, BEGUN))
            producer.flush()
            # 2
            count = 0
            for part in made:
                for start in range(0, len(part.keys), FLUSH_ROWS):
                    producer.flush()
                    progress(count)
                    slots = slice(start, start + FLUSH_ROWS)
                    for number, key, value in zip(
                        part.partition[slots].tolist(),
                        part.keys[slots],
                        part.values[slots],
                        strict=True,
                    ):
                        ground.left[number].discard(key)
                        producer.send(number, key, value)
                        count += 1
            for number, keys in enumerate(ground.left):
                for key in sorted(keys):
                    producer.send(number, key, None)
            producer.flush()
            progress(count)
            # 3
            producer.check_alone()
            hold_offsets(settings)
            # 4
            _complete(settings, ground, producer)
        except BaseException:
            producer.abandon()
            raise
        producer.close()
    return count


def complete(settings: Settings, ground: Ground) -> None:
    """Write the marks that are missing of a publication whose rows are all there.

    Raises:
        BrokerError: the broker refuses them.
    """
    with asking(settings):
        producer = RowProducer(settings, ground)
        try:
            _complete(settings, ground, producer)
        except BaseException:
            producer.abandon()
            raise
        producer.close()


def _complete(settings: Settings, ground: Ground, producer: RowProducer) -> None:
    for number, mark in enumerate(ground.marks):
        if mark != COMPLETE:
            producer.send(number, MARK_KEY, _mark(settings, COMPLETE))
    producer.flush()


class RowProducer:
    """Produces to the changelog.

    Args:
        settings: of the workers to come.
        ground: what the changelog holds.
    """

    def __init__(self, settings: Settings, ground: Ground) -> None:
        self._topic = settings.changelog_topic
        self._due = list(ground.next_offset)
        self._last: dict[int, Any] = {}
        self._failure: BaseException | None = None
        self._producer = KafkaProducer(
            **settings.kafka_python(), acks="all", linger_ms=LINGER_MS, batch_size=BATCH_BYTES
        )

    def send(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Hand a record to the client."""
        future = self._producer.send(self._topic, value, key, partition=partition)
        self._last[partition] = future.add_errback(self._note_failure)
        self._due[partition] += 1

    def flush(self) -> None:
        """Wait for all acknowledgements.

        Raises:
            BrokerError: a record was refused.
        """
        self._producer.flush(ACK_TIMEOUT_S)
        if self._failure is not None:
            raise BrokerError(
                f"The topic {self._topic} refuses rows ({type(self._failure).__name__}); look at "
                "the broker's log, and run the command again, which begins over."
            )

    def check_alone(self) -> None:
        """Refuse a changelog to which another has written since `look`.

        Raises:
            BrokerError: it was so.
        """
        for number, future in self._last.items():
            if future.get(ACK_TIMEOUT_S).offset != self._due[number] - 1:
                raise BrokerError(
                    f"Another has written to {self._topic} partition {number} meanwhile; end all "
                    "workers of the group and run the command again, which begins over."
                )

    def abandon(self) -> None:
        """Close; what is not acknowledged by then makes no difference."""
        with suppress(KafkaError):
            self._producer.close(ABANDON_S)

    def _note_failure(self, error: BaseException) -> None:
        self._failure = self._failure or error

    def close(self) -> None:
        """Close; everything is acknowledged."""
        self._producer.close(ACK_TIMEOUT_S)


def _mark(settings: Settings, state: int) -> bytes:
    return encode_mark(settings.partitions, state, int(time.time() * 1000))


def _ends(settings: Settings, names: tuple[str, ...]) -> dict[str, list[int]]:
    """Per topic, an offset for each partition that is 0 when it never had a record, else above."""
    with asking(settings):
        consumer = plain_consumer(settings)
        try:
            places = [TopicPartition(name, n) for name in names for n in range(settings.partitions)]
            found = consumer.end_offsets(places)
        finally:
            consumer.close()
    return {
        name: [found[TopicPartition(name, n)] for n in range(settings.partitions)] for name in names
    }
