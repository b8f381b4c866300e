"""The journal: how the live merge was cut, so that the same order can be had again.

Live, arrival decides what the merge could not wait for. One record per batch in the partition's
journal topic, acknowledged before the outputs of the batch, says which offsets of the three topics
went into the batch and where the running maxima stood. Restart, takeover and `verify` merge along
these entries.

An entry is a batch, or the erasure of a user, which stands between two batches.

Layout of a record, little endian, 160 bytes:

==========  ==========  ===========================================================================
version     uint16      1
partitions  uint16      partition count of the input topics
between     uint32      1 of a batch that fills a gap between older entries, otherwise 0
writer      uint64      random number of the writer's assignment
start       int64 x 3   per input topic, offset of the first record of the batch
end         int64 x 3   ... offset after its last one
maxima      int64 x 3   ... running maximum of the event times before `start`
after       int64 x 3   ... and before `end`
epoch       uint32 x 3  ... epoch of the topic
term        uint32      the writer's turn, which rises with each assignment
swept_ms    int64       rows whose last event is older have expired before this entry
control     int64       of an erasure, the offset of its control record; -1 of a batch
erased      16 bytes    of an erasure, the hash of the user; zero of a batch
==========  ==========  ===========================================================================

Writers take turns: when another writer has begun, what an earlier one appends afterwards is stale.
The term tells which is the earlier one, also of a writer whose first entry comes late. It is the
generation of the consumer group, or one more than the last term where a group that was forgotten
counts anew.
A writer begins where the rows and offsets that it took over stand, so its entries replace those of
the writer before it from there on.

Offsets that somebody set forwards leave a gap between two entries. When they are set back, its
records come after the later entries have been applied: their entries say so (`between`), replace
nothing, and stand in the journal where they were applied.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from stream_app.errors import RecoveryError
from stream_app.events import MAX_TIMESTAMP_MS
from stream_app.lane.merge import NEVER, TOPICS, Times, Triple, merge
from stream_app.lane.reading import read_records

if TYPE_CHECKING:
    from stream_app.settings import Settings

VERSION = 1
MAX_OFFSET = 2**61
"""No topic comes near it, and the sum of three stays a length."""

BATCH = -1
"""`control` of an entry that is a batch."""
NOBODY = bytes(16)

_LAYOUT = struct.Struct("<HHIQ3q3q3q3q3IIqq16s")


@dataclass(frozen=True)
class JournalEntry:
    """One batch, or the erasure of a user; see the layout above."""

    writer: int
    partitions: int
    start: Triple
    end: Triple
    maxima: Triple
    after: Triple
    epochs: Triple = (0, 0, 0)
    swept_ms: int = NEVER
    control: int = BATCH
    erased: bytes = NOBODY
    between: bool = False
    term: int = 0
    made_anew: tuple[bool, bool, bool] = (False, False, False)
    """Per input topic, whether it was made anew since; not in the record, see `under`."""

    @property
    def is_erasure(self) -> bool:
        """Whether this is the erasure of a user; its start is its end."""
        return self.control != BATCH

    def under(self, epochs: Triple) -> JournalEntry:
        """The entry as it counts for topics of these epochs.

        Of a topic that was made anew since, no record is in it.
        """
        a, b, c = (
            0 not in (old, new) and old != new for old, new in zip(self.epochs, epochs, strict=True)
        )
        if not (a or b or c):
            return self
        anew = (a, b, c)
        start = tuple(0 if gone else at for at, gone in zip(self.start, anew, strict=True))
        end = tuple(0 if gone else at for at, gone in zip(self.end, anew, strict=True))
        return replace(
            self, start=cast(Triple, start), end=cast(Triple, end), epochs=epochs, made_anew=anew
        )

    def __len__(self) -> int:
        """Offsets that the batch spans, all topics together."""
        return sum(self.end) - sum(self.start)


@dataclass(frozen=True)
class Order:
    """Records in the order in which they were applied; (N,) each.

    topic   EventType
    index   place among the given records of that topic
    entry   number of the entry, which is the batch
    """

    topic: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    entry: npt.NDArray[np.int64]


def encode(entry: JournalEntry) -> bytes:
    """The record of an entry."""
    head = (VERSION, entry.partitions, entry.between, entry.writer)
    body = (*entry.start, *entry.end, *entry.maxima, *entry.after, *entry.epochs, entry.term)
    return _LAYOUT.pack(*head, *body, entry.swept_ms, entry.control, entry.erased)


def decode(value: bytes | None) -> JournalEntry:
    """The entry in a record.

    Raises:
        RecoveryError: the record is none of ours.
    """
    if value is None or len(value) != _LAYOUT.size:
        raise RecoveryError(
            "The journal topic holds a record that is no entry of ours; name another topic, or "
            "empty this one while no worker runs."
        )
    version, partitions, between, writer, *numbers, term, swept_ms, control, erased = (
        _LAYOUT.unpack(value)
    )
    if version != VERSION:
        raise RecoveryError(
            f"The journal topic has entries of version {version} and this program reads version "
            f"{VERSION}; see CHANGELOG.md for what reads them."
        )
    start, end, maxima, after, epochs = (
        cast(Triple, tuple(numbers[at : at + 3])) for at in range(0, 15, 3)
    )
    entry = JournalEntry(
        writer,
        partitions,
        start,
        end,
        maxima,
        after,
        epochs,
        swept_ms,
        control,
        erased,
        bool(between),
        term,
    )
    if between > 1 or not _is_possible(entry):
        raise RecoveryError(
            "The journal topic holds an entry that no worker writes; name another topic, or empty "
            "this one while no worker runs."
        )
    return entry


def _is_possible(entry: JournalEntry) -> bool:
    return (
        entry.partitions > 0
        and BATCH <= entry.control <= MAX_OFFSET
        and entry.swept_ms <= MAX_TIMESTAMP_MS
        and all(
            0 <= start <= end <= MAX_OFFSET
            for start, end in zip(entry.start, entry.end, strict=True)
        )
        and all(
            before <= after <= MAX_TIMESTAMP_MS
            for before, after in zip(entry.maxima, entry.after, strict=True)
        )
    )


def chain(records: Iterable[JournalEntry]) -> list[JournalEntry]:
    """The entries that hold, out of all records of a journal in offset order."""
    entries: list[JournalEntry] = []
    superseded: set[int] = set()
    writer: int | None = None
    term = 0
    for record in records:
        if record.term < term or record.writer in superseded:
            continue
        term = record.term
        if writer is not None and record.writer != writer:
            superseded.add(writer)
        writer = record.writer
        while entries and _replaces(record, entries[-1]):
            entries.pop()
        entries.append(record)
    return entries


def next_term(entries: Iterable[JournalEntry], generation: int) -> int:
    """The term of a writer that begins now, behind these entries.

    Args:
        entries: the last ones of the journal.
        generation: of the consumer group, in which the writer was given the partition.
    """
    last = max((entry.term for entry in entries), default=0)
    return generation if generation >= last else last + 1


def _replaces(later: JournalEntry, entry: JournalEntry) -> bool:
    entry = entry.under(later.epochs)
    if later.between and (
        not entry.between
        or all(at >= stop for at, stop in zip(entry.start, later.end, strict=True))
    ):
        return False
    return any(stop > at for stop, at in zip(entry.end, later.start, strict=True))


def in_offset_order(entries: Iterable[JournalEntry]) -> list[JournalEntry]:
    """The entries by where their records stand; those of a gap come in their place."""
    return sorted(entries, key=lambda entry: (sum(entry.start), sum(entry.end)))


def beyond(
    entries: Sequence[JournalEntry], committed: Triple, control: int = 0
) -> list[JournalEntry]:
    """The entries that reach beyond the committed offsets: what has to be replayed along.

    `control` is the committed offset of the control topic.
    """
    return [
        entry
        for entry in entries
        if (
            entry.control >= control
            if entry.is_erasure
            else any(end > offset for end, offset in zip(entry.end, committed, strict=True))
        )
    ]


def merge_along(
    entries: Sequence[JournalEntry],
    offsets: Sequence[npt.NDArray[np.int64]],
    times: Sequence[Times],
) -> Order:
    """The order in which the journal says that records were applied.

    Args:
        entries: the journal of one partition, see `chain`.
        offsets: per topic the offsets of its records, rising.
        times: per topic their event times, `merge.NEVER` for a record that is no event.

    Records outside of the entries are not in the order. The entries have to be `under` the epochs
    of the topics that the records are from.
    """
    empty = np.zeros(0, np.int64)
    topics, indices, numbers = [empty], [empty], [empty]
    for number, entry in enumerate(entries):
        first, stop = span(entry, offsets)
        cut = merge([times[t][first[t] : stop[t]] for t in range(TOPICS)], entry.maxima)
        topics.append(cut.topic)
        indices.append(cut.index + np.asarray(first)[cut.topic])
        numbers.append(np.full(len(cut), number))
    return Order(np.concatenate(topics), np.concatenate(indices), np.concatenate(numbers))


def span(
    entry: JournalEntry, offsets: Sequence[npt.NDArray[np.int64]]
) -> tuple[list[int], list[int]]:
    """Per topic, where an entry's records begin and end among those with these offsets."""
    first = [int(np.searchsorted(offsets[t], entry.start[t])) for t in range(TOPICS)]
    stop = [int(np.searchsorted(offsets[t], entry.end[t])) for t in range(TOPICS)]
    return first, stop


def topic_name(settings: Settings) -> str:
    """The journal topic: as many partitions as the input topics, never compacted."""
    return settings.journal_topic


def read_journal(settings: Settings, partition: int) -> list[JournalEntry]:
    """All entries of a partition's journal that hold, oldest first. Joins no consumer group.

    Raises:
        RecoveryError: the topic holds records of another kind, or cannot be read to its end.
    """
    records = read_records(settings, topic_name(settings), partition)
    return chain(decode(record.value) for record in records)
