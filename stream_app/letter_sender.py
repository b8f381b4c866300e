"""Sends letters to their input topics, with a mark before and after; see redrive.py."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream_app.dead_letters import place_of
from stream_app.errors import BrokerError, DeadLetterError
from stream_app.events import Source
from stream_app.lane.reading import bounds, stream_records
from stream_app.letter_records import Ready
from stream_app.letter_topic import LetterTopic, RedriveMark, read_mark
from stream_app.settings import Settings

LEASE_MS = 120_000
"""How long a begun mark counts as under way; far above what clocks of two machines differ by."""
DELIVERY_TIMEOUT_MS = 20_000
REQUEST_TIMEOUT_MS = 10_000
HEADROOM_BYTES = 65_536  # of a record beside its value
REDRIVEN_FROM = "redriven-from"


def won(places: Iterable[Source], run: str, marks: Iterable[RedriveMark]) -> bool:
    """Whether our run has the first mark of each place among those written since the last look."""
    first: dict[Source, str] = {}
    for mark in marks:
        first.setdefault(mark.source, mark.run)
    return all(first.get(place) == run for place in places)


@contextmanager
def producer(settings: Settings) -> Iterator[Any]:
    """A producer that keeps the order of what is sent.

    Raises:
        BrokerError: a write was not acknowledged.
    """
    try:
        client = KafkaProducer(
            **settings.kafka_python(),
            acks="all",
            delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            max_block_ms=DELIVERY_TIMEOUT_MS,
            max_in_flight_requests_per_connection=1,  # offsets in the order of sending
            max_request_size=settings.max_event_bytes + HEADROOM_BYTES,
        )
        try:
            yield client
        finally:
            client.close(0)
    except KafkaError as error:
        raise BrokerError(
            f"Not all letters were acknowledged ({type(error).__name__}); look at the broker, and "
            f"try again in {LEASE_MS // 1000} s: what arrived is found and not sent again."
        ) from error


class LetterSender:
    """Sends chunks of letters under one run.

    Args:
        held: the dead-letter topic as it was read before.
        producer: see `producer`.
        now_ms: the clock, epoch milliseconds.
        at_step: told "before <step>" and "after <step>" of begun, sent and done.

    Raises:
        DeadLetterError: another command has begun with the same letters, or time ran out.
        KafkaError: a write was not acknowledged.
    """

    def __init__(
        self,
        settings: Settings,
        held: LetterTopic,
        producer: Any,
        now_ms: Callable[[], int],
        at_step: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._ends = list(held.ends)
        self._producer = producer
        self._now_ms = now_ms
        self._at_step = at_step
        self._run = secrets.token_hex(8)

    def mark_found(self, found: dict[Source, Source], unfinished: Sequence[Ready]) -> None:
        """Mark letters as done that an earlier command has sent."""
        now_ms = self._now_ms()
        self._write(
            RedriveMark(
                source=one.source,
                run=self._run,
                begun_ms=now_ms,
                partition=one.partition,
                after_offset=found[one.source].offset,
                sent=found[one.source],
            )
            for one in unfinished
            if one.source in found
        )

    def send(self, chunk: Sequence[Ready]) -> list[tuple[Source, Source]]:
        """Mark, send, mark; and where the records stand."""
        ends = {where: bounds(self._settings, *where)[1] for where in {o.where for o in chunk}}
        begun_ms = self._now_ms()
        marks = [
            RedriveMark(
                source=one.source,
                run=self._run,
                begun_ms=begun_ms,
                partition=one.partition,
                after_offset=ends[one.where],
            )
            for one in chunk
        ]
        self._at_step("before begun")
        self._write(marks)
        self._at_step("after begun")
        self._check_first(marks)
        self._at_step("before sent")
        now_ms = self._now_ms()
        if now_ms - begun_ms > LEASE_MS // 4:
            raise DeadLetterError(
                f"The broker is too slow to send letters safely; try again in {LEASE_MS // 1000} s."
            )
        futures = [
            self._producer.send(
                one.source.topic,
                one.value,
                one.key,
                headers=[*one.headers, (REDRIVEN_FROM, place_of(one.source).encode())],
                partition=one.partition,
                timestamp_ms=now_ms,
            )
            for one in chunk
        ]
        self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
        places = [
            Source(one.source.topic, one.partition, future.get(0).offset)
            for one, future in zip(chunk, futures, strict=True)
        ]
        self._at_step("after sent")
        self._write(
            msgspec.structs.replace(mark, sent=place)
            for mark, place in zip(marks, places, strict=True)
        )
        self._at_step("after done")
        return [(one.source, place) for one, place in zip(chunk, places, strict=True)]

    def _write(self, marks: Iterable[RedriveMark]) -> None:
        futures = [
            self._producer.send(
                self._settings.dead_letters_topic,
                msgspec.json.encode(mark),
                mark.key(),
                headers=mark.headers(),
                partition=mark.source.partition % len(self._ends),
            )
            for mark in marks
        ]
        self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
        for future in futures:
            future.get(0)

    def _check_first(self, marks: Sequence[RedriveMark]) -> None:
        """Go on only where no other command has begun the same letters before."""
        seen: list[RedriveMark] = []
        topic = self._settings.dead_letters_topic
        for partition in sorted({mark.source.partition % len(self._ends) for mark in marks}):
            for record in stream_records(self._settings, topic, partition, self._ends[partition]):
                self._ends[partition] = record.offset + 1
                mark = read_mark(record)
                if mark is not None:
                    seen.append(mark)
        if not won([mark.source for mark in marks], self._run, seen):
            raise DeadLetterError(
                "Another redrive has begun with the same letters; try again in "
                f"{LEASE_MS // 1000} s."
            )
