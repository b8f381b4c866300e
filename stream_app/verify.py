"""Replays the input topics through the offline transition and compares with the stored rows.

The offline run takes the events in the order of the journal, with the very functions that the
worker uses; what it gives must stand in the changelog and on the output topics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventBatch, EventType, Source
from model.state import StateBatch, unpack
from model.transition import transition
from stream_app import outputs as output_messages
from stream_app import topics
from stream_app.events import Event, OutputKind, decode_batch, output_id
from stream_app.lane.assemble import assemble
from stream_app.lane.erasure import is_done, marker_of
from stream_app.lane.journal import JournalEntry, merge_along, read_journal
from stream_app.lane.merge import NEVER
from stream_app.lane.reading import read_records
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
HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")


@dataclass
class OfflineRun:
    """What the offline transition gives for one partition.

    rows          row of each user
    markers       what is left of the users who were erased
    swept_ms      rows whose last event is older have expired
    outputs       id -> value of every drift event and recommendation
    duplicates    events recognised as repeats
    dead_letters  refused records by reason
    """

    rows: dict[str, bytes] = field(default_factory=dict)
    markers: Markers = field(default_factory=dict)
    swept_ms: int = NEVER
    outputs: dict[str, bytes] = field(default_factory=dict)
    events: int = 0
    duplicates: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Comparison:
    """Stored rows against the offline rows, over all partitions.

    hidden_difference   largest absolute difference of a hidden, cell or anchor state
    differing           users whose counts, offsets or decisions are not equal, or who are missing
    events              sum of the applied events of the stored rows
    """

    users: int
    events: int
    hidden_difference: float
    differing: list[str]

    @property
    def exact(self) -> bool:
        """True when counts, offsets and decisions of all rows are equal."""
        return not self.differing


def replay_partition(
    settings: Settings, checkpoint: Checkpoint, partition: int, now_ms: int
) -> OfflineRun:
    """The offline run of one partition in the order of its journal.

    now_ms is the time that "in the future" is judged by.
    """
    run = OfflineRun(markers=carried_over(settings, partition))
    events: list[list[Event | None]] = []
    offsets, times = [], []
    for event_type, topic in zip(EventType, settings.input_topics, strict=True):
        records = read_records(settings, topic, partition)
        decoded, rejections = decode_batch(
            event_type,
            records,
            partition=partition,
            partitions=settings.partitions,
            now_ms=now_ms,
            future_allowance_ms=settings.future_allowance_ms,
            max_value_bytes=settings.max_event_bytes,
        )
        run.dead_letters.update(str(rejection.reason) for rejection in rejections)
        events.append(decoded)
        offsets.append(np.array([record.offset for record in records], dtype=np.int64))
        times.append(
            np.array([NEVER if e is None else e.timestamp_ms for e in decoded], dtype=np.int64)
        )
    known = topics.epochs(settings)
    entries = [entry.under(known) for entry in read_journal(settings, partition)]
    order = merge_along(entries, offsets, times)
    records = list(zip(order.topic.tolist(), order.index.tolist(), strict=True))
    bounds = np.searchsorted(order.entry, np.arange(len(entries) + 1)).tolist()
    waiting: list[Applied] = []
    for number, entry in enumerate(entries):
        for t, i in records[bounds[number] : bounds[number + 1]]:
            event = events[t][i]
            if event is not None:
                waiting.append((event, t, int(offsets[t][i])))
        following = entries[number + 1] if number + 1 < len(entries) else None
        if following is None or not _go_together(entry, following) or len(waiting) >= BATCH_EVENTS:
            _apply(run, waiting, entry, settings, checkpoint, partition)
            waiting = []
        if entry.is_erasure:
            _erase(run, entry)
        run.swept_ms = entry.swept_ms
    for user, row in list(run.rows.items()):
        if has_expired(row, run.swept_ms, checkpoint.hidden):
            del run.rows[user]
    return run


Applied = tuple[Event, int, int]
"""An event, its EventType and its offset."""


def _go_together(entry: JournalEntry, following: JournalEntry) -> bool:
    """Whether two batches may be applied as one: a row does not depend on where they are cut.

    Offsets must rise within one, or else those of a gap would not be recognised as applied.
    """
    return (
        not entry.is_erasure
        and entry.between == following.between
        and not following.is_erasure
        and entry.swept_ms == following.swept_ms
        and entry.epochs == following.epochs
    )


def _erase(run: OfflineRun, entry: JournalEntry) -> None:
    if is_done(entry, run.markers):
        return
    for user in [user for user in run.rows if user_hash(user) == entry.erased]:
        del run.rows[user]
    run.markers[entry.erased] = marker_of(entry, 0)


def _apply(
    run: OfflineRun,
    batch: list[Applied],
    entry: JournalEntry,
    settings: Settings,
    checkpoint: Checkpoint,
    partition: int,
) -> None:
    if not batch:
        return
    made = assemble(
        [event for event, _, _ in batch],
        np.array([t for _, t, _ in batch], dtype=np.int64),
        np.array([offset for _, _, offset in batch], dtype=np.int64),
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
    encoded = output_messages.encode(
        out, made.steps, made.users, partition, settings.input_topics, checkpoint
    )
    _note(run, "drift", encoded.drift_step, encoded.drift, made.steps, settings, partition)
    given = encoded.recommendations
    _note(
        run, "recommendation", encoded.recommendation_step, given, made.steps, settings, partition
    )


def _note(
    run: OfflineRun,
    kind: OutputKind,
    after: np.ndarray,
    messages: list[tuple[bytes, bytes]],
    steps: EventBatch,
    settings: Settings,
    partition: int,
) -> None:
    for step, (_, value) in zip(after.tolist(), messages, strict=True):
        topic = settings.input_topics[int(steps.event_type[step])]
        run.outputs[output_id(kind, topic, partition, int(steps.offset[step]))] = value


def stored_values(settings: Settings, partition: int) -> dict[bytes, bytes]:
    """The last value of every key in a partition of the changelog: rows and markers."""
    values: dict[bytes, bytes] = {}
    for record in read_records(settings, settings.changelog_topic, partition):
        if record.value is None:
            values.pop(record.key, None)
        else:
            values[record.key] = record.value
    return values


def carried_over(settings: Settings, partition: int) -> Markers:
    """The markers of users who were erased from other rows, before these were begun."""
    found = read_records(settings, settings.changelog_topic, partition)
    markers = {
        record.key[len(MARKER_PREFIX) :]: decode_marker(record.value)
        for record in found
        if record.value is not None and is_marker(record.key)
    }
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


def replay(settings: Settings, checkpoint: Checkpoint, now_ms: int) -> Iterator[OfflineRun]:
    """The offline run of each partition in turn."""
    checkpoint = with_worker_settings(checkpoint, settings)
    for partition in range(settings.partitions):
        yield replay_partition(settings, checkpoint, partition, now_ms)


def compare(offline: dict[str, bytes], stored: dict[str, bytes], hidden_size: int) -> Comparison:
    """Rows by user: hidden states by their difference, everything else to the last bit."""
    users = sorted({*offline, *stored})
    differing = [user for user in users if (user in offline) != (user in stored)]
    both = [user for user in users if user in offline and user in stored]
    left = unpack([offline[user] for user in both], hidden_size)
    right = unpack([stored[user] for user in both], hidden_size)
    unequal, largest = _differences(left, right)
    differing += [user for user, wrong in zip(both, unequal.tolist(), strict=True) if wrong]
    return Comparison(
        users=len(users),
        events=int(unpack(list(stored.values()), hidden_size)["events"].sum()),
        hidden_difference=largest,
        differing=differing,
    )


def _differences(left: StateBatch, right: StateBatch) -> tuple[np.ndarray, float]:
    unequal = np.zeros(len(left), dtype=bool)
    largest = 0.0
    for name in left.dtype.names or ():
        if name in HIDDEN_FIELDS:
            gap = np.abs(left[name].astype(np.float64) - right[name].astype(np.float64))
            largest = max(largest, float(gap.max(initial=0.0)))
        else:
            same = left[name] == right[name]
            unequal |= ~same.reshape(len(left), -1).all(1)
    return unequal, largest


def verify(
    settings: Settings, checkpoint: Checkpoint, now_ms: int
) -> tuple[Comparison, OfflineRun]:
    """Stored rows against the offline run, over all partitions, and that run as a whole."""
    total = OfflineRun()
    stored: dict[str, bytes] = {}
    for partition, run in enumerate(replay(settings, checkpoint, now_ms)):
        total.rows.update(run.rows)
        total.outputs.update(run.outputs)
        total.events += run.events
        total.duplicates += run.duplicates
        total.dead_letters.update(run.dead_letters)
        for user, row in stored_rows(settings, partition).items():
            if not has_expired(row, run.swept_ms, checkpoint.hidden):
                stored[user] = row
    return compare(total.rows, stored, checkpoint.hidden), total
