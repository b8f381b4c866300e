"""Sends events to the input topics with kafka-python, and remembers when each one left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream_app.errors import BrokerError
from stream_app.log_records import LogRecord
from stream_app.partitioner import partition_for
from stream_app.settings import Settings

LINGER_MS = 5
Headers = Sequence[tuple[str, bytes]]
BATCH_BYTES = 256 * 1024
ACK_TIMEOUT_S = 60.0
FLUSH_EVERY = 50_000
"""Events after which the client waits for acknowledgements: its buffer has no bound of its own."""


class EventProducer:
    """Produces events keyed by user; every write is acknowledged by all replicas.

    sent_ms   per (topic, partition), the time in ms at which each offset was handed over, in
              offset order (of topics that only this producer writes to)
    rows      the same for the log row that stands at the offset
    failure   the first error that the broker gave back, or None
    """

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.input_topics
        self._partitions = settings.partitions
        self._places: dict[bytes, int] = {}
        self.sent_ms: dict[tuple[str, int], list[float]] = {}
        self.rows: dict[tuple[str, int], list[int]] = {}
        self.sent = 0
        self.failure: BaseException | None = None
        self._producer = KafkaProducer(
            **settings.kafka_python(),
            acks="all",
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_in_flight_requests_per_connection=1,  # offsets in the order of sending
        )

    def send(self, record: LogRecord, headers: Headers = ()) -> None:
        """Hands one event to the client; BrokerError once the broker has refused one."""
        if self.failure is not None:
            raise BrokerError(
                f"The broker refuses events ({type(self.failure).__name__}: {self.failure}); "
                "look at its log."
            )
        place = self._places.get(record.key)
        if place is None:
            place = self._places[record.key] = partition_for(record.key, self._partitions)
        topic = self._topics[record.event_type]
        self.sent_ms.setdefault((topic, place), []).append(time.time() * 1000)
        self.rows.setdefault((topic, place), []).append(record.row)
        self._producer.send(
            topic, record.value, record.key, headers=list(headers), partition=place
        ).add_errback(self._note_failure)
        self.sent += 1
        if self.sent % FLUSH_EVERY == 0:
            self.wait()

    def wait(self) -> None:
        """Waits until all is acknowledged; BrokerError when something was not."""
        try:
            self._producer.flush(ACK_TIMEOUT_S)
        except KafkaError as error:
            self.failure = self.failure or error
        if self.failure is not None:
            raise self._not_acknowledged()

    def _not_acknowledged(self) -> BrokerError:
        return BrokerError(
            f"Not all events were acknowledged ({self.failure}); look at the broker's log."
        )

    def _note_failure(self, error: BaseException) -> None:
        self.failure = self.failure or error

    def abandon(self) -> None:
        """Closes without waiting for what is not acknowledged."""
        with suppress(KafkaError):
            self._producer.close(0)

    def close(self) -> None:
        """Waits for all acknowledgements and closes; BrokerError when one did not come."""
        try:
            self._producer.flush(ACK_TIMEOUT_S)
            self._producer.close(ACK_TIMEOUT_S)
        except KafkaError as error:
            self.failure = self.failure or error
        if self.failure is not None:
            raise self._not_acknowledged()


def produce(
    producer: EventProducer,
    records: Iterable[LogRecord],
    rate: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], Any] = lambda count: None,
) -> int:
    """Sends records at ``rate`` events a second (None: as fast as it goes) until ``stop``."""
    started = time.monotonic()
    count = 0
    for record in records:
        if stop():
            break
        producer.send(record)
        count += 1
        if count % 50 == 0:
            progress(count)
            if rate is not None:
                time.sleep(max(0.0, started + count / rate - time.monotonic()))
    progress(count)
    return count
