"""Record batches to one partition of a topic, and their acknowledgement.

aiokafka's `create_batch`/`send_batch` take 2 us a record where `send` takes 20: there is one future
a batch instead of one a record.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from aiokafka.errors import KafkaError

from stream_app.errors import WorkerError

Header = tuple[str, bytes]
Record = tuple[bytes | None, bytes | None, list[Header]]
"""Key, value and headers."""

NO_HEADERS: list[Header] = []


@dataclass(frozen=True)
class Receipt:
    """Where acknowledged records stand: offsets of the first and the last, -1 for no records."""

    first: int = -1
    last: int = -1


class Sends(Protocol):
    """What the lane needs of a producer; `Sender` is one, a test may bring another."""

    async def send(self, topic: str, partition: int, records: Iterable[Record]) -> Receipt:
        """Send records to a partition and wait until all are acknowledged."""
        ...


class Sender:
    """Sends through an aiokafka producer, whose batch size cuts the records."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    async def send(self, topic: str, partition: int, records: Iterable[Record]) -> Receipt:
        """Send records to a partition and wait until all are acknowledged, in the given order.

        Raises:
            WorkerError: the topic refuses them, or no answer came in the producer's time.
        """
        deliveries = []
        try:
            for batch in self._batches(records):
                count = batch.record_count()
                future = await self._producer.send_batch(batch, topic, partition=partition)
                deliveries.append((future, count))
        except KafkaError as error:
            await asyncio.gather(*[future for future, _ in deliveries], return_exceptions=True)
            raise refused(topic, error) from error
        if not deliveries:
            return Receipt()
        results: list[Any] = await asyncio.gather(
            *[future for future, _ in deliveries], return_exceptions=True
        )
        for result in results:
            if isinstance(result, KafkaError):
                raise refused(topic, result) from result
            if isinstance(result, BaseException):
                raise result
        return Receipt(results[0].offset, results[-1].offset + deliveries[-1][1] - 1)

    def _batches(self, records: Iterable[Record]) -> Iterable[Any]:
        now_ms = int(time.time() * 1000)
        builder = self._producer.create_batch()
        for key, value, headers in records:
            if builder.append(timestamp=now_ms, key=key, value=value, headers=headers) is None:
                builder.close()
                yield builder
                builder = self._producer.create_batch()
                builder.append(timestamp=now_ms, key=key, value=value, headers=headers)
        builder.close()
        if builder.record_count():
            yield builder


def refused(topic: str, error: KafkaError) -> WorkerError:
    """What ends the worker when a topic does not take what is sent."""
    return WorkerError(
        f"Topic {topic} refuses writes ({type(error).__name__}); nothing of the batch is "
        "committed, so repair the topic or the brokers and start the worker again."
    )
