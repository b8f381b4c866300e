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
from model.events import EventBatch, EventType, Source
from model.state import pack, unpack
from model.transition import transition
from stream_app import outputs as output_messages
from stream_app.comparison import Comparison, Coverage, compare
from stream_app.events import Event, OutputKind, decode_batch, output_id
from stream_app.lane.assemble import assemble
from stream_app.lane.journal import JournalEntry, chain, decode, merge_along, topic_name
from stream_app.lane.merge import NEVER
from stream_app.lane.reading import offset_at, read_records, stream_records
from stream_app.settings import Settings

BATCH_EVENTS = 4000
NO_EPOCHS = (0, 0, 0)

Read = Callable[[Settings, str, int], Sequence[Any]]
"""Reads records of a partition of a topic, oldest first and without a gap."""


@dataclass
class OfflineRun:
    """What the offline transition gives for one partition.

    rows          row of each user
    outputs       id -> value of every drift event and recommendation
    duplicates    events recognised as repeats
    dead_letters  refused records by reason
    coverage      the part of the partition's history that was replayed
    """

    rows: dict[str, bytes] = field(default_factory=dict)
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
) -> OfflineRun:
    """The offline run of one partition in the order of its journal.

    Batches of which records are missing, because they are outside of a range or the topic has let
    go of them, are left out; the run's coverage says so.

    Args:
        read: reads the input topics and the journal.
        with_outputs: false leaves the outputs out.
    """
    run = OfflineRun()
    inputs = read_inputs(settings, partition, read)
    entries, run.coverage = read_entries(settings, partition, read, inputs)
    epochs = entries[0].epochs if entries else NO_EPOCHS
    waiting: list[Applied] = []

    def catch_up() -> None:
        source = Source(epochs, settings.partitions)
        for start in range(0, len(waiting), BATCH_EVENTS):
            made = apply(run, waiting[start : start + BATCH_EVENTS], source, checkpoint)
            if with_outputs:
                _note_outputs(run, made, partition, settings, checkpoint)
        waiting.clear()

    for entry in entries:
        if entry.epochs != epochs or len(waiting) >= BATCH_EVENTS:
            catch_up()
            epochs = entry.epochs
        applied, refused = inputs.of(entry)
        waiting += applied  # the cut into batches decides nothing: small ones go together
        run.dead_letters.update(refused)
    catch_up()
    return run


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
    settings: Settings, partition: int, read: Read, inputs: Inputs
) -> tuple[list[JournalEntry], Coverage]:
    """The batches of the journal whose records are all at hand, and how much of it they are."""
    records = read(settings, topic_name(settings), partition)
    entries = chain(decode(record.value) for record in records)
    held = [entry for entry in entries if inputs.hold(entry)]
    # A journal that has let go of records no longer tells where it began.
    from_beginning = bool(held) and held[0] is entries[0] and records[0].offset == 0
    return held, Coverage(from_beginning, held[-1].end if held else (0, 0, 0))


@dataclass(frozen=True)
class _Made:
    out: Any
    steps: EventBatch
    users: list[str]


def apply(
    run: OfflineRun, batch: Sequence[Applied], source: Source, checkpoint: Checkpoint
) -> _Made:
    """Move the rows of a run by events in their order."""
    made = assemble(
        [one.event for one in batch],
        np.array([one.topic for one in batch], dtype=np.int64),
        np.array([one.offset for one in batch], dtype=np.int64),
        checkpoint.vocabulary,
    )
    states = unpack([run.rows.get(user) for user in made.users], checkpoint.hidden)
    moved, out = transition(states, made.steps, source, checkpoint)
    run.rows.update(zip(made.users, pack(moved), strict=True))
    run.events += len(batch)
    run.duplicates += int(out.duplicate[made.steps.line == 0].sum())
    return _Made(out, made.steps, made.users)


def _note_outputs(
    run: OfflineRun, made: _Made, partition: int, settings: Settings, checkpoint: Checkpoint
) -> None:
    encoded = output_messages.encode(
        made.out, made.steps, made.users, partition, settings.input_topics, checkpoint
    )
    kinds: tuple[tuple[OutputKind, np.ndarray, list[tuple[bytes, bytes]]], ...] = (
        ("drift", encoded.drift_step, encoded.drift),
        ("recommendation", encoded.recommendation_step, encoded.recommendations),
    )
    for kind, after, messages in kinds:
        for step, (_, value) in zip(after.tolist(), messages, strict=True):
            topic = settings.input_topics[int(made.steps.event_type[step])]
            offset = int(made.steps.offset[step])
            run.outputs[output_id(kind, topic, partition, offset)] = value


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


def stored_rows(settings: Settings, partition: int) -> dict[str, bytes]:
    """The last row of every user in a partition of the changelog."""
    rows: dict[str, bytes] = {}
    for record in stream_records(settings, settings.changelog_topic, partition):
        key = record.key.decode()
        if record.value is None:
            rows.pop(key, None)
        else:
            rows[key] = record.value
    return rows


def with_worker_settings(checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """The checkpoint with the emission settings of the worker."""
    return replace(checkpoint, recommend_every=settings.recommend_every, top_k=settings.top_k)


def replay(settings: Settings, checkpoint: Checkpoint) -> Iterator[OfflineRun]:
    """The offline run of each partition in turn."""
    checkpoint = with_worker_settings(checkpoint, settings)
    for partition in range(settings.partitions):
        yield replay_partition(settings, checkpoint, partition)


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
        stored.update(stored_rows(settings, partition))
    return compare(total.rows, stored, checkpoint.hidden), total
