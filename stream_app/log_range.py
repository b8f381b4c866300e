"""Which offsets of the input topics lie between two times, by the Kafka time of their records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from stream_app.lane.reading import plain_consumer, to_the_end
from stream_app.settings import Settings


@dataclass(frozen=True)
class Span:
    """Offsets of one topic partition.

    first   of its first record, or of the next one where there is none
    start   of the first record in the span
    stop    after the last record in the span; equal to `start` where there is none
    """

    first: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def find_spans(settings: Settings, from_ms: int, to_ms: int | None) -> dict[TopicPartition, Span]:
    """Per partition of the input topics, what lies from one time on and before another.

    From the first record at or after `from_ms`, to the last before the first one at or after
    `to_ms`, or to the present end without it. Times of records need not rise.

    Raises:
        RecoveryError: a partition cannot be read.
    """
    consumer = plain_consumer(settings)
    try:
        return {
            place: _span(consumer, place, from_ms, to_ms)
            for topic in settings.input_topics
            for place in (TopicPartition(topic, n) for n in range(settings.partitions))
        }
    finally:
        consumer.close()


def _span(consumer: Any, place: TopicPartition, from_ms: int, to_ms: int | None) -> Span:
    first = consumer.beginning_offsets([place])[place]
    if first == consumer.end_offsets([place])[place]:
        return Span(first, first, first)
    limit = None if to_ms is None else _first_at(consumer, place, first, to_ms)
    stop = _after_last(consumer, place, first, limit)
    start = _first_at(consumer, place, first, from_ms)
    return Span(first, stop if start is None else min(start, stop), stop)


def _first_at(consumer: Any, place: TopicPartition, first: int, time_ms: int) -> int | None:
    """Offset of the first record at or after a time, None when there is none.

    No record before the broker's answer is as late. The embedded broker answers 0 whatever the
    time, so the records from there on decide.
    """
    answer = consumer.offsets_for_times({place: time_ms})[place]
    if answer is None:
        return None
    for record in _records(consumer, place, max(answer.offset, first)):
        if record.timestamp >= time_ms:
            return int(record.offset)
    return None


def _after_last(consumer: Any, place: TopicPartition, first: int, limit: int | None) -> int:
    """The offset after the last record before a limit, or before the end.

    It may be less than the limit: markers of transactions, and what compaction has removed, have
    offsets without a record, and none is ever applied.
    """
    end = consumer.end_offsets([place])[place] if limit is None else limit
    look = 1
    while True:
        since = max(first, end - look)
        last = None
        for record in _records(consumer, place, since):
            if limit is not None and record.offset >= limit:
                break
            last = int(record.offset)
        if last is not None:
            return last + 1
        if since == first:
            return int(first)
        look *= 8


def _records(consumer: Any, place: TopicPartition, since: int) -> Iterator[Any]:
    consumer.assign([place])
    consumer.seek(place, since)
    return to_the_end(consumer, place)
