"""Reads partitions of a topic to their ends, within the worker's event loop. Joins no group."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from stream_app.errors import RecoveryError

POLL_MS = 20
READ_TIMEOUT_S = 10.0


class TopicReader:
    """A consumer of one topic that reads partitions from given offsets to their ends."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    async def beginnings(self, partitions: Iterable[int]) -> dict[int, int]:
        """Offset of the first record of each partition."""
        found = await self._consumer.beginning_offsets(self._places(partitions))
        return {place.partition: offset for place, offset in found.items()}

    async def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """At most the offset of each partition's next record, and more than that of its last batch.

        The embedded broker leaves out the last batch but for its first record.
        """
        found = await self._consumer.end_offsets(self._places(partitions))
        return {place.partition: offset for place, offset in found.items()}

    async def read(self, begin: Mapping[int, int]) -> tuple[dict[int, list[Any]], dict[int, int]]:
        """Per partition all records from an offset on, and the offset that the next one will get.

        The end is what the fetches say, see transport.py.

        Raises:
            RecoveryError: nothing came for `READ_TIMEOUT_S` seconds before the end was reached.
        """
        consumer = self._consumer
        places = {number: TopicPartition(self._topic, number) for number in sorted(begin)}
        consumer.assign(list(places.values()))
        for number, place in places.items():
            consumer.seek(place, begin[number])
        records: dict[int, list[Any]] = {number: [] for number in begin}
        deadline = time.monotonic() + READ_TIMEOUT_S
        while True:
            found = await consumer.getmany(timeout_ms=POLL_MS)
            for place, some in found.items():
                records[place.partition] += some
            behind = [n for n, place in places.items() if not await self._is_at_end(place)]
            if not behind:
                return records, {n: consumer.highwater(place) for n, place in places.items()}
            if found:
                deadline = time.monotonic() + READ_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise RecoveryError(
                    f"Partition {behind[0]} of topic {self._topic} cannot be read to its end; "
                    "check the brokers, and start the worker again."
                )

    async def _is_at_end(self, place: TopicPartition) -> bool:
        end = self._consumer.highwater(place)
        return end is not None and await self._consumer.position(place) >= end

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in partitions]


@asynccontextmanager
async def reading(app: Any, topic: str) -> AsyncIterator[TopicReader]:
    """A reader of a topic, by the brokers and credentials of the Faust app.

    Raises:
        RecoveryError: the brokers do not give the topic.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=server_list(app.transport.url, app.transport.default_port),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # retention may delete the first records meanwhile
        fetch_max_wait_ms=POLL_MS,
        **credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context),
    )
    try:
        await consumer.start()
        try:
            yield TopicReader(consumer, topic)
        finally:
            await consumer.stop()
    except KafkaError as error:
        raise RecoveryError(
            f"Topic {topic} cannot be read ({type(error).__name__}); check it and the brokers, and "
            "start the worker again."
        ) from error
