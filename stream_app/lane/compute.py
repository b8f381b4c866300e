"""What batches give: the pure middle of the lane, between the merge and the commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from model.checkpoint import Checkpoint
from model.errors import StateError
from model.events import Source
from model.kept_prediction import Scored
from model.state import StateBatch
from model.together import transition_together
from model.transition import Outputs, Trigger
from stream_app.dead_letters import DeadLetter, dead_letter
from stream_app.errors import StoreError
from stream_app.lane.assemble import Assembled, assemble
from stream_app.lane.commit import Results
from stream_app.lane.merge import TOPICS, Triple
from stream_app.lane.partition import Batch, Refused
from stream_app.lane.scoring import Scorable, scorable
from stream_app.lane.stored_rows import Begun, Markers, begin, end
from stream_app.lane.table import Rows
from stream_app.lane.takeover import other_partitions
from stream_app.metrics import EVENT_TYPES, Metrics
from stream_app.outputs import encode

TRIGGERS = {trigger: trigger.name.lower() for trigger in Trigger}


@dataclass(frozen=True)
class Computed:
    """The results of a batch, and what is counted once they are acknowledged.

    scorable      what the lists of users are scored by; None for a batch without events
    scored        predictions whose window has passed
    scored_users  keys of their users
    """

    results: Results
    batch: Batch
    duplicate: np.ndarray  # (E,) bool
    triggers: Counter[str]
    tested_steps: int = 0
    scorable: Scorable | None = None
    scored: Scored | None = None
    scored_users: Sequence[bytes] = ()

    def count(self, metrics: Metrics, began_at: float, acknowledged_at: float) -> None:
        """Count the batch.

        Args:
            metrics: of the worker.
            began_at: when the batch was begun, in seconds of the wall clock.
            acknowledged_at: when its outputs were acknowledged.
        """
        batch = self.batch
        metrics.batch_events.observe(len(batch.events) + len(batch.refused))
        per_outcome = np.bincount(batch.event_type * 2 + self.duplicate, minlength=TOPICS * 2)
        for topic, name in enumerate(EVENT_TYPES):
            for outcome, number in zip(
                ("applied", "duplicate"), per_outcome[2 * topic :].tolist(), strict=False
            ):
                metrics.events_total.labels(name, outcome).inc(number)
        for refused in batch.refused:
            metrics.events_total.labels(EVENT_TYPES[refused.topic], "dead_letter").inc()
            metrics.dead_letters_total.labels(str(refused.rejection.reason)).inc()
        metrics.rows_written_total.inc(len(self.results.rows))
        metrics.drift_events_total.inc(len(self.results.drift))
        metrics.drift_tested_steps_total.inc(self.tested_steps)
        for trigger, number in self.triggers.items():
            metrics.recommendations_total.labels(trigger).inc(number)
        metrics.observe_latency(
            batch.produced_ms / 1000, batch.fetched_s, began_at, acknowledged_at
        )


@dataclass(frozen=True)
class Todo:
    """A batch that is to be computed, and what it needs of its partition.

    ends      end offsets of the input topics, as far as they are known
    markers   of the users who were erased
    """

    batch: Batch
    partition: int
    ends: Triple
    markers: Markers


@dataclass(frozen=True)
class _Read:
    """A batch with the rows of its users."""

    todo: Todo
    assembled: Assembled
    keys: list[bytes]
    begun: Begun
    source: Source


def compute(
    todos: Sequence[Todo],
    topics: tuple[str, str, str],
    rows: Rows,
    checkpoint: Checkpoint,
    metrics: Metrics,
    dead_letter_max_bytes: int,
) -> list[Computed]:
    """Read the rows of the batches' users, move them, and encode what goes out, in the same order.

    The batches are of different partitions: each gets what it would have got alone.

    Raises:
        StoreError: a stored row does not fit the topics, or is damaged.
    """
    if not any(todo.batch.events for todo in todos):
        return [_without_events(todo, dead_letter_max_bytes) for todo in todos]
    with metrics.time_stage("read"), damage_told():
        read = {
            at: _read(todo, topics, rows, checkpoint)
            for at, todo in enumerate(todos)
            if todo.batch.events
        }
    moved: dict[int, tuple[StateBatch, Outputs]] = {}
    with metrics.time_stage("transition"), damage_told():
        # Sources differ while a journal of other topics is followed.
        for source in dict.fromkeys(one.source for one in read.values()):
            same = [at for at, one in read.items() if one.source == source]
            batches = [(read[at].begun.states, read[at].assembled.steps) for at in same]
            found = transition_together(batches, source, checkpoint)
            moved.update(zip(same, found, strict=True))
    with metrics.time_stage("encode"):
        return [
            _encoded(read[at], *moved[at], topics, checkpoint, dead_letter_max_bytes)
            if at in read
            else _without_events(todo, dead_letter_max_bytes)
            for at, todo in enumerate(todos)
        ]


def _without_events(todo: Todo, dead_letter_max_bytes: int) -> Computed:
    letters = _dead_letters(todo.batch, dead_letter_max_bytes)
    results = Results([], [], letters, [], [], todo.batch.entry.end)
    return Computed(results, todo.batch, np.zeros(0, dtype=bool), Counter())


def _read(todo: Todo, topics: tuple[str, str, str], rows: Rows, checkpoint: Checkpoint) -> _Read:
    batch, entry = todo.batch, todo.batch.entry
    assembled = assemble(batch.events, batch.event_type, batch.offset, checkpoint.vocabulary)
    keys = [user.encode() for user in assembled.users]
    stored = rows.read(todo.partition, keys)
    begun = begin(assembled.users, stored, todo.markers, entry.swept_ms, checkpoint.hidden)
    source = Source(entry.epochs, entry.partitions)
    check_rows(begun.states, source, todo.ends, topics, todo.partition)
    return _Read(todo, assembled, keys, begun, source)


def _encoded(
    read: _Read,
    moved: StateBatch,
    outputs: Outputs,
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
    dead_letter_max_bytes: int,
) -> Computed:
    assembled, batch = read.assembled, read.todo.batch
    kept, stored = end(read.begun, read.keys, moved)
    encoded = encode(
        outputs,
        assembled.steps,
        assembled.users,
        assembled.item_id,
        read.todo.partition,
        topics,
        checkpoint,
        batch.entry.epochs,
    )
    results = Results(
        drift=encoded.drift,
        recommendations=encoded.recommendations,
        dead_letters=_dead_letters(batch, dead_letter_max_bytes),
        keys=kept,
        rows=stored,
        ends=batch.entry.end,
    )
    tested = int(np.count_nonzero(outputs.tested))
    return Computed(
        results,
        batch,
        _duplicates(assembled, outputs),
        _triggers(outputs),
        tested,
        scorable(outputs, assembled.steps, read.keys),
        outputs.scored,
        [read.keys[user] for user in assembled.steps.user[outputs.scored.step].tolist()],
    )


def check_rows(
    states: StateBatch, source: Source, ends: Triple, topics: tuple[str, str, str], partition: int
) -> None:
    """Refuse rows that were made of other topics than these.

    Raises:
        StoreError: a row holds an offset beyond its topic's end, or another partition count.
    """
    counts = states["partitions"]
    other = counts[(counts != 0) & (counts != source.partitions)]
    if len(other):
        raise other_partitions(int(other[0]), source.partitions)
    known = states["epoch"] == np.asarray(source.epochs, dtype=np.uint32)
    highest = np.where(known, states["offset"], -1).max(axis=0)
    for topic, offset, stop in zip(topics, highest.tolist(), ends, strict=True):
        if offset >= stop:
            raise StoreError(
                f"{topic} partition {partition} ends at offset {stop}, but a stored row holds "
                f"offset {offset}: the topic was made anew; rebuild the rows under another "
                "INTEREST_APP_ID."
            )


@contextmanager
def damage_told() -> Iterator[None]:
    """A damaged row stops the worker with the model's sentence."""
    try:
        yield
    except StateError as error:
        raise StoreError(str(error)) from error


def _dead_letters(batch: Batch, max_bytes: int) -> list[DeadLetter]:
    return [_dead_letter(refused, max_bytes) for refused in batch.refused]


def _dead_letter(refused: Refused, max_bytes: int) -> DeadLetter:
    record, rejection = refused.record, refused.rejection
    return dead_letter(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        str(rejection.reason),
        rejection.message,
        max_bytes,
        record.headers,
    )


def _duplicates(assembled: Assembled, outputs: Outputs) -> np.ndarray:
    return np.asarray(outputs.duplicate[assembled.steps.line == 0])


def _triggers(outputs: Outputs) -> Counter[str]:
    return Counter(TRIGGERS[Trigger(number)] for number in outputs.trigger.tolist())
