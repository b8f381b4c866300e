"""Rows without one of their events: taken out of the row, and made again from the history."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.evaluation.fidelity import fidelity, removals
from model.events import EventBatch, EventType
from model.explanation import score_drops
from model.held_lists import HeldLists, rows_before
from model.ranking import item_scores, rank
from model.state import RECENT, StateBatch
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import random_log, run

USERS = 40


@pytest.fixture(scope="module", params=[1.0, 0.2])
def checkpoint(request: pytest.FixtureRequest) -> Checkpoint:
    """A category's later steps in a session count as much as the first, or less."""
    made = tiny_checkpoint()
    statistics = replace(made.statistics, repeat_weight=np.array([request.param]))
    return replace(made, statistics=statistics)


@pytest.fixture(scope="module")
def log(checkpoint: Checkpoint) -> EventBatch:
    """Clicks and baskets, in order of time; the words of a search stand in no row."""
    made = random_log(6, 900, USERS, checkpoint)
    made = made.take(made.event_type != EventType.SEARCH)
    return replace(made, time_ms=np.maximum.accumulate(made.time_ms))


@pytest.fixture(scope="module")
def rows(log: EventBatch, checkpoint: Checkpoint) -> StateBatch:
    return run(log, USERS, checkpoint, [])[0]


def _without(log: EventBatch, user: int, back: int) -> EventBatch:
    """The user's steps but the one that lies ``back`` steps back."""
    own = np.flatnonzero(log.user == user)
    kept = log.take(np.delete(own, len(own) - 1 - back))
    return replace(kept, user=np.zeros(len(kept), np.int64))


def test_a_score_falls_as_if_the_step_had_not_been(
    log: EventBatch, rows: StateBatch, checkpoint: Checkpoint
) -> None:
    lists = rank(rows, rows["last_time_ms"], checkpoint, 4)
    drops = score_drops(rows, rows["last_time_ms"], lists.item, checkpoint)
    assert drops.shape == (USERS, 4, RECENT)
    compared = 0
    for user in range(0, USERS, 5):
        row, now_ms, item = rows[[user]], rows["last_time_ms"][[user]], lists.item[[user]]
        steps = int(row["steps"][0])
        since_anchor = (steps - 1) % RECENT + 1
        whole = item_scores(row, now_ms, item, checkpoint)[0]
        for back in range(min(since_anchor, RECENT - 1)):  # whose time before is known, too
            again = _without(log, user, back)
            clicks = replace(again, line=again.line * 0, last_line=np.ones(len(again), dtype=bool))
            clicks = replace(
                clicks,
                offset=np.arange(len(again)),
                event_type=again.event_type * 0,
                event_hash=np.arange(1, len(again) + 1, dtype=np.uint64),
            )
            made = run(clicks, 1, checkpoint, [])[0]
            made["events"] = row["events"]  # which calibration holds is not the step's doing
            wanted = whole - item_scores(made, now_ms, item, checkpoint)[0]
            np.testing.assert_allclose(drops[user, :, back], wanted, atol=0.02)
            compared += 1
    assert compared > 40
    assert np.nanmax(np.abs(drops)) > 1  # far above what is let pass


def test_a_row_of_one_step_and_a_new_row(
    log: EventBatch, rows: StateBatch, checkpoint: Checkpoint
) -> None:
    first = rows_before(checkpoint, log, np.flatnonzero(log.user == 3)[:2])
    assert first["steps"].tolist() == [0, 1]
    item = np.array([[5], [5]])
    drops = score_drops(first, np.full(2, int(log.time_ms[-1])), item, checkpoint)
    assert np.isnan(drops[0]).all()
    assert np.isfinite(drops[1, 0, 0])
    assert np.isnan(drops[1, 0, 1:]).all()
    assert score_drops(rows[:0], rows["last_time_ms"][:0], item[:0], checkpoint).shape[0] == 0


def test_rows_are_made_again_without_each_event(
    log: EventBatch, rows: StateBatch, checkpoint: Checkpoint
) -> None:
    heads = np.flatnonzero(log.line == 0)
    step = np.array([heads[log.user[heads] == user][-1] for user in (1, 5, 8)])
    made = removals(log, step, checkpoint)
    before = rows_before(checkpoint, log, step)
    for number, target in enumerate(step.tolist()):
        of = made.case == number
        whole = made.rows[of & (made.removed == -1)]
        own = log.take(
            np.flatnonzero((log.user == log.user[target]) & (np.arange(len(log)) < target))
        )
        for name in before.dtype.names or ():
            np.testing.assert_array_equal(whole[name][0], before[name][number])
        ends = len(own) - 1 - np.flatnonzero(own.last_line)
        retained = int(made.retained[number])
        assert retained > RECENT - 4
        assert sorted(made.removed[of].tolist()) == sorted([-1, *ends[ends < retained].tolist()])
        for row, back in zip(made.rows[of], made.removed[of].tolist(), strict=True):
            if back < 0:
                continue
            last = len(own) - 1 - back
            gone = np.arange(last - int(own.line[last]), last + 1)
            kept = own.take(np.delete(np.arange(len(own)), gone))
            alone, _ = run(replace(kept, user=kept.user * 0), 1, checkpoint, [])
            for name in ("recent_item", "slot_category", "slot_count", "h", "events"):
                np.testing.assert_array_equal(row[name], alone[name][0])


def test_named_events_lower_the_score_most(log: EventBatch, checkpoint: Checkpoint) -> None:
    heads = np.flatnonzero((log.line == 0) & (np.arange(len(log)) > len(log) // 2))
    before = rows_before(checkpoint, log, heads)
    held = HeldLists(before, before["last_time_ms"], log.item[heads])
    table, figures = fidelity(log, held, heads, checkpoint, 0)
    again, _ = fidelity(log, held, heads, checkpoint, 0)
    assert table == again
    assert len(table.rows) == 2
    for name, _, *_ in table.rows:
        drop, others = (figures[f"fidelity, {name}: {what}"] for what in ("drop", "drop of others"))
        assert drop > others + 0.2
        assert figures[f"fidelity, {name}: lowers more"] > 0.7
