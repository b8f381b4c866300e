"""Reads many partitions from given offsets to their ends, with a plain consumer of no group."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import LeaderNotAvailableError

from stream_app.errors import RecoveryError
from stream_app.lane.reading import POLL_MS, READ_TIMEOUT_S, plain_consumer
from stream_app.settings import Settings

Where = tuple[str, int]
"""Topic and partition."""


def first_offsets(
    settings: Settings, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset of the first record of each partition."""
    if not partitions:
        return {}
    consumer = plain_consumer(settings, auto_offset_reset="earliest")
    try:
        return _offsets(consumer.beginning_offsets, partitions)
    finally:
        consumer.close()


def last_offsets(settings: Settings, partitions: Collection[Where]) -> dict[Where, int]:
    """At most the offset that each partition's next record gets; see `TopicReader.ends`."""
    consumer = plain_consumer(settings, auto_offset_reset="earliest")
    try:
        places = [TopicPartition(*where) for where in partitions]
        found = _offsets(consumer.end_offsets, places)
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}
    finally:
        consumer.close()


def _offsets(
    ask: Callable[[list[TopicPartition]], Mapping[TopicPartition, int]],
    places: Collection[TopicPartition],
) -> dict[TopicPartition, int]:
    """What the brokers say of all places; kafka-python raises a KeyError for one without a leader.

    Raises:
        LeaderNotAvailableError: one of them has none at the moment.
    """
    try:
        return dict(ask(list(places)))
    except KeyError as error:
        raise LeaderNotAvailableError(f"no leader for {error}") from None


def read_tail(
    settings: Settings, starts: Mapping[Where, int], ends: MutableMapping[Where, int]
) -> Iterator[list[Any]]:
    """The records of all partitions from these offsets on, poll by poll, be it empty.

    The end is the highwater that came with the last fetch, see `lane.reading.to_the_end`; it is
    written to `ends`.

    Raises:
        RecoveryError: nothing came for `READ_TIMEOUT_S` seconds before all ends were reached.
    """
    consumer = plain_consumer(settings, auto_offset_reset="earliest")
    try:
        places = {TopicPartition(*where): start for where, start in starts.items()}
        first = _offsets(consumer.beginning_offsets, places)
        last = _offsets(consumer.end_offsets, places)
        ends.update({(tp.topic, tp.partition): last[tp] for tp in places})
        # A fetch of an empty partition would wait for what may come.
        behind = {tp for tp in places if first[tp] < last[tp]}
        consumer.assign(list(behind))
        for tp in behind:
            consumer.seek(tp, max(places[tp], first[tp]))
        deadline = time.monotonic() + READ_TIMEOUT_S
        while behind:
            found = consumer.poll(POLL_MS)
            yield [record for records in found.values() for record in records]
            for tp in [*behind]:
                end = consumer.highwater(tp)
                if end is not None and consumer.position(tp) >= end:
                    ends[tp.topic, tp.partition] = end
                    behind.discard(tp)
                    consumer.pause(tp)
            if found:
                deadline = time.monotonic() + READ_TIMEOUT_S
            elif time.monotonic() > deadline:
                topic, partition = min((tp.topic, tp.partition) for tp in behind)
                raise RecoveryError(
                    f"Partition {partition} of topic {topic} cannot be read to its end; check the "
                    "brokers, and start the worker again."
                )
    finally:
        consumer.close()
