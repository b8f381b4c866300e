"""Where the lane begins with partitions that it was given: offsets, running maxima, journal.

Refuses, in one sentence, what would apply events to rows that were made of other topics.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from faust.types import TP

from stream_app.errors import StoreError, TopicError, WorkerError
from stream_app.lane.fence import Fence
from stream_app.lane.journal import JournalEntry, beyond, in_offset_order, next_term, topic_name
from stream_app.lane.merge import NEVER, Triple
from stream_app.lane.partition import Origin, Partition, maxima_after
from stream_app.lane.tail import read_tails
from stream_app.lane.topic_reader import reading
from stream_app.settings import Settings

logger = logging.getLogger(__name__)

WRITER_BITS = 63


async def take_over(
    app: Any,
    settings: Settings,
    assigned: set[TP],
    fence: Fence,
    epochs: Triple,
    until: Mapping[TP, int] | None = None,
) -> dict[int, Partition]:
    """The partitions of an assignment, at the offsets that Faust has sought.

    A topic that was made anew since the last batch is begun at its first record.

    Args:
        app: the Faust app.
        settings: of the worker.
        assigned: topic partitions of the input topics and the control topic.
        fence: of the assignment.
        epochs: of the input topics.
        until: per topic partition the offset at which the lane ends, None where it goes on.

    Raises:
        TopicError: a partition is assigned without its like of another input topic.
        StoreError: offsets or rows are of topics that are no longer there.
        RecoveryError: the journal cannot be read.
        WorkerError: the offsets of a topic that was made anew cannot be committed.
    """
    numbers = sorted({tp.partition for tp in assigned})
    topics = (*settings.input_topics, settings.control_topic)
    whole = {TP(topic, number) for number in numbers for topic in topics}
    if whole != assigned:
        raise TopicError(
            "A partition was assigned without its like of the other input topics; give all topics "
            "the same number of partitions."
        )
    consumer, generation = app.consumer, app.consumer_generation_id
    ends = await consumer.highwaters(*whole)
    earliest = {tp: at or 0 for tp, at in (await consumer.earliest_offsets(*whole)).items()}
    committed: dict[TP, int] = {
        tp: max(consumer._committed_offset[tp] or 0, earliest.get(tp, 0)) for tp in whole
    }
    starts = {number: _of(committed, settings, number) for number in numbers}
    async with reading(app, topic_name(settings)) as reader:
        tails = await read_tails(reader, starts, epochs)
    writer = secrets.randbits(WRITER_BITS)
    ttl_s = settings.state_ttl_s
    partitions, anew = {}, {}
    for number, tail in tails.items():
        entries = in_offset_order(tail)
        anew.update(_made_anew(settings, number, entries, committed, earliest))
        committed.update(anew)
        start = _of(committed, settings, number)
        check_committed(settings, number, start, ends)
        check_journal(settings, number, entries, ends)
        control = committed[TP(settings.control_topic, number)]
        origin = Origin(
            start,
            maxima_after(entries, start),
            beyond(entries, start, control),
            control,
            entries[-1].swept_ms if entries else NEVER,
            epochs,
            None if until is None else whole_entries(entries, _of(until, settings, number)),
            next_term(entries, generation),
        )
        partitions[number] = partition = Partition(
            number,
            settings.input_topics,
            fence,
            origin,
            writer,
            settings.partitions,
            None if ttl_s is None else ttl_s * 1000,
        )
        partition.note_ends([ends[tp] for tp in partition.tps])
    for tp, offset in anew.items():
        logger.warning("%s was made anew and is begun at offset %d", tp.topic, offset)
        await consumer.seek(tp, offset)
    if anew and not await consumer.commit_offsets(anew):
        raise WorkerError(
            "A topic was made anew, and its new offsets cannot be committed; start the worker "
            "again."
        )
    return partitions


def whole_entries(entries: Sequence[JournalEntry], until: Triple) -> Triple:
    """The offsets at which the lane ends, so that no batch of the journal is cut.

    Which records such a batch has was decided when it was applied.
    """
    for entry in entries:
        if any(a < min(b, stop) for a, b, stop in zip(entry.start, entry.end, until, strict=True)):
            a, b, c = map(max, entry.end, until)
            until = (a, b, c)
    return until


def _of(offsets: Mapping[TP, int], settings: Settings, number: int) -> Triple:
    a, b, c = (offsets[TP(topic, number)] for topic in settings.input_topics)
    return a, b, c


def _made_anew(
    settings: Settings,
    number: int,
    entries: Sequence[JournalEntry],
    committed: Mapping[TP, int],
    earliest: Mapping[TP, int],
) -> dict[TP, int]:
    """The first offset of each topic that was made anew after the last entry of the journal.

    Of such a topic the entries count no record.
    """
    if not entries:
        return {}
    places = [TP(topic, number) for topic in settings.input_topics]
    return {
        tp: earliest.get(tp, 0)
        for tp, is_anew in zip(places, entries[-1].made_anew, strict=True)
        if is_anew and committed[tp] != earliest.get(tp, 0)
    }


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
        raise other_partitions(last.partitions, settings.partitions)
    for topic, applied in zip(settings.input_topics, last.end, strict=True):
        end = ends[TP(topic, number)]
        if applied > end:
            raise StoreError(
                f"{topic} partition {number} ends at offset {end}, but the rows hold events up to "
                f"{applied}: the topic was made anew; rebuild the rows under another "
                "INTEREST_APP_ID."
            )


def other_partitions(made_with: int, count: int) -> StoreError:
    """What refuses rows that were made with another number of partitions than the topics have."""
    return StoreError(
        f"The rows were made with {made_with} partitions and the topics have {count}, in which old "
        "records no longer lie where their keys belong; copy the records by key into new topics, "
        "and start there under another INTEREST_APP_ID (deploy/README.md, More partitions)."
    )


def check_committed(settings: Settings, number: int, start: Triple, ends: Mapping[TP, int]) -> None:
    """Refuse committed offsets beyond the end of a topic of which nothing else is known.

    Raises:
        StoreError: the topic was made anew, and the broker has no topic ids that would say so.
    """
    for topic, offset in zip(settings.input_topics, start, strict=True):
        end = ends[TP(topic, number)]
        if offset > end:
            raise StoreError(
                f"{topic} partition {number} ends at offset {end}, but {offset} is committed: the "
                "topic was made anew; start over under another INTEREST_APP_ID."
            )
