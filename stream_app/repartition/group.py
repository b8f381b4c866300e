"""The consumer group of the mixed topics, and how long its coordinator leaves us our partitions.

What of kafka-python is called or replaced beside its documented functions:

    KafkaConsumer._coordinator._send_heartbeat_request    each heartbeat that is answered with yes
        renews the lease, also while a large batch is sent
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

from stream_app.lane.fence import Lease
from stream_app.settings import Settings

FETCH_BYTES = 2 * 1024 * 1024
FETCH_WAIT_MS = 100
SHARE = 2 / 3
"""Of the time that the coordinator leaves us: what was sent at its end arrives within the rest."""


def group_of(settings: Settings) -> str:
    """The consumer group of the mixed topics: one for all application ids of the same inputs."""
    return f"{settings.clicks_topic}.adapters"


def open_consumer(
    settings: Settings, mixed_topics: Collection[str], listener: Any, lease: Lease
) -> Any:
    """A member of the group, whose heartbeats renew the lease."""
    consumer = KafkaConsumer(
        **settings.kafka_python(),
        group_id=group_of(settings),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=int(settings.session_timeout_s * 1000),
        heartbeat_interval_ms=int(settings.heartbeat_s * 1000),
        # A broker waits so long for members that died, and the poll must not be later.
        max_poll_interval_ms=int(settings.rebalance_timeout_s * 1000),
        max_poll_records=settings.max_batch_events,
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        # All partitions are given back at each rebalance: a listener is told of the whole set.
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
    )
    coordinator = consumer._coordinator
    send = coordinator._send_heartbeat_request

    async def send_and_renew() -> None:
        sent_at = time.monotonic()
        await send()  # raises whatever is no yes, a rebalance too
        lease.renew(sent_at)

    coordinator._send_heartbeat_request = send_and_renew
    consumer.subscribe(list(mixed_topics), listener=listener)
    return consumer
