"""Replays the input topics through the offline transition and compares with the stored rows.

The offline run takes the events in the order of the journal, with the very functions that the
worker uses; what it gives must stand in the changelog and on the output topics. It goes partition
by partition: memory is bounded by the records and rows of one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model.checkpoint import Checkpoint
from model.events import EventType, Source
from model.transition import transition
from stream_app import outputs as output_messages
from stream_app import topics
from stream_app.comparison import Comparison, Coverage, compare
from stream_app.events import Event, OutputKind, decode_batch, output_id
from stream_app.lane.assemble import Assembled, assemble
from stream_app.lane.erasure import is_done, marker_of
from stream_app.lane.history_mark import MARK
from stream_app.lane.journal import JournalEntry, chain, decode, merge_along, topic_name
from stream_app.lane.merge import NEVER, TOPICS, Triple
from stream_app.lane.reading import offset_at, read_records, stream_records
from stream_app.lane.stored_rows import (
    CARRIED_OVER,
    MARKER_PREFIX,
    Markers,
    begin,
    decode_marker,
    end,
    has_expired,
    is_marker,
    user_hash,
)
from stream_app.settings import Settings

BATCH_EVENTS = 4000

Read = Callable[[Settings, str, int], Sequence[Any]]
"""Reads records of a partition of a topic, oldest first and without a gap."""


@dataclass
class OfflineRun:
    """What the offline transition gives for one partition.

    rows          row of each user
    markers       what is left of the users who were erased
    outputs       id -> value of every drift event and recommendation
    duplicates    events recognised as repeats
    dead_letters  refused records by reason
    coverage      the part of the partition's history that was replayed
    swept_ms      rows whose last event is older have expired
    """

    rows: dict[str, bytes] = field(default_factory=dict)
    markers: Markers = field(default_factory=dict)
    swept_ms: int = NEVER
    outputs: dict[str, bytes] = field(default_factory=dict)
    events: int = 0
    duplicates: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True)
class Applied:
    """An event, and where it stands: topic as EventType, and offset."""

    event: Event
    topic: int
    offset: int


@dataclass(frozen=True)
class Inputs:
    """The decoded records of one partition of the input topics.

    events     per topic, None for a record that is no event
    refused    per topic, the reason by the record's place
    offsets    per topic, rising
    times      per topic, `merge.NEVER` for a record that is no event
    """

    events: list[list[Event | None]]
    refused: list[dict[int, str]]
    offsets: list[npt.NDArray[np.int64]]
    times: list[npt.NDArray[np.int64]]

    def hold(self, entry: JournalEntry) -> bool:
        """Whether all records of a batch are among these."""
        return all(
            start == end or (len(offsets) and offsets[0] <= start and end <= offsets[-1] + 1)
            for start, end, offsets in zip(entry.start, entry.end, self.offsets, strict=True)
        )

    def of(self, entry: JournalEntry) -> tuple[list[Applied], list[str]]:
        """The events of a batch in their order, and the reasons of the records refused in it."""
        order = merge_along([entry], self.offsets, self.times)
        applied, refused = [], []
        for t, i in zip(order.topic.tolist(), order.index.tolist(), strict=True):
            event = self.events[t][i]
            if event is None:
                refused.append(self.refused[t][i])
            else:
                applied.append(Applied(event, t, int(self.offsets[t][i])))
        return applied, refused


def replay_partition(
    settings: Settings,
    checkpoint: Checkpoint,
    partition: int,
    read: Read = read_records,
    with_outputs: bool = True,
    epochs: Triple | None = None,
) -> OfflineRun:
    """The offline run of one partition in the order of its journal.

    Batches of which records are missing, because they are outside of a range or the topic has let
    go of them, are left out; the run's coverage says so. Where rows were made from a file, which
    the topics do not hold, the beginning is missing.

    Args:
        read: reads the input topics, the journal and the changelog.
        with_outputs: false leaves the outputs out.
        epochs: of the topics that `read` reads; asked from the broker when None.
    """
    markers = changelog_markers(settings, partition, read)
    run = OfflineRun(markers=carried_over(markers))
    inputs = read_inputs(settings, partition, read)
    entries, run.coverage = read_entries(settings, partition, read, inputs, epochs)
    if MARK in markers:
        run.coverage = replace(run.coverage, from_beginning=False)
    waiting: list[Applied] = []

    def catch_up(entry: JournalEntry) -> None:
        for start in range(0, len(waiting), BATCH_EVENTS):
            made = apply(run, waiting[start : start + BATCH_EVENTS], entry, checkpoint)
            if with_outputs:
                _note_outputs(run, made, entry, partition, settings, checkpoint)
        waiting.clear()

    last: JournalEntry | None = None
    for entry in entries:
        if last is not None and (not _go_together(last, entry) or len(waiting) >= BATCH_EVENTS):
            catch_up(last)
        applied, refused = inputs.of(entry)
        waiting += applied  # the cut into batches decides nothing: small ones go together
        run.dead_letters.update(refused)
        if entry.is_erasure:
            _erase(run, entry)
        last = entry
    if last is not None:
        catch_up(last)
        run.swept_ms = last.swept_ms
    run.rows = living(run.rows, run.swept_ms, checkpoint.hidden)
    return run


def _go_together(entry: JournalEntry, following: JournalEntry) -> bool:
    """Whether two batches may be applied as one: a row does not depend on where they are cut.

    Offsets must rise within one, or else those of a gap would not be recognised as applied.
    """
    return (
        not following.is_erasure
        and entry.between == following.between
        and entry.swept_ms == following.swept_ms
        and entry.epochs == following.epochs
    )


def _erase(run: OfflineRun, entry: JournalEntry) -> None:
    if is_done(entry, run.markers):
        return
    for user in [user for user in run.rows if user_hash(user) == entry.erased]:
        del run.rows[user]
    run.markers[entry.erased] = marker_of(entry, 0)


def living(rows: dict[str, bytes], swept_ms: int, hidden: int) -> dict[str, bytes]:
    """The rows that have not expired."""
    if swept_ms == NEVER:
        return rows
    return {user: row for user, row in rows.items() if not has_expired(row, swept_ms, hidden)}


def read_inputs(settings: Settings, partition: int, read: Read) -> Inputs:
    """Read and decode the records of a partition of the input topics."""
    inputs = Inputs([], [], [], [])
    for event_type, topic in zip(EventType, settings.input_topics, strict=True):
        records = read(settings, topic, partition)
        decoded, rejections = decode_batch(
            event_type,
            records,
            partition=partition,
            partitions=settings.partitions,
            future_allowance_ms=settings.future_allowance_ms,
            max_value_bytes=settings.max_event_bytes,
        )
        times = [NEVER if event is None else event.timestamp_ms for event in decoded]
        inputs.events.append(decoded)
        inputs.refused.append({r.index: str(r.reason) for r in rejections})
        inputs.offsets.append(np.array([record.offset for record in records], dtype=np.int64))
        inputs.times.append(np.array(times, dtype=np.int64))
    return inputs


def read_entries(
    settings: Settings,
    partition: int,
    read: Read,
    inputs: Inputs,
    epochs: Triple | None = None,
) -> tuple[list[JournalEntry], Coverage]:
    """The batches of the journal whose records are all at hand, and how much of it they are."""
    records = read(settings, topic_name(settings), partition)
    now = topics.epochs(settings) if epochs is None else epochs
    entries = [entry.under(now) for entry in chain(decode(record.value) for record in records)]
    held = [entry for entry in entries if inputs.hold(entry)]
    # A journal that has let go of records no longer tells where it began.
    # So does the first entry under which a topic was still another one.
    from_beginning = bool(held) and held[0] is entries[0] and records[0].offset == 0
    from_beginning &= not any(any(entry.made_anew) for entry in held)
    # Not the last entry's: one that fills a gap comes after those behind it.
    ends = np.array([entry.end for entry in held], dtype=np.int64).reshape(-1, TOPICS)
    a, b, c = ends.max(axis=0, initial=0).tolist()
    return held, Coverage(from_beginning, (a, b, c))


@dataclass(frozen=True)
class _Made:
    out: Any
    batch: Assembled


def apply(
    run: OfflineRun, batch: Sequence[Applied], entry: JournalEntry, checkpoint: Checkpoint
) -> _Made:
    """Move the rows of a run by events in their order, as the batch of a journal entry."""
    made = assemble(
        [one.event for one in batch],
        np.array([one.topic for one in batch], dtype=np.int64),
        np.array([one.offset for one in batch], dtype=np.int64),
        checkpoint.vocabulary,
    )
    values = [run.rows.get(user) for user in made.users]
    begun = begin(made.users, values, run.markers, entry.swept_ms, checkpoint.hidden)
    source = Source(entry.epochs, entry.partitions)
    moved, out = transition(begun.states, made.steps, source, checkpoint)
    keys, rows = end(begun, [user.encode() for user in made.users], moved)
    run.rows.update(zip((key.decode() for key in keys), rows, strict=True))
    run.events += len(batch)
    run.duplicates += int(out.duplicate[made.steps.line == 0].sum())
    return _Made(out, made)


def _note_outputs(
    run: OfflineRun,
    made: _Made,
    entry: JournalEntry,
    partition: int,
    settings: Settings,
    checkpoint: Checkpoint,
) -> None:
    topics, epochs, batch = settings.input_topics, entry.epochs, made.batch
    encoded = output_messages.encode(
        made.out, batch.steps, batch.users, batch.item_id, partition, topics, checkpoint, epochs
    )
    kinds: tuple[tuple[OutputKind, np.ndarray, list[tuple[bytes, bytes]]], ...] = (
        ("drift", encoded.drift_step, encoded.drift),
        ("recommendation", encoded.recommendation_step, encoded.recommendations),
    )
    for kind, after, messages in kinds:
        for step, (_, value) in zip(after.tolist(), messages, strict=True):
            at, offset = int(batch.steps.event_type[step]), int(batch.steps.offset[step])
            run.outputs[output_id(kind, topics[at], partition, offset, epochs[at])] = value


def records_between(from_ms: int | None, to_ms: int | None) -> Read:
    """Reads the input topics from the first record at or after `from_ms` to the last before the
    first one at or after `to_ms`, by Kafka timestamps; the journal as a whole."""

    def read(settings: Settings, topic: str, partition: int) -> list[Any]:
        if topic not in settings.input_topics:
            return read_records(settings, topic, partition)
        start = 0 if from_ms is None else offset_at(settings, topic, partition, from_ms)
        records: list[Any] = []
        if start is None:
            return records
        with closing(stream_records(settings, topic, partition, start)) as found:
            for record in found:
                if to_ms is not None and record.timestamp >= to_ms:
                    break
                if records or from_ms is None or record.timestamp >= from_ms:
                    records.append(record)
        return records

    return read


def stored_values(settings: Settings, partition: int) -> dict[bytes, bytes]:
    """The last value of every key in a partition of the changelog: rows and markers."""
    values: dict[bytes, bytes] = {}
    for record in stream_records(settings, settings.changelog_topic, partition):
        if record.value is None:
            values.pop(record.key, None)
        else:
            values[record.key] = record.value
    return values


def changelog_markers(settings: Settings, partition: int, read: Read) -> Markers:
    """All markers in a partition of the changelog."""
    found = read(settings, settings.changelog_topic, partition)
    return {
        record.key[len(MARKER_PREFIX) :]: decode_marker(record.value)
        for record in found
        if record.value is not None and is_marker(record.key)
    }


def carried_over(markers: Markers) -> Markers:
    """The markers of users who were erased from other rows, before these were begun."""
    return {key: marker for key, marker in markers.items() if marker.control == CARRIED_OVER}


def stored_rows(settings: Settings, partition: int) -> dict[str, bytes]:
    """The last row of every user in a partition of the changelog."""
    values = stored_values(settings, partition)
    return {key.decode(): value for key, value in values.items() if not is_marker(key)}


def with_worker_settings(checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """The checkpoint with the worker's settings of what is emitted and what expires."""
    return replace(
        checkpoint,
        recommend_every=settings.recommend_every,
        top_k=settings.top_k,
        state_ttl_s=settings.state_ttl_s,
    )


def replay(settings: Settings, checkpoint: Checkpoint) -> Iterator[OfflineRun]:
    """The offline run of each partition in turn."""
    checkpoint = with_worker_settings(checkpoint, settings)
    epochs = topics.epochs(settings)
    for partition in range(settings.partitions):
        yield replay_partition(settings, checkpoint, partition, epochs=epochs)


def verify(settings: Settings, checkpoint: Checkpoint) -> tuple[Comparison, OfflineRun]:
    """Stored rows against the offline run, over all partitions, and that run as a whole.

    Everything has to be there: a topic that has let go of records makes rows differ.
    """
    total = OfflineRun()
    stored: dict[str, bytes] = {}
    for partition, run in enumerate(replay(settings, checkpoint)):
        total.rows.update(run.rows)
        total.outputs.update(run.outputs)
        total.events += run.events
        total.duplicates += run.duplicates
        total.dead_letters.update(run.dead_letters)
        rows = stored_rows(settings, partition)
        stored.update(living(rows, run.swept_ms, checkpoint.hidden))
    return compare(total.rows, stored, checkpoint.hidden), total
