"""Kept predictions: what rows keep and when it is scored, held against a plain retelling."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.events import EventBatch, Source
from model.interests import category_probabilities
from model.kept_prediction import SAMPLE, due_rows
from model.state import KEPT, MAX_PROBABILITY, StateBatch, new_rows, pack, unpack
from model.transition import Outputs, moved_rows, transition
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import START_MS, clicks, random_log, run

HORIZON_S = 2 * 86400
USERS = 12
START_S = START_MS // 1000


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return replace(tiny_checkpoint(items=40, categories=6), horizon_s=HORIZON_S)


def said(outputs: list[tuple[int, Outputs]]) -> list[tuple]:
    """Every scored prediction: step, end of the window, categories, probabilities, outcomes."""
    return [
        (start + step, due_s, tuple(category), tuple(probability), tuple(happened))
        for start, out in outputs
        for step, due_s, category, probability, happened in zip(
            out.scored.step.tolist(),
            out.scored.due_s.tolist(),
            out.scored.category.tolist(),
            out.scored.probability.tolist(),
            out.scored.happened.tolist(),
            strict=True,
        )
    ]


def retold(log: EventBatch, outputs: list[tuple[int, Outputs]]) -> list[tuple]:
    """The same from the recommendations alone, user by user, one event after the other."""
    ((_, out),) = outputs
    lists = {
        step: (category[:KEPT], probability[:KEPT])
        for step, category, probability in zip(
            out.recommend_step.tolist(),
            out.recommendations.interests.category.tolist(),
            out.recommendations.interests.probability.tolist(),
            strict=True,
        )
    }
    clock: dict[int, int] = defaultdict(int)
    kept: dict[int, tuple] = {}
    touched: dict[int, list[tuple[int, int]]] = defaultdict(list)
    found = []
    for step in range(len(log)):
        if out.duplicate[step]:
            continue
        user = int(log.user[step])
        clock[user] = max(clock[user], int(log.time_ms[step]))
        now_s = clock[user] // 1000
        if user in kept and now_s > kept[user][0]:
            due_s, categories, probabilities = kept.pop(user)
            within = {c for at, c in touched[user] if due_s - HORIZON_S < at <= due_s}
            stored = [float(np.float16(min(p, MAX_PROBABILITY))) for p in probabilities]
            happened = tuple(c in within for c in categories)
            found.append((step, due_s, tuple(categories), tuple(stored), happened))
        touched[user].append((now_s, int(log.category[step])))
        if step in lists and user not in kept and int(log.event_hash[step]) % SAMPLE == 0:
            kept[user] = (now_s + HORIZON_S, *lists[step])
    return found


def test_each_prediction_is_scored_as_the_events_tell(checkpoint: Checkpoint) -> None:
    log = random_log(3, 1500, USERS, checkpoint, repeats=0.05)
    _, outputs = run(log, USERS, checkpoint, [])
    found = said(outputs)
    assert found == retold(log, outputs)
    assert len(found) > 10
    outcomes = {happened for *_, of in found for happened in of}
    assert outcomes == {True, False}


@pytest.mark.parametrize("size", [1, 7, 400])
def test_cuts_do_not_change_what_is_kept_and_scored(checkpoint: Checkpoint, size: int) -> None:
    log = random_log(3, 1500 if size > 1 else 300, USERS, checkpoint, repeats=0.05)
    short = replace(checkpoint, horizon_s=HORIZON_S if size > 1 else 43_200)
    whole, whole_outputs = run(log, USERS, short, [])
    rows, outputs = run(log, USERS, short, list(range(size, len(log), size)))
    for name in ("window_due_s", "window_category", "window_probability"):
        np.testing.assert_array_equal(rows[name], whole[name], err_msg=name)
    assert said(outputs) == said(whole_outputs) != []
    assert (whole["window_due_s"] > 0).any()


def test_rows_made_without_outputs_keep_the_same(checkpoint: Checkpoint) -> None:
    log = random_log(4, 1500, USERS, checkpoint)
    rows, out = transition(new_rows(USERS, 64), log, Source(), checkpoint)
    alone, _ = moved_rows(new_rows(USERS, 64), log, Source(), checkpoint)
    assert alone.tobytes() == rows.tobytes()
    assert len(out.scored)
    assert (rows["window_category"] > 0).any()


def with_ids(log: EventBatch, ids: list[int]) -> EventBatch:
    return replace(log, event_hash=np.array(ids, np.uint64))


def days(log: EventBatch, *at: float) -> EventBatch:
    return replace(log, time_ms=START_MS + (np.array(at) * 86_400_000).astype(np.int64))


def moved(log: EventBatch, checkpoint: Checkpoint) -> tuple[StateBatch, Outputs]:
    return transition(new_rows(1, 64), log, Source(), checkpoint)


def test_only_events_of_the_sample_are_kept(checkpoint: Checkpoint) -> None:
    for event_id in range(1, 2 * SAMPLE + 1):
        rows, _ = moved(with_ids(clicks([0], [1]), [event_id]), checkpoint)
        is_kept = event_id % SAMPLE == 0
        assert rows["window_due_s"][0] == (START_S + HORIZON_S if is_kept else 0)
        probability = category_probabilities(rows, rows["last_time_ms"], checkpoint)[0]
        likeliest = np.argsort(-probability[:7], kind="stable")[:KEPT]
        if is_kept:
            assert rows["window_category"][0].tolist() == likeliest.tolist()
            expected = probability[likeliest].astype(np.float16)
            np.testing.assert_array_equal(rows["window_probability"][0], expected)
        else:
            assert not rows["window_category"].any()


@pytest.mark.parametrize(
    ("at_days", "is_touched"),
    [
        (0.0, False),  # in the second of the prediction
        (1.0, True),
        (2.0, True),  # in the last second of the window
        (2.1, None),  # the window has passed before
    ],
)
def test_the_window_begins_after_the_prediction_and_ends_with_the_horizon(
    checkpoint: Checkpoint, at_days: float, is_touched: bool | None
) -> None:
    """All six categories are touched at one time, so the three that are kept are, too."""
    log = with_ids(clicks([0] * 8, [1, 1, 2, 3, 4, 5, 6, 1]), [SAMPLE, *range(1001, 1008)])
    log = days(log, 0.0, *[at_days] * 6, 3.0)
    _, out = moved(log, checkpoint)
    assert out.scored.due_s.tolist() == [START_S + HORIZON_S]
    assert out.scored.step.tolist() == ([7] if is_touched is not None else [1])
    assert out.scored.happened.tolist() == [[bool(is_touched)] * KEPT]


def test_a_repeat_scores_nothing(checkpoint: Checkpoint) -> None:
    log = days(with_ids(clicks([0, 0], [1, 2]), [SAMPLE, SAMPLE]), 0.0, 3.0)
    rows, out = moved(log, checkpoint)
    assert len(out.scored) == 0
    assert rows["window_due_s"][0] > 0


def test_a_user_who_expires_is_scored_first(checkpoint: Checkpoint) -> None:
    short = replace(checkpoint, state_ttl_s=2 * HORIZON_S)
    log = days(with_ids(clicks([0, 0, 0], [1, 1, 2]), [SAMPLE, 1, 2]), 0.0, 1.0, 30.0)
    rows, out = moved(log, short)
    kept = out.scored.category[0].tolist()
    assert out.scored.happened.tolist() == [[category == 1 for category in kept]]
    assert (rows["steps"][0], rows["window_due_s"][0]) == (1, 0)


def test_rows_of_other_weights_forget_what_they_kept(checkpoint: Checkpoint) -> None:
    rows, _ = moved(with_ids(clicks([0], [1]), [SAMPLE]), checkpoint)
    other = replace(checkpoint, number=checkpoint.number ^ 1)
    assert len(due_rows(rows, 0, 2**32, other)) == 0
    again = days(with_ids(clicks([0], [1], first_offset=5), [1]), 9.0)
    rows, out = transition(rows, again, Source(), other)
    assert len(out.scored) == 0
    assert rows["window_due_s"][0] == 0


def test_who_does_not_come_back_is_scored_by_the_row(checkpoint: Checkpoint) -> None:
    log = days(with_ids(clicks([0, 0], [1, 1]), [SAMPLE, 1]), 0.0, 1.0)
    rows, _ = moved(log, checkpoint)
    due_s = START_S + HORIZON_S
    assert len(due_rows(rows, due_s - 9, due_s - 1, checkpoint)) == 0
    assert len(due_rows(rows, due_s, due_s + 9, checkpoint)) == 0
    found = due_rows(rows, due_s - 1, due_s, checkpoint)
    assert found.category.tolist() == rows["window_category"].tolist()
    assert found.happened[0].tolist() == (rows["window_category"][0] == 1).tolist()
    assert found.due_s.tolist() == [due_s]
    back = days(with_ids(clicks([0], [3], first_offset=5), [2]), 5.0)
    _, out = transition(rows, back, Source(), checkpoint)
    assert said([(0, out)]) == said([(0, replace(out, scored=found))])


def test_fewer_categories_than_places() -> None:
    small = tiny_checkpoint(items=8, categories=2)
    rows, _ = moved(with_ids(clicks([0], [1]), [SAMPLE]), small)
    assert (rows["window_category"][0] > 0).tolist() == [True, True, False]
    assert unpack(list(pack(rows)), 64).tobytes() == rows.tobytes()
