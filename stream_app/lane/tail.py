"""Reads the end of the journal when a worker takes partitions over."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth, server_list

from stream_app.errors import RecoveryError
from stream_app.lane.journal import JournalEntry, chain, decode
from stream_app.lane.merge import Triple

POLL_MS = 200
READ_TIMEOUT_S = 10.0
FIRST_LOOK = 512
"""Entries read at first; twice as many again while they do not reach back far enough."""


async def read_tails(
    app: Any, topic: str, starts: Mapping[int, Triple]
) -> dict[int, list[JournalEntry]]:
    """Per partition, the last entries of the journal, back to its start offsets at least.

    Args:
        app: the Faust app, whose brokers and credentials are used; no consumer group is joined.
        topic: the journal topic.
        starts: per partition, the offsets of the input topics that the entries have to reach.

    Raises:
        RecoveryError: the journal cannot be read, or holds records of another kind.
    """
    if not starts:
        return {}
    conf = app.conf
    consumer = AIOKafkaConsumer(
        bootstrap_servers=server_list(app.transport.url, app.transport.default_port),
        group_id=None,
        enable_auto_commit=False,
        fetch_max_wait_ms=50,
        **credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
    )
    try:
        await consumer.start()
        try:
            return {
                partition: await _read_tail(consumer, TopicPartition(topic, partition), start)
                for partition, start in starts.items()
            }
        finally:
            await consumer.stop()
    except KafkaError as error:
        raise RecoveryError(
            f"The journal topic {topic} cannot be read ({type(error).__name__}); check it and the "
            "brokers, and start the worker again."
        ) from error


async def _read_tail(
    consumer: AIOKafkaConsumer, place: TopicPartition, start: Triple
) -> list[JournalEntry]:
    consumer.assign([place])
    first = (await consumer.beginning_offsets([place]))[place]
    end = (await consumer.end_offsets([place]))[place]
    look = FIRST_LOOK
    while True:
        begin = max(first, end - look)
        entries = chain(await _read(consumer, place, begin))
        reaches = bool(entries) and all(
            at <= offset for at, offset in zip(entries[0].start, start, strict=True)
        )
        if reaches or begin == first:
            return entries
        look *= 2


async def _read(
    consumer: AIOKafkaConsumer, place: TopicPartition, begin: int
) -> list[JournalEntry]:
    """The entries from offset `begin` on. The end is what the fetches say, see transport.py."""
    consumer.seek(place, begin)
    entries: list[JournalEntry] = []
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        found = (await consumer.getmany(place, timeout_ms=POLL_MS)).get(place, [])
        entries += [decode(record.value) for record in found]
        end = consumer.highwater(place)
        if end is not None and await consumer.position(place) >= end:
            return entries
        if found:
            deadline = time.monotonic() + READ_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise RecoveryError(
                f"Partition {place.partition} of the journal topic {place.topic} cannot be read to "
                "its end; check the brokers, and start the worker again."
            )
