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

POLL_MS = 20
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
        fetch_max_wait_ms=POLL_MS,
        **credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
    )
    try:
        await consumer.start()
        try:
            places = {TopicPartition(topic, number): start for number, start in starts.items()}
            tails = await _read_back(consumer, places)
        finally:
            await consumer.stop()
    except KafkaError as error:
        raise RecoveryError(
            f"The journal topic {topic} cannot be read ({type(error).__name__}); check it and the "
            "brokers, and start the worker again."
        ) from error
    return {place.partition: entries for place, entries in tails.items()}


async def _read_back(
    consumer: AIOKafkaConsumer, starts: Mapping[TopicPartition, Triple]
) -> dict[TopicPartition, list[JournalEntry]]:
    """Looks further and further back in the partitions that are not reached far enough."""
    tails: dict[TopicPartition, list[JournalEntry]] = {}
    short, look = set(starts), FIRST_LOOK
    while short:
        consumer.assign(sorted(short))
        first = await consumer.beginning_offsets(short)
        end = await consumer.end_offsets(short)
        begin = {place: max(first[place], end[place] - look) for place in short}
        for place, entries in (await _read(consumer, begin)).items():
            tails[place] = chain(entries)
            reaches = bool(tails[place]) and all(
                at <= offset
                for at, offset in zip(tails[place][0].start, starts[place], strict=True)
            )
            if reaches or begin[place] == first[place]:
                short.discard(place)
        look *= 2
    return tails


def _reaches(entries: list[JournalEntry], start: Triple) -> bool:
    return bool(entries) and all(
        at <= offset for at, offset in zip(entries[0].start, start, strict=True)
    )


async def _read(
    consumer: AIOKafkaConsumer, begin: Mapping[TopicPartition, int]
) -> dict[TopicPartition, list[JournalEntry]]:
    """All entries from these offsets on. The end is what the fetches say, see transport.py."""
    for place, offset in begin.items():
        consumer.seek(place, offset)
    entries: dict[TopicPartition, list[JournalEntry]] = {place: [] for place in begin}
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        found = await consumer.getmany(timeout_ms=POLL_MS)
        for place, records in found.items():
            entries[place] += [decode(record.value) for record in records]
        behind = [place for place in begin if not await _is_at_end(consumer, place)]
        if not behind:
            return entries
        if found:
            deadline = time.monotonic() + READ_TIMEOUT_S
        elif time.monotonic() > deadline:
            raise RecoveryError(
                f"Partition {behind[0].partition} of the journal topic {behind[0].topic} cannot be "
                "read to its end; check the brokers, and start the worker again."
            )


async def _is_at_end(consumer: AIOKafkaConsumer, place: TopicPartition) -> bool:
    end = consumer.highwater(place)
    return end is not None and await consumer.position(place) >= end
