"""Mapped records to their topics: no request leaves when the partitions may be another worker's.

What of kafka-python is called or replaced beside its documented functions:

    KafkaProducer._sender._create_produce_requests    the last place before a request is written to
        its connection: the producer drains its batches first and looks at their age afterwards, so
        that a process that was stopped for minutes would send what it had waiting
    KafkaProducer._sender._failed_produce             ends the batches that must not leave
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, RetriableError

from stream_app.log_tail import Where
from stream_app.settings import Settings

HEADROOM_BYTES = 65_536
"""Of a record beside its value."""


class Lapsed(KafkaError):  # type: ignore[misc]
    """The coordinator may have given the partitions to another worker."""


class Unsure(KafkaError):  # type: ignore[misc]
    """A batch was broken off: what of it stands on its topics is not known."""


@dataclass(frozen=True)
class Out:
    """A record to be sent."""

    where: Where
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int | None


class Sending:
    """The producer of the step.

    Args:
        is_ours: whether the partitions of the batch are still ours; asked before each request, in
            the producer's thread.
        at_step: told "before request" then; for tests.
    """

    def __init__(
        self, settings: Settings, is_ours: Callable[[], bool], at_step: Callable[[str], None]
    ) -> None:
        session_ms = int(settings.session_timeout_s * 1000)
        self._is_ours = is_ours
        self._at_step = at_step
        self._producer = KafkaProducer(
            **settings.kafka_python(),
            acks="all",
            max_in_flight_requests_per_connection=1,  # offsets in the order of sending
            delivery_timeout_ms=session_ms,
            request_timeout_ms=session_ms,
            max_block_ms=session_ms,
            max_request_size=settings.max_event_bytes + HEADROOM_BYTES,
        )
        self._sender = self._producer._sender
        self._create = self._sender._create_produce_requests
        self._sender._create_produce_requests = self._requests

    def send(self, out: Sequence[Out], timeout_s: float) -> dict[Where, int]:
        """Send a batch, and wait for its acknowledgements; the next offset of each partition.

        Raises:
            Unsure: it was broken off, by the lease or by the brokers.
            KafkaError: a topic refuses it.
        """
        try:
            futures = [
                self._producer.send(
                    one.where[0],
                    one.value,
                    one.key,
                    headers=one.headers,
                    partition=one.where[1],
                    timestamp_ms=one.timestamp_ms,
                )
                for one in out
            ]
            self._producer.flush(timeout_s)
            ends: dict[Where, int] = {}
            for one, future in zip(out, futures, strict=True):
                ends[one.where] = max(ends.get(one.where, 0), future.get(0).offset + 1)
            return ends
        except (RetriableError, Lapsed) as error:
            raise Unsure(f"a batch was broken off ({type(error).__name__})") from error

    def close(self) -> None:
        """End at once: what was not handed to the network is dropped."""
        self._producer.close(0)

    def _requests(self, collated: Mapping[Any, Sequence[Any]]) -> Any:
        if any(collated.values()):
            self._at_step("before request")
            if not self._is_ours():
                for node, batches in collated.items():
                    self._sender._failed_produce(batches, node, Lapsed("too late"))
                return {}
        return self._create(collated)
