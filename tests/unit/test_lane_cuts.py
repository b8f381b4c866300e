"""The lane without Kafka: one log, cut and delivered at random, gives the same rows and outputs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import unpack
from stream_app.lane import scoring
from stream_app.lane.compute import Computed, Todo, compute
from stream_app.lane.partition import Batch
from stream_app.lane.table import Rows
from stream_app.metrics import Metrics
from tests.checkpoints import tiny_checkpoint
from tests.unit.lane_records import TOPICS, FakeRecord, MemoryRows, add, broken, partition, record

HIDDEN_TOLERANCE = 0.005
HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")
EVENTS = 400
USERS = 12


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(items=40, categories=6)


def make_log(seed: int) -> list[list[FakeRecord]]:
    """Records of the three topics: late ones, broken ones, and ids that come again."""
    rng = np.random.default_rng(seed)
    log: list[list[FakeRecord]] = [[], [], []]
    for time_s in range(EVENTS):
        kind = EventType(int(rng.choice(3, p=[0.7, 0.15, 0.15])))
        offset = len(log[kind])
        late_s = int(rng.integers(0, 50)) if rng.random() < 0.1 else 0
        user = f"user-{rng.integers(USERS)}"
        if rng.random() < 0.05:
            log[kind].append(broken(kind, offset))
        elif rng.random() < 0.05 and offset:
            log[kind].append(log[kind][-1]._replace(offset=offset))  # a producer's retry
        else:
            log[kind].append(record(kind, offset, 100 + time_s - late_s, user))
    return log


def compute_now(
    todos: Sequence[Todo], rows: Rows, checkpoint: Checkpoint, metrics: Metrics
) -> list[Computed]:
    """A turn, with no other task beside it."""
    return asyncio.run(compute(todos, TOPICS, rows, checkpoint, metrics.time_stage, 900_000))


class Run:
    """What a run of the lane has left: rows, outputs by id, dead letters."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.store = MemoryRows()
        self.outputs: dict[str, bytes] = {}
        self.dead_letters: list[tuple[bytes | None, bytes | None]] = []
        self.duplicates = 0
        self._checkpoint = checkpoint
        self._metrics = Metrics(CollectorRegistry())

    def apply(self, batch: Batch, ends: tuple[int, int, int]) -> Computed:
        todo = Todo(batch, 0, ends, {})
        [computed] = compute_now([todo], self.store, self._checkpoint, self._metrics)
        results = computed.results
        for _, value in [*results.drift, *results.recommendations]:
            self.outputs[json.loads(value)["id"]] = value
        self.dead_letters += [(letter.key, letter.value) for letter in results.dead_letters]
        self.duplicates += int(computed.duplicate.sum())
        self.store.write(0, results.keys, results.rows, 0)
        computed.count(self._metrics, 0.0, 0.0)
        return computed


def run(
    log: list[list[FakeRecord]], checkpoint: Checkpoint, rng: np.random.Generator | None
) -> Run:
    """Delivers and cuts the log at random; all at once without a generator."""
    out, lane = Run(checkpoint), partition()
    a, b, c = map(len, log)
    lane.note_ends([a, b, c])
    given = [0, 0, 0]
    while lane.position != (a, b, c):
        for topic in EventType:
            count = len(log[topic]) if rng is None else int(rng.integers(0, 60))
            part = log[topic][given[topic] : given[topic] + count]
            if part:
                add(lane, topic, part)
                given[topic] += len(part)
        limit = EVENTS if rng is None else int(rng.integers(1, 90))
        batch = lane.next_batch(0.0, 1.0, limit)
        if isinstance(batch, Batch):
            out.apply(batch, (a, b, c))
    return out


def assert_equal(one: MemoryRows, other: MemoryRows, checkpoint: Checkpoint) -> None:
    """The rows are the same, hidden states within what float16 may differ by."""
    assert one.rows.keys() == other.rows.keys()
    users = sorted(other.rows)
    left = unpack([other.rows[user] for user in users], checkpoint.hidden)
    right = unpack([one.rows[user] for user in users], checkpoint.hidden)
    for name in left.dtype.names or ():
        if name in HIDDEN_FIELDS:
            gap = np.abs(left[name].astype(np.float64) - right[name].astype(np.float64))
            assert (gap < HIDDEN_TOLERANCE).all()
        else:
            assert np.array_equal(left[name], right[name]), name


@given(st.integers(0, 2), st.integers(0, 10_000))
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_and_outputs_do_not_depend_on_the_cuts(
    checkpoint: Checkpoint, log_seed: int, cut_seed: int
) -> None:
    log = make_log(log_seed)
    whole = run(log, checkpoint, None)
    cut = run(log, checkpoint, np.random.default_rng(cut_seed))

    assert_equal(cut.store, whole.store, checkpoint)
    assert cut.outputs.keys() == whole.outputs.keys()
    assert cut.dead_letters == whole.dead_letters
    assert cut.duplicates == whole.duplicates > 0


def test_a_log_applied_again_changes_nothing_but_sends_nothing_new(checkpoint: Checkpoint) -> None:
    log = make_log(5)
    out = run(log, checkpoint, None)
    rows, outputs = dict(out.store.rows), dict(out.outputs)
    lane = partition()
    for topic in EventType:
        add(lane, topic, log[topic])
    batch = lane.next_batch(0.0, 1.0, EVENTS)
    assert isinstance(batch, Batch)
    computed = out.apply(batch, lane.position)
    assert computed.duplicate.all()
    assert out.store.rows == rows
    assert out.outputs == outputs


class Stores:
    """A store per partition: the same users in each, as no worker has them."""

    def __init__(self, partitions: int) -> None:
        self.of = [MemoryRows() for _ in range(partitions)]

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        return self.of[partition].read(partition, keys)

    def write(
        self,
        partition: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        changelog_offset: int,
    ) -> None:
        self.of[partition].write(partition, keys, rows, changelog_offset)


def test_batches_computed_together_give_what_each_gives_alone(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition has other epochs, and one batch no event at all."""
    monkeypatch.setattr(scoring, "USER_SAMPLE", 2)
    checkpoint = replace(checkpoint, horizon_s=50)
    partitions = 4
    lanes = [partition() for _ in range(partitions)]
    for number, lane in enumerate(lanes):
        lane.epochs = (7, 7, 7) if number == 2 else (1, 2, 3)
        log = make_log(number)
        if number == 3:
            log = [[broken(EventType.CLICK, offset) for offset in range(40)], [], []]
        a, b, c = map(len, log)
        lane.note_ends([a, b, c])
        for topic in EventType:
            if log[topic]:
                add(lane, topic, log[topic])
    metrics = Metrics(CollectorRegistry())
    together, alone = Stores(partitions), Stores(partitions)
    seen = Counter[str]()
    for limit in (1, 40, 7, 200, 25):
        todos = []
        for number, lane in enumerate(lanes):
            batch = lane.next_batch(0.0, 0.0, limit)
            if isinstance(batch, Batch):
                todos.append(Todo(batch, number, lane.ends, {}))
        found = compute_now(todos, together, checkpoint, metrics)
        assert [one.batch for one in found] == [todo.batch for todo in todos]
        for todo, one in zip(todos, found, strict=True):
            [by_itself] = compute_now([todo], alone, checkpoint, metrics)
            left, right = one.results, by_itself.results
            assert left.keys == right.keys
            assert left.dead_letters == right.dead_letters
            assert left.ends == right.ends
            assert ids(left.drift) == ids(right.drift)
            assert ids(left.recommendations) == ids(right.recommendations)
            assert np.array_equal(one.duplicate, by_itself.duplicate)
            assert one.triggers == by_itself.triggers
            assert one.tested_steps == by_itself.tested_steps
            assert one.scored_users == by_itself.scored_users
            for ours, theirs in (
                (one.scorable, by_itself.scorable),
                (one.scored, by_itself.scored),
            ):
                assert_arrays_equal(ours, theirs)
            seen["scorable"] += 0 if one.scorable is None else len(one.scorable.item)
            seen["scored"] += 0 if one.scored is None else len(one.scored)
            together.write(todo.partition, left.keys, left.rows, 0)
            alone.write(todo.partition, right.keys, right.rows, 0)
            seen["drift"] += len(left.drift)
            seen["recommendations"] += len(left.recommendations)
            seen["duplicates"] += int(one.duplicate.sum())
            seen["letters"] += len(left.dead_letters)
    for one_store, other in zip(together.of, alone.of, strict=True):
        assert_equal(one_store, other, checkpoint)
    counted = ("recommendations", "duplicates", "letters", "scorable", "scored")
    assert min(seen[name] for name in counted) > 0


def assert_arrays_equal(one: Any, other: Any) -> None:
    """Two dataclasses of arrays, or of lists, or None."""
    assert type(one) is type(other)
    for field in fields(one) if one is not None else ():
        np.testing.assert_array_equal(
            getattr(one, field.name), getattr(other, field.name), err_msg=field.name
        )


def ids(messages: Sequence[tuple[bytes, bytes | None]]) -> list[tuple[bytes, str, str]]:
    """Key, id and user of each message, in order."""
    read = [(key, json.loads(value)) for key, value in messages if value is not None]
    return [(key, one["id"], one["user_id"]) for key, one in read]
