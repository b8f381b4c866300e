"""What batches give: the pure middle of the lane, between the merge and the commit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate, chain, pairwise

import numpy as np

from model.checkpoint import Checkpoint
from model.errors import StateError
from model.events import Source, taken
from model.kept_prediction import Scored
from model.state import StateBatch, unpack
from model.transition import Outputs, Trigger, transition
from stream_app.dead_letters import DeadLetter, dead_letter
from stream_app.errors import StoreError
from stream_app.lane.assemble import Assembled, assemble
from stream_app.lane.commit import Results
from stream_app.lane.merge import TOPICS, Triple
from stream_app.lane.partition import Batch, Refused
from stream_app.lane.scoring import Scorable, scorable
from stream_app.lane.stored_rows import Begun, Markers, begin_with, end
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
class _Turn:
    """P batches of one source, with the rows of their users.

    keys    (U,) of the users
    states  (U,) their rows
    begun   (P,) the rows by batch
    users   (P,) which users each batch has
    steps   (P,) which steps
    """

    todos: Sequence[Todo]
    assembled: Assembled
    keys: list[bytes]
    states: StateBatch
    begun: list[Begun]
    users: list[slice]
    steps: list[slice]


async def compute(
    todos: Sequence[Todo],
    topics: tuple[str, str, str],
    rows: Rows,
    checkpoint: Checkpoint,
    stage: Callable[[str], AbstractContextManager[None]],
    dead_letter_max_bytes: int,
) -> list[Computed]:
    """Read the rows of the batches' users, move them, and encode what goes out, in the same order.

    The batches are of different partitions: each gets what it would have got alone, and what a
    stage costs by itself is paid once. Between the stages, which `stage` times, the event loop goes
    on.

    Raises:
        StoreError: a stored row does not fit the topics, or is damaged.
    """
    found: dict[int, Computed] = {}
    sources: dict[Source, list[int]] = {}  # several while a journal of other topics is followed
    for at, todo in enumerate(todos):
        if todo.batch.events:
            entry = todo.batch.entry
            sources.setdefault(Source(entry.epochs, entry.partitions), []).append(at)
        else:
            found[at] = _without_events(todo, dead_letter_max_bytes)
    for source, places in sources.items():
        with stage("read"), damage_told():
            turn = _read([todos[at] for at in places], source, topics, rows, checkpoint)
        await asyncio.sleep(0)
        with stage("transition"), damage_told():
            moved, outputs = transition(turn.states, turn.assembled.steps, source, checkpoint)
        await asyncio.sleep(0)
        with stage("encode"):
            computed = _encoded(
                turn, moved, outputs, source, topics, checkpoint, dead_letter_max_bytes
            )
        found.update(zip(places, computed, strict=True))
    return [found[at] for at in range(len(todos))]


def _without_events(todo: Todo, dead_letter_max_bytes: int) -> Computed:
    letters = _dead_letters(todo.batch, dead_letter_max_bytes)
    results = Results([], [], letters, [], [], todo.batch.entry.end)
    return Computed(results, todo.batch, np.zeros(0, dtype=bool), Counter())


def _read(
    todos: Sequence[Todo],
    source: Source,
    topics: tuple[str, str, str],
    rows: Rows,
    checkpoint: Checkpoint,
) -> _Turn:
    batches = [todo.batch for todo in todos]
    first_event = list(accumulate((len(batch.events) for batch in batches), initial=0))
    assembled = assemble(
        list(chain.from_iterable(batch.events for batch in batches)),
        np.concatenate([batch.event_type for batch in batches]),
        np.concatenate([batch.offset for batch in batches]),
        checkpoint.vocabulary,
        first_event[:-1],
    )
    users = [slice(*pair) for pair in pairwise(assembled.first_user)]
    first_step = np.searchsorted(assembled.event, first_event).tolist()
    keys = [user.encode() for user in assembled.users]
    stored: list[bytes | None] = []
    for todo, own in zip(todos, users, strict=True):
        stored += rows.read(todo.partition, keys[own])
    states = unpack(stored, checkpoint.hidden)
    begun = []
    for todo, own in zip(todos, users, strict=True):
        names, swept_ms = assembled.users[own], todo.batch.entry.swept_ms
        begun.append(begin_with(states[own], names, todo.markers, swept_ms, checkpoint.hidden))
        check_rows(states[own], source, todo.ends, topics, todo.partition)
    steps = [slice(*pair) for pair in pairwise(first_step)]
    return _Turn(todos, assembled, keys, states, begun, users, steps)


def _encoded(
    turn: _Turn,
    moved: StateBatch,
    outputs: Outputs,
    source: Source,
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
    dead_letter_max_bytes: int,
) -> list[Computed]:
    """What each batch gives, (P,)."""
    assembled = turn.assembled
    encoded = encode(
        outputs,
        assembled.steps,
        assembled.users,
        assembled.item_id,
        [
            todo.partition
            for todo, own in zip(turn.todos, turn.users, strict=True)
            for _ in range(own.start, own.stop)
        ],
        topics,
        checkpoint,
        source.epochs,
    )
    sample = scorable(outputs, assembled.steps, turn.keys)
    scored_keys = [turn.keys[user] for user in assembled.steps.user[outputs.scored.step].tolist()]
    is_event = assembled.steps.line == 0
    found = []
    for todo, begun, users, steps in zip(
        turn.todos, turn.begun, turn.users, turn.steps, strict=True
    ):
        drift, lists, scored = (
            slice(*np.searchsorted(at, [steps.start, steps.stop]).tolist())
            for at in (encoded.drift_step, encoded.recommendation_step, outputs.scored.step)
        )
        due = taken(outputs.scored, scored)
        keys, stored = end(begun, turn.keys[users], moved[users])
        found.append(
            Computed(
                Results(
                    drift=encoded.drift[drift],
                    recommendations=encoded.recommendations[lists],
                    dead_letters=_dead_letters(todo.batch, dead_letter_max_bytes),
                    keys=keys,
                    rows=stored,
                    ends=todo.batch.entry.end,
                ),
                todo.batch,
                outputs.duplicate[steps][is_event[steps]],
                Counter(TRIGGERS[Trigger(number)] for number in outputs.trigger[lists].tolist()),
                int(np.count_nonzero(outputs.tested[steps])),
                sample.between(users, steps),
                replace(due, step=due.step - steps.start),
                scored_keys[scored],
            )
        )
    return found


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
