"""Reads the end of the journal when a worker takes partitions over."""

from __future__ import annotations

from collections.abc import Mapping

from stream_app.lane.journal import JournalEntry, chain, decode
from stream_app.lane.merge import Triple
from stream_app.lane.topic_reader import TopicReader

FIRST_LOOK = 512
"""Entries read at first; twice as many again while they do not reach back far enough."""


async def read_tails(
    reader: TopicReader, starts: Mapping[int, Triple], epochs: Triple
) -> dict[int, list[JournalEntry]]:
    """Per partition, the last entries of the journal, back to its start offsets at least.

    Args:
        reader: of the journal topic.
        starts: per partition, the offsets of the input topics that the entries have to reach.
        epochs: of the input topics; of another epoch, entries count as `JournalEntry.under` says.

    Raises:
        RecoveryError: the journal cannot be read, or holds records of another kind.
    """
    tails: dict[int, list[JournalEntry]] = {}
    short, look = set(starts), FIRST_LOOK
    while short:
        first, end = await reader.beginnings(short), await reader.ends(short)
        begin = {number: max(first[number], end[number] - look) for number in short}
        for number, records in (await reader.read(begin))[0].items():
            entries = chain(decode(record.value) for record in records)
            tails[number] = [entry.under(epochs) for entry in entries]
            if begin[number] == first[number] or _reaches(tails[number], starts[number]):
                short.discard(number)
        look *= 2
    return tails


def _reaches(entries: list[JournalEntry], start: Triple) -> bool:
    # What fills a gap stands behind later entries, so it tells nothing of what comes before it.
    first = next((entry for entry in entries if not entry.between), None)
    return first is not None and all(
        at <= offset for at, offset in zip(first.start, start, strict=True)
    )
