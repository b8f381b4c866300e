"""A row without its last steps is the row that was there before them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model import drift, interests
from model.checkpoint import Checkpoint
from model.earlier import without_last
from model.events import EventBatch, EventType, Source
from model.state import RECENT, UNITS, StateBatch, new_rows, unpack
from model.transition import moved_rows
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, random_log

DAY_S = 86_400


@pytest.fixture(scope="module", params=[1.0, 0.2])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """A category's later steps in a session count as much as the first, or less."""
    made = tiny_checkpoint(categories=6, items=60)
    statistics = replace(made.statistics, repeat_weight=np.array([request.param]))
    return replace(made, statistics=statistics, drift=replace(made.drift, threshold=3.0))


def history(log: EventBatch, checkpoint: Checkpoint) -> list[StateBatch]:
    """The row of the one user before the log, and after each event of it."""
    rows = [new_rows(1, checkpoint.hidden)]
    ends = np.flatnonzero(log.last_line) + 1
    for start, end in zip([0, *ends.tolist()], ends.tolist(), strict=False):
        moved, _ = moved_rows(rows[-1], log.take(slice(start, end)), Source(), checkpoint)
        rows.append(moved)
    return rows


def reach(rows: StateBatch) -> int:
    steps = int(rows["steps"][0])
    return (steps - 1) % RECENT + 1 if steps else 0


def kept_steps(rows: StateBatch, count: int) -> list[tuple[int, ...]]:
    """Item, time, category and kind of the last steps, the latest first."""
    steps = int(rows["steps"][0])
    places = [step % RECENT for step in range(steps - 1, steps - 1 - count, -1)]
    names = ("recent_item", "recent_time_s", "recent_category", "recent_kind")
    return [tuple(int(rows[name][0, place]) for name in names) for place in places]


def counts(rows: StateBatch, now_s: int, checkpoint: Checkpoint) -> dict[int, list[float]]:
    """Decayed counts by category."""
    half_life_s = checkpoint.statistics.half_life_s
    found = interests.decayed_counts(rows, np.array([now_s]), half_life_s)[0]
    held = np.flatnonzero(rows["slot_category"][0])
    return {int(rows["slot_category"][0, slot]): found[:, slot].tolist() for slot in held}


def statistic(rows: StateBatch, checkpoint: Checkpoint) -> float:
    fields = {name: rows[name] for name in rows.dtype.names or ()}
    return float(drift.check(fields, np.array([0]), checkpoint)[1][0])


def test_clicks_are_left_out_to_the_last_bit(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(1)
    category = rng.integers(1, 5, 45).tolist()
    log = clicks([0] * 45, category, 3600, rng.integers(1, 60, 45).tolist())
    quiet = replace(checkpoint, drift=replace(checkpoint.drift, threshold=1e9))
    rows = history(log, quiet)
    for steps in (1, 5, 16, 17, 31, 45):
        for count in range(1, RECENT + 1):
            left_out = min(count, reach(rows[steps]))
            found, told = without_last(rows[steps], count, quiet)
            true = rows[steps - left_out]
            assert told == left_out
            for name in ("h", "c", "steps", "events", "last_time_ms", "drift_steps", "drifts"):
                np.testing.assert_array_equal(found[name], true[name], err_msg=name)
            kept = min(RECENT - left_out, steps - left_out)
            assert kept_steps(found, kept) == kept_steps(true, kept)
            now_s = int(true["last_time_ms"][0]) // 1000
            left, right = counts(found, now_s, quiet), counts(true, now_s, quiet)
            assert left.keys() == right.keys()
            for one in left:
                np.testing.assert_allclose(left[one], right[one], atol=0.03)
            if rows[steps]["units"][0] <= UNITS:
                assert statistic(found, quiet) == statistic(true, quiet)


def test_all_that_is_behind_the_anchor_can_be_left_out(checkpoint: Checkpoint) -> None:
    rows = history(clicks([0] * 32, [1, 2] * 16, 3600), checkpoint)
    found, told = without_last(rows[32], 99, checkpoint)
    assert told == 16
    np.testing.assert_array_equal(found["h"], rows[16]["h"])
    assert found["steps"] == 16
    assert not found["recent_item"].any()
    one, told = without_last(rows[17], 2, checkpoint)
    assert told == 1
    np.testing.assert_array_equal(one["h"], rows[16]["h"])


def test_without_all_its_steps_a_row_is_new(checkpoint: Checkpoint) -> None:
    rows = history(clicks([0] * 9, [3] * 9, 3600), checkpoint)
    found, told = without_last(rows[9], 16, checkpoint)
    assert told == 9
    for name in (
        "h",
        "c",
        "steps",
        "events",
        "slot_category",
        "slot_count",
        "units",
        "recent_item",
    ):
        assert not found[name].any(), name
    same, told = without_last(new_rows(1, checkpoint.hidden), 3, checkpoint)
    assert told == 0
    assert same.tobytes() == new_rows(1, checkpoint.hidden).tobytes()


def test_the_given_row_stays_and_the_found_one_is_sound(checkpoint: Checkpoint) -> None:
    rows = history(clicks([0] * 40, [1, 2, 3, 4] * 10, 7 * DAY_S), checkpoint)[40]
    before = rows.tobytes()
    for count in range(1, RECENT + 1):
        found, _ = without_last(rows, count, checkpoint)
        unpack([found.tobytes()], checkpoint.hidden)  # raises where a field is out of bounds
    assert rows.tobytes() == before


def test_an_alarm_among_the_steps_is_taken_back(checkpoint: Checkpoint) -> None:
    log = clicks([0] * 44, [1] * 28 + [2] * 16, 3600)
    rows = history(log, checkpoint)
    drifts = [int(row["drifts"][0]) for row in rows]
    at = drifts.index(1)  # the first event after which the test has raised an alarm
    assert at > 28
    after = rows[at + 1]
    still, _ = without_last(after, 1, checkpoint)
    assert still["drifts"] == 1
    assert still["drift_time_s"] == after["drift_time_s"]
    assert statistic(still, checkpoint) == statistic(rows[at], checkpoint)
    gone, told = without_last(after, 2, checkpoint)
    assert told == 2
    assert gone["drifts"] == 0
    assert gone["drift_time_s"] == 0
    assert statistic(gone, checkpoint) == -np.inf


def test_events_of_all_kinds_are_taken_back_whole(checkpoint: Checkpoint) -> None:
    """The log has purchases of several lines and searches with words, which a row does not keep."""
    log = random_log(3, 100, 1, checkpoint)
    assert set(log.event_type.tolist()) == set(EventType)
    rows = history(log, checkpoint)
    lines = np.diff([int(row["steps"][0]) for row in rows])
    compared = 0
    for after in range(20, len(rows)):
        for back in (1, 2, 3):
            count = int(lines[after - back : after].sum())
            if count > reach(rows[after]) or rows[after]["drifts"] != rows[after - back]["drifts"]:
                continue
            found, told = without_last(rows[after], count, checkpoint)
            true = rows[after - back]
            assert told == count
            assert found["events"] == true["events"]
            assert found["steps"] == true["steps"]
            now_s = int(true["last_time_ms"][0]) // 1000
            left, right = counts(found, now_s, checkpoint), counts(true, now_s, checkpoint)
            for category in right:
                np.testing.assert_allclose(left[category], right[category], atol=0.2)
            compared += 1
    assert compared > 50
