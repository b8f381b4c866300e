"""Where the lane begins with partitions that it was given: offsets, running maxima, journal.

Refuses, in one sentence, what would apply events to rows that were made of other topics.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from faust.types import TP

from stream_app.errors import StoreError, TopicError
from stream_app.lane.fence import Fence
from stream_app.lane.journal import JournalEntry, beyond, topic_name
from stream_app.lane.merge import Triple
from stream_app.lane.partition import Partition, maxima_after
from stream_app.lane.tail import read_tails
from stream_app.lane.topic_reader import reading
from stream_app.settings import Settings

WRITER_BITS = 63


async def take_over(
    app: Any, settings: Settings, assigned: set[TP], fence: Fence
) -> dict[int, Partition]:
    """The partitions of an assignment, at the offsets that Faust has sought.

    Args:
        app: the Faust app.
        settings: of the worker.
        assigned: topic partitions of the input topics.
        fence: of the assignment.

    Raises:
        TopicError: a partition is assigned without its like of another input topic.
        StoreError: offsets or rows are of topics that are no longer there.
        RecoveryError: the journal cannot be read.
    """
    numbers = sorted({tp.partition for tp in assigned})
    whole = {TP(topic, number) for number in numbers for topic in settings.input_topics}
    if whole != assigned:
        raise TopicError(
            "A partition was assigned without its like of the other input topics; give all topics "
            "the same number of partitions."
        )
    ends = await app.consumer.highwaters(*whole)
    earliest = await app.consumer.earliest_offsets(*whole)
    committed = app.consumer._committed_offset
    starts: dict[int, Triple] = {}
    for number in numbers:
        a, b, c = (
            _start(tp, committed[tp], earliest.get(tp) or 0, ends[tp])
            for tp in (TP(topic, number) for topic in settings.input_topics)
        )
        starts[number] = (a, b, c)
    async with reading(app, topic_name(settings)) as reader:
        tails = await read_tails(reader, starts)
    writer = secrets.randbits(WRITER_BITS)
    partitions = {}
    for number, start in starts.items():
        check_journal(settings, number, tails[number], ends)
        partitions[number] = partition = Partition(
            number,
            settings.input_topics,
            fence,
            start,
            maxima_after(tails[number], start),
            beyond(tails[number], start),
            writer,
            settings.partitions,
        )
        partition.note_ends([ends[tp] for tp in partition.tps])
    return partitions


async def check_counts(producer: Any, settings: Settings, names: Iterable[str]) -> None:
    """Refuse topics whose partitions are not as many as those of the input topics.

    Raises:
        TopicError: with the first topic that differs.
    """
    for name in names:
        count = len(await producer.partitions_for(name))
        if count != settings.partitions:
            raise TopicError(
                f"Topic {name} has {count} partitions and {settings.partitions} are wanted, the "
                "same for all topics; make the topic anew, or set INTEREST_PARTITIONS."
            )


def check_journal(
    settings: Settings, number: int, entries: list[JournalEntry], ends: Mapping[TP, int]
) -> None:
    """Refuse rows that hold offsets beyond the end of a topic, or of another partition count.

    The last entry of the journal tells both of all rows of the partition.

    Raises:
        StoreError: the topics are not those that the rows were made of.
    """
    if not entries:
        return
    last = entries[-1]
    if last.partitions != settings.partitions:
        raise StoreError(
            f"The rows were made with {last.partitions} partitions and the topics have "
            f"{settings.partitions}; rebuild the rows from the input topics under another "
            "INTEREST_APP_ID."
        )
    for topic, applied in zip(settings.input_topics, last.end, strict=True):
        end = ends[TP(topic, number)]
        if applied > end:
            raise StoreError(
                f"{topic} partition {number} ends at offset {end}, but the rows hold events up to "
                f"{applied}: the topic was made anew; rebuild the rows under another "
                "INTEREST_APP_ID."
            )


def _start(tp: TP, committed: int | None, earliest: int, end: int) -> int:
    """Offset of the first record that is to be applied."""
    if committed is not None and committed > end:
        raise StoreError(
            f"{tp.topic} partition {tp.partition} ends at offset {end}, but {committed} is "
            "committed: the topic was made anew; start over under another INTEREST_APP_ID."
        )
    return max(committed or 0, earliest)
