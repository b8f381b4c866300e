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
from model.state import StateBatch, pack, unpack
from model.transition import transition
from stream_app import outputs as output_messages
from stream_app.events import Event, OutputKind, decode_batch, output_id
from stream_app.lane.assemble import assemble
from stream_app.lane.journal import merge_along, read_journal
from stream_app.lane.merge import NEVER
from stream_app.lane.reading import read_records
from stream_app.settings import Settings

BATCH_EVENTS = 4000
HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")


@dataclass
class OfflineRun:
    """What the offline transition gives for one partition.

    rows          row of each user
    outputs       id -> value of every drift event and recommendation
    duplicates    events recognised as repeats
    dead_letters  refused records by reason
    """

    rows: dict[str, bytes] = field(default_factory=dict)
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


def replay_partition(settings: Settings, checkpoint: Checkpoint, partition: int) -> OfflineRun:
    """The offline run of one partition in the order of its journal."""
    run = OfflineRun()
    events: list[list[Event | None]] = []
    offsets, times = [], []
    for event_type, topic in zip(EventType, settings.input_topics, strict=True):
        records = read_records(settings, topic, partition)
        decoded, rejections = decode_batch(
            event_type,
            records,
            partition=partition,
            partitions=settings.partitions,
            future_allowance_ms=settings.future_allowance_ms,
            max_value_bytes=settings.max_event_bytes,
        )
        run.dead_letters.update(str(rejection.reason) for rejection in rejections)
        events.append(decoded)
        offsets.append(np.array([record.offset for record in records], dtype=np.int64))
        times.append(
            np.array([NEVER if e is None else e.timestamp_ms for e in decoded], dtype=np.int64)
        )
    entries = read_journal(settings, partition)
    order = merge_along(entries, offsets, times)
    chosen = [
        (events[t][i], t, int(offsets[t][i]))
        for t, i in zip(order.topic.tolist(), order.index.tolist(), strict=True)
        if events[t][i] is not None
    ]
    source = Source(entries[-1].epochs if entries else (0, 0, 0), settings.partitions)
    for start in range(0, len(chosen), BATCH_EVENTS):
        _apply(run, chosen[start : start + BATCH_EVENTS], source, settings, checkpoint, partition)
    return run


def _apply(
    run: OfflineRun,
    batch: list[tuple[Event | None, int, int]],
    source: Source,
    settings: Settings,
    checkpoint: Checkpoint,
    partition: int,
) -> None:
    made = assemble(
        [event for event, _, _ in batch if event is not None],
        np.array([t for _, t, _ in batch], dtype=np.int64),
        np.array([offset for _, _, offset in batch], dtype=np.int64),
        checkpoint.vocabulary,
    )
    states = unpack([run.rows.get(user) for user in made.users], checkpoint.hidden)
    moved, out = transition(states, made.steps, source, checkpoint)
    run.rows.update(zip(made.users, pack(moved), strict=True))
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


def stored_rows(settings: Settings, partition: int) -> dict[str, bytes]:
    """The last row of every user in a partition of the changelog."""
    rows: dict[str, bytes] = {}
    for record in read_records(settings, settings.changelog_topic, partition):
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


def verify(settings: Settings, checkpoint: Checkpoint) -> tuple[Comparison, OfflineRun]:
    """Stored rows against the offline run, over all partitions, and that run as a whole."""
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
