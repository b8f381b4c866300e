"""The walk: what it counts of users who do not come back, and that nothing counts twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.state import new_rows, pack
from stream_app.lane import due_walk
from stream_app.lane.due_walk import DueWalk
from stream_app.lane.merge import NEVER
from stream_app.lane.stored_rows import marker_key, user_hash
from tests.checkpoints import tiny_checkpoint

DAY_S = 86400
START_S = 1_750_000_000


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return replace(tiny_checkpoint(items=8, categories=3), horizon_s=30 * DAY_S)


def stored(checkpoint: Checkpoint, due_days: dict[bytes, float]) -> list[tuple[bytes, bytes]]:
    """Rows whose windows end so many days after the start."""
    rows = new_rows(len(due_days), checkpoint.hidden)
    rows["checkpoint"] = checkpoint.number
    rows["window_due_s"] = [START_S + round(day * DAY_S) for day in due_days.values()]
    rows["window_category"] = [1, 2, 3]
    return list(zip(due_days, pack(rows), strict=True))


def at(day: float) -> int:
    """Event time in milliseconds."""
    return (START_S + round(day * DAY_S)) * 1000


def days_of(due_s: np.ndarray) -> list[float]:
    return ((due_s - START_S) / DAY_S).tolist()


def is_new(walk: DueWalk, key: bytes, day: float) -> bool:
    """Whether a prediction that the user's own event scored is still to be counted."""
    return bool(walk.is_new(np.array([at(day) // 1000]), [key])[0])


def test_a_walk_counts_what_became_due_since_the_last_one(checkpoint: Checkpoint) -> None:
    walk = DueWalk(at(0), checkpoint)
    rows = stored(checkpoint, {b"ann": -1, b"bob": 0.5, b"eve": 0.9, b"sue": 2})
    walk.note(at(0.9))
    assert walk.is_done, "a walk a day"
    walk.note(at(1))
    assert not walk.is_done
    assert days_of(walk.next_due(rows).due_s) == [0.5, 0.9]
    assert walk.is_done
    walk.note(at(2))
    assert days_of(walk.next_due(rows).due_s) == [2.0]
    walk.note(at(3))
    assert len(walk.next_due(rows)) == 0


def test_what_was_due_before_the_takeover_counts_for_neither(checkpoint: Checkpoint) -> None:
    walk = DueWalk(NEVER, checkpoint)
    walk.note(NEVER)
    assert is_new(walk, b"ann", 4), "nothing is known yet"
    walk.note(at(5))
    assert walk.is_done
    assert not is_new(walk, b"ann", 4)
    assert is_new(walk, b"ann", 5.5)


def test_walk_and_events_count_each_prediction_once(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_walk, "WALK_ROWS", 2)
    walk = DueWalk(at(0), checkpoint)
    assert not is_new(walk, b"a", 0)
    assert is_new(walk, b"a", 0.5)
    rows = stored(checkpoint, {b"a": 0.5, b"b": 0.5, b"c": 0.5, b"d": 0.5})
    marker = (marker_key(user_hash("eve")), bytes(64))
    walk.note(at(1))
    assert len(walk.next_due(rows[:2])) == 2
    assert rows[1][0] < walk.position <= rows[2][0]
    # Those behind the walk are counted, those before it are taken out of the rows by the event.
    assert [is_new(walk, key, 0.5) for key, _ in rows] == [False, False, True, True]
    assert is_new(walk, b"a", 1.2), "due after this walk has begun"
    walk.note(at(9))
    assert len(walk.next_due([*rows[3:], marker])) == 1
    assert walk.is_done
    assert not any(is_new(walk, key, 0.5) for key, _ in rows)
    assert is_new(walk, b"a", 1.2)


def test_rows_of_the_first_layout_are_passed_over(checkpoint: Checkpoint) -> None:
    """They are shorter, and keep nothing."""
    walk = DueWalk(at(0), checkpoint)
    walk.note(at(1))
    old = bytearray(pack(new_rows(1, checkpoint.hidden))[0][:-16])
    place = new_rows(1, checkpoint.hidden).dtype.fields["version"][1]
    old[place : place + 2] = b"\x01\0"
    rows = [(b"abe", bytes(old)), *stored(checkpoint, {b"ann": 0.5})]
    assert days_of(walk.next_due(rows).due_s) == [0.5]
