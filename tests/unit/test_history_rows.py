"""Rows made from a file are those that the lane makes of the same events, however they are cut."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.checkpoint import Checkpoint
from model.event_log import EventLog
from model.events import EventType, Source
from model.state import unpack
from model.transition import transition
from stream_app import history_rows
from stream_app.events import Drift
from stream_app.history import history_of
from stream_app.history_rows import MadeRows, make_rows
from stream_app.lane.compute import Todo, compute
from stream_app.lane.partition import Batch
from stream_app.lane.recovered_rows import NOWHERE, position_of
from stream_app.log_records import log_records
from stream_app.metrics import Metrics
from stream_app.outputs import encode
from stream_app.partitioner import partition_for
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks
from tests.histories import DAY_MS, history_log
from tests.unit.lane_records import TOPICS, FakeRecord, MemoryRows, add, partition

HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")
HIDDEN_TOLERANCE = 0.005
OF_TOPICS = ("offset", "epoch", "unit_offset")
"""Fields of a row that say where its events stand in the topics."""
BATCH_EVENTS = 50


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = tiny_checkpoint(items=40, categories=6)
    return replace(made, drift=replace(made.drift, threshold=1.0), recommend_every=3)


def live_rows(log: EventLog, checkpoint: Checkpoint) -> tuple[dict[bytes, bytes], int]:
    """The rows that the lane makes of the log in one partition, and how many events repeat."""
    records: list[list[FakeRecord]] = [[], [], []]
    for one in log_records(log):
        topic = records[one.event_type]
        name = TOPICS[one.event_type]
        topic.append(FakeRecord(name, 0, len(topic), one.time_ms, one.key, one.value))
    ttl_s = checkpoint.state_ttl_s
    lane = partition(ttl_ms=None if ttl_s is None else 1000 * ttl_s)
    a, b, c = ends = tuple(map(len, records))
    lane.note_ends(ends)
    for kind in EventType:
        add(lane, kind, records[kind])
    store, metrics, repeats = MemoryRows(), Metrics(CollectorRegistry()), 0
    while lane.position != ends:
        batch = lane.next_batch(0.0, 1.0, BATCH_EVENTS)
        assert isinstance(batch, Batch)
        assert not batch.refused
        todo = Todo(batch, 0, (a, b, c), {})
        [made] = asyncio.run(
            compute([todo], TOPICS, store, checkpoint, metrics.time_stage, 900_000)
        )
        store.write(0, made.results.keys, made.results.rows, 0)
        repeats += int(made.duplicate.sum())
    users = list(store.rows)
    last_ms = unpack([store.rows[user] for user in users], checkpoint.hidden)["last_time_ms"]
    living = zip(users, (last_ms >= lane.swept_ms).tolist(), strict=True)
    return {user: store.rows[user] for user, lives in living if lives}, repeats


def made_rows(
    log: EventLog, checkpoint: Checkpoint, partitions: int = 1
) -> tuple[dict[bytes, bytes], list[MadeRows]]:
    history = history_of(log, partitions, checkpoint.vocabulary)
    parts = list(make_rows(history, checkpoint, partitions, BATCH_EVENTS))
    rows = {key: row for part in parts for key, row in zip(part.keys, part.values, strict=True)}
    assert len(rows) == sum(len(part.keys) for part in parts)
    return rows, parts


def assert_equal(
    left: dict[bytes, bytes], right: dict[bytes, bytes], apart_from: tuple[str, ...] = ()
) -> None:
    assert left.keys() == right.keys()
    users = sorted(left)
    a, b = (unpack([rows[user] for user in users], 64) for rows in (left, right))
    for name in a.dtype.names or ():
        if name in HIDDEN_FIELDS:
            gap = np.abs(a[name].astype(np.float64) - b[name].astype(np.float64))
            assert gap.max() < HIDDEN_TOLERANCE, name
        elif name not in apart_from:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rows_are_those_of_the_lane(checkpoint: Checkpoint, seed: int) -> None:
    log = history_log(seed, 900, step_ms=600_000)
    live, repeats = live_rows(log, checkpoint)
    rows, parts = made_rows(log, checkpoint)
    assert_equal(rows, live, OF_TOPICS)
    assert sum(part.repeats for part in parts) == repeats > 0
    assert sum(part.events for part in parts) == len(log.event_ids)
    drifts = unpack(list(rows.values()), checkpoint.hidden)["drifts"]
    assert drifts.sum() > 0


@pytest.mark.parametrize("ttl_s", [3600, 86_400])
def test_rows_expire_as_in_the_lane(checkpoint: Checkpoint, ttl_s: int) -> None:
    # about 900 events of 60 users in 12 hours and in 12 days: users are away for hours and days
    step_ms = 50_000 * ttl_s // 3600
    used = replace(checkpoint, state_ttl_s=ttl_s)
    log = history_log(4, 900, users=60, step_ms=step_ms)
    live, repeats = live_rows(log, used)
    rows, parts = made_rows(log, used)
    assert_equal(rows, live, OF_TOPICS)
    assert sum(part.repeats for part in parts) == repeats
    assert 0 < len(rows) < 60
    counted = unpack(list(rows.values()), used.hidden)["events"].sum()
    assert counted < 900 - repeats  # some begin anew


def test_cuts_and_groups_decide_nothing(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = history_log(5, 1500, users=40)
    whole, _ = made_rows(log, checkpoint, partitions=3)
    monkeypatch.setattr(history_rows, "GROUP_USERS", 7)
    monkeypatch.setattr(history_rows, "BATCH_STEPS", 31)
    cut, parts = made_rows(log, checkpoint, partitions=3)
    assert len(parts) > 40 / 7
    assert_equal(whole, cut)


@pytest.mark.parametrize("ttl_s", [None, 400 * DAY_MS // 1000])
def test_rows_say_that_they_have_applied_nothing_of_the_topics(
    checkpoint: Checkpoint, ttl_s: int | None
) -> None:
    rows, parts = made_rows(
        history_log(6, 300), replace(checkpoint, state_ttl_s=ttl_s), partitions=3
    )
    for part in parts:
        for key, place in zip(part.keys, part.partition.tolist(), strict=True):
            assert place == partition_for(key, 3)
    assert {position_of(row) for row in rows.values()} == {NOWHERE}
    assert set(unpack(list(rows.values()), checkpoint.hidden)["partitions"].tolist()) == {3}


def test_an_event_after_the_file_is_applied_whatever_its_offset(checkpoint: Checkpoint) -> None:
    rows, _ = made_rows(history_log(7, 300), checkpoint)
    states = unpack(list(rows.values()), checkpoint.hidden)
    users = len(states)
    late_ms = int(states["last_time_ms"].max()) + 1000
    events = clicks(list(range(users)), [1 + user % 6 for user in range(users)])
    zero = np.zeros(users, np.int64)
    events = replace(events, offset=zero, time_ms=zero + late_ms)
    for epochs in ((0, 0, 0), (7, 8, 9)):
        moved, out = transition(states, events, Source(epochs, 1), checkpoint)
        assert not out.duplicate.any()
        assert (moved["events"] == states["events"] + 1).all()
        assert (moved["offset"] == (0, -1, -1)).all()
        _, again = transition(moved, events, Source(epochs, 1), checkpoint)
        assert again.duplicate.all()


def test_evidence_names_no_event_of_the_file(checkpoint: Checkpoint) -> None:
    log = history_log(8, 900)
    history = history_of(log, 1, checkpoint.vocabulary)
    quiet = replace(checkpoint, drift=replace(checkpoint.drift, threshold=1e6))
    (part,) = make_rows(history, quiet, 1, BATCH_EVENTS)
    states = unpack(part.values, checkpoint.hidden)
    users = [key.decode() for key in part.keys]
    first_ms = int(states["last_time_ms"].max())
    # each user comes in session after session for one category, until the test sees it
    user = list(range(len(users))) * 15
    events = clicks(user, [1 + one % 6 for one in user], first_offset=1000)
    session = np.arange(len(user)) // len(users)
    events = replace(events, time_ms=first_ms + (1 + session) * DAY_MS)
    _, out = transition(states, events, Source((0, 0, 0), 1), checkpoint)
    encoded = encode(out, events, users, str, 0, TOPICS, checkpoint)
    assert encoded.drift
    found = [msgspec.json.decode(value, type=Drift).evidence for _, value in encoded.drift]
    assert any(found)
    assert any(
        len(evidence) < len(change.evidence)
        for evidence, change in zip(found, out.drifts.changes, strict=True)
    )
    sent = dict(zip(events.offset.tolist(), events.time_ms.tolist(), strict=True))
    for evidence in found:
        for event in evidence:
            assert event.topic == TOPICS[EventType.CLICK]
            assert event.timestamp == sent[event.offset] // 1000 * 1000
