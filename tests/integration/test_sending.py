"""What the lane's producer has on its way to a broker at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.protocol.produce import ProduceRequest

from stream_app import topics
from stream_app.lane.sender import NO_HEADERS, Sender
from stream_app.lane.transport import send_partitions_side_by_side
from stream_app.settings import Settings

WAIT_S = 20.0
"""Bound of every wait; no verdict depends on it."""


class HeldRequest:
    """Holds the first produce request of a client until it is released."""

    def __init__(self, client: Any) -> None:
        self.release, self.reached = asyncio.Event(), asyncio.Event()
        self._send, self._is_first = client.send, True
        client.send = self.send

    async def send(self, node_id: int, request: Any, **more: Any) -> Any:
        """As the client's own."""
        if isinstance(request, ProduceRequest) and self._is_first:
            self._is_first = False
            self.reached.set()
            await self.release.wait()
        return await self._send(node_id, request, **more)


async def test_a_partition_does_not_wait_for_another_and_keeps_its_order(
    settings: Settings,
) -> None:
    topics.create(settings)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all")
    await producer.start()
    held = HeldRequest(producer.client)
    try:
        send_partitions_side_by_side(producer)
        sender, topic = Sender(producer), settings.drift_topic
        first = asyncio.create_task(sender.send(topic, 0, [(b"a", b"1", NO_HEADERS)]))
        await asyncio.wait_for(held.reached.wait(), WAIT_S)
        after_it = asyncio.create_task(sender.send(topic, 0, [(b"a", b"2", NO_HEADERS)]))

        other = await asyncio.wait_for(sender.send(topic, 1, [(b"b", b"1", NO_HEADERS)]), WAIT_S)

        assert other.last == 0
        assert not first.done()
        assert not after_it.done()
        held.release.set()
        assert (await asyncio.wait_for(first, WAIT_S)).last == 0
        assert (await asyncio.wait_for(after_it, WAIT_S)).last == 1
    finally:
        held.release.set()
        await producer.stop()
