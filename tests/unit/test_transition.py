"""The pure step: equal results for every cut, repeats recognised, emission by the row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.blocks import BLOCK_SIZES
from model.checkpoint import Checkpoint
from model.events import EventBatch, EventType, Source
from model.interest_lstm import StepInput
from model.state import StateBatch, new_rows
from model.transition import Outputs, Trigger, moved_rows, transition, warm_up
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import START_MS, clicks, random_log, run

HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")
TOLERANCE = 0.005


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = tiny_checkpoint(categories=80, items=400)
    return replace(made, drift=replace(made.drift, threshold=1.5))


def assert_rows_equal(left: StateBatch, right: StateBatch) -> None:
    for name in left.dtype.names or ():
        if name in HIDDEN_FIELDS:
            gap = np.abs(left[name].astype(float) - right[name].astype(float))
            assert gap.max(initial=0) < TOLERANCE, name
        else:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def decisions(outputs: list[tuple[int, Outputs]]) -> dict[str, list]:
    """Everything that a run decided, with steps counted from the log's start."""
    found: dict[str, list] = {"duplicate": [], "drift": [], "recommend": [], "changes": []}
    for start, out in outputs:
        found["duplicate"] += out.duplicate.tolist()
        found["drift"] += (start + out.drifts.step).tolist()
        found["changes"] += out.drifts.changes
        found["recommend"] += list(
            zip((start + out.recommend_step).tolist(), out.trigger.tolist(), strict=True)
        )
    return found


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    users=st.integers(1, 300),
    sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=40),
)
def test_every_cut_of_a_log_gives_equal_rows_and_decisions(
    checkpoint: Checkpoint, seed: int, users: int, sizes: list[int]
) -> None:
    log = random_log(seed, 5000, users, checkpoint, repeats=0.05)
    whole, whole_outputs = run(log, users, checkpoint, [])
    cuts = [cut for cut in np.cumsum(sizes).tolist() if cut < len(log)]
    rows, outputs = run(log, users, checkpoint, cuts)
    assert_rows_equal(whole, rows)
    assert decisions(outputs) == decisions(whole_outputs)
    items = [out.recommendations.item for _, out in outputs]
    np.testing.assert_array_equal(np.concatenate(items), whole_outputs[0][1].recommendations.item)


def test_rows_without_outputs_are_those_of_the_transition(checkpoint: Checkpoint) -> None:
    log = random_log(3, 3000, 50, checkpoint, repeats=0.05)
    source = Source((1, 2, 3), 4)
    rows, outputs = transition(new_rows(50, 64), log, source, checkpoint)
    alone, duplicate = moved_rows(new_rows(50, 64), log, source, checkpoint)
    assert alone.tobytes() == rows.tobytes()
    assert duplicate.tolist() == outputs.duplicate.tolist()
    assert outputs.drifts.changes
    assert duplicate.any()


def test_batches_of_one_event_give_the_same_as_one_batch(checkpoint: Checkpoint) -> None:
    log = random_log(3, 300, 4, checkpoint, repeats=0.1)
    whole, whole_outputs = run(log, 4, checkpoint, [])
    rows, outputs = run(log, 4, checkpoint, list(range(1, len(log))))
    assert_rows_equal(whole, rows)
    assert decisions(outputs) == decisions(whole_outputs)
    assert decisions(outputs)["drift"], "the log is meant to raise alarms"


def test_a_batch_that_comes_again_changes_nothing(checkpoint: Checkpoint) -> None:
    log = random_log(5, 800, 50, checkpoint)
    rows, _ = run(log, 50, checkpoint, [400])
    again, out = transition(rows, log, Source(), checkpoint)
    assert out.duplicate.all()
    assert len(out.recommend_step) == len(out.drifts.step) == 0
    assert again.tobytes() == rows.tobytes()


def test_given_rows_are_not_changed(checkpoint: Checkpoint) -> None:
    rows = new_rows(3, checkpoint.hidden)
    before = rows.tobytes()
    transition(rows, clicks([0, 1, 2], [1, 2, 3]), Source(), checkpoint)
    assert rows.tobytes() == before


def test_a_retry_under_a_new_offset_is_a_repeat_and_moves_only_the_offset(
    checkpoint: Checkpoint,
) -> None:
    log = clicks([0, 0], [1, 2])
    rows, _ = run(log, 1, checkpoint, [])
    retry = replace(clicks([0], [1], first_offset=7), event_hash=log.event_hash[:1])
    again, out = transition(rows, retry, Source(), checkpoint)
    assert out.duplicate.tolist() == [True]
    assert again["offset"][0, EventType.CLICK] == 7
    again["offset"] = rows["offset"]
    assert again.tobytes() == rows.tobytes()


def test_an_id_is_forgotten_after_sixteen_other_events(checkpoint: Checkpoint) -> None:
    log = clicks([0] * 17, [1] * 17)
    rows, _ = run(log, 1, checkpoint, [])
    late = replace(clicks([0, 0], [1, 1], first_offset=20), event_hash=log.event_hash[[1, 0]])
    _, out = transition(rows, late, Source(), checkpoint)
    assert out.duplicate.tolist() == [True, False]


def test_a_topic_made_anew_counts_its_offsets_from_the_start(checkpoint: Checkpoint) -> None:
    rows, _ = run(clicks([0] * 9, [1] * 9), 1, checkpoint, [])
    fresh = replace(clicks([0], [2]), event_hash=np.array([999], np.uint64))
    moved, out = transition(rows, fresh, Source(epochs=(1, 0, 0)), checkpoint)
    assert not out.duplicate.any()
    assert moved["events"][0] == 10
    assert moved["offset"][0, 0] == 0
    assert moved["epoch"][0, 0] == 1


def test_a_purchase_is_one_event_and_a_step_per_line_item(checkpoint: Checkpoint) -> None:
    basket = replace(
        clicks([0, 0, 0], [1, 2, 3]),
        event_type=np.full(3, EventType.PURCHASE),
        offset=np.zeros(3, np.int64),
        event_hash=np.full(3, 5, np.uint64),
        line=np.arange(3),
        last_line=np.array([False, False, True]),
    )
    rows, out = transition(new_rows(1, checkpoint.hidden), basket, Source(), checkpoint)
    assert (rows["events"][0], rows["steps"][0]) == (1, 3)
    assert out.recommend_step.tolist() == [2]
    assert out.trigger.tolist() == [Trigger.FIRST_EVENT]


def test_recommendations_follow_first_event_purchase_and_every_fifth(
    checkpoint: Checkpoint,
) -> None:
    log = clicks([0] * 14, [1] * 14)
    kinds = log.event_type.copy()
    kinds[7] = EventType.PURCHASE
    _, outputs = run(replace(log, event_type=kinds), 1, checkpoint, [])
    out = outputs[0][1]
    assert out.recommend_step.tolist() == [0, 5, 7, 12]
    assert out.trigger.tolist() == [
        Trigger.FIRST_EVENT,
        Trigger.INTERVAL,
        Trigger.PURCHASE,
        Trigger.INTERVAL,
    ]


def test_a_step_back_in_time_counts_as_zero(checkpoint: Checkpoint) -> None:
    log = clicks([0, 0], [1, 1])
    late = replace(log, time_ms=np.array([START_MS, START_MS - 86_400_000]))
    level = replace(log, time_ms=np.array([START_MS, START_MS]))
    rows_late, _ = run(late, 1, checkpoint, [])
    rows_level, _ = run(level, 1, checkpoint, [])
    assert rows_late["last_time_ms"][0] == START_MS
    assert rows_late.tobytes() == rows_level.tobytes()


def test_rows_of_other_weights_start_anew_with_their_offsets(checkpoint: Checkpoint) -> None:
    rows, _ = run(clicks([0] * 6, [1] * 6), 1, checkpoint, [])
    other = replace(checkpoint, number=checkpoint.number ^ 1)
    moved, out = transition(rows, clicks([0], [2], first_offset=6), Source(), other)
    fresh, _ = transition(new_rows(1, 64), clicks([0], [2], first_offset=6), Source(), other)
    assert not out.duplicate.any()
    assert moved["checkpoint"][0] == other.number
    assert moved["events"][0] == 7
    assert moved["steps"][0] == 1
    np.testing.assert_array_equal(moved["slot_count"], fresh["slot_count"])
    np.testing.assert_array_equal(moved["slot_category"], fresh["slot_category"])


def test_hidden_states_equal_lstm_cell_step_by_step(checkpoint: Checkpoint) -> None:
    log = random_log(11, 60, 1, checkpoint)
    rows, _ = run(log, 1, checkpoint, [])
    network = checkpoint.network
    cell = torch.nn.LSTMCell(64, 64)
    cell.load_state_dict(network.cell.state_dict())
    clock = np.maximum.accumulate(log.time_ms)
    gap = np.r_[0, np.diff(clock)] // 1000
    arrays = (log.item, log.category, log.kind, log.query, gap, clock // 1000)
    with torch.inference_mode():
        features = network.encode(StepInput(*(torch.from_numpy(a.copy()) for a in arrays)))
        h = c = torch.zeros(1, 64)
        for step in range(len(log)):
            h, c = cell(features[step : step + 1], (h, c))
            h, c = h.half().float(), c.half().float()
    np.testing.assert_allclose(rows["h"][0].astype(float), h[0].numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(rows["c"][0].astype(float), c[0].numpy(), atol=TOLERANCE)


def test_anchor_is_the_state_before_the_retained_steps(checkpoint: Checkpoint) -> None:
    log = clicks([0] * 20, list(range(1, 21)))
    early, _ = run(log.take(slice(0, 16)), 1, checkpoint, [])
    rows, _ = run(log, 1, checkpoint, [])
    np.testing.assert_array_equal(rows["anchor_h"], early["h"])
    np.testing.assert_array_equal(rows["anchor_c"], early["c"])


def test_an_empty_batch_gives_nothing(checkpoint: Checkpoint) -> None:
    empty: EventBatch = clicks([], [])
    rows, out = transition(new_rows(0, checkpoint.hidden), empty, Source(), checkpoint)
    assert len(rows) == len(out.duplicate) == len(out.trigger) == 0


def test_warm_up_runs_the_model_once_at_every_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny_checkpoint()
    sizes = []
    step = made.network.step

    def noted(gates: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> object:
        sizes.append(len(gates))
        return step(gates, h, c)

    monkeypatch.setattr(made.network, "step", noted)
    warm_up(made)
    assert sorted(sizes) == list(BLOCK_SIZES)


def with_ttl(checkpoint: Checkpoint, seconds: int) -> Checkpoint:
    return replace(checkpoint, state_ttl_s=seconds)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_a_state_that_expires_does_not_depend_on_the_cut(
    checkpoint: Checkpoint, seed: int, sizes: list[int]
) -> None:
    log = random_log(seed, 2000, 60, checkpoint, repeats=0.05)
    gaps = np.diff(np.sort(log.time_ms[log.user == log.user[0]])) // 1000
    short = with_ttl(checkpoint, int(np.quantile(gaps, 0.8)))
    whole, whole_outputs = run(log, 60, short, [])
    cuts = [cut for cut in np.cumsum(sizes).tolist() if cut < len(log)]
    rows, outputs = run(log, 60, short, cuts)
    assert_rows_equal(whole, rows)
    assert decisions(outputs) == decisions(whole_outputs)
    triggers = [trigger for _, trigger in decisions(outputs)["recommend"]]
    assert triggers.count(Trigger.FIRST_EVENT) > 60, "states are meant to expire"


def test_after_the_time_to_live_a_state_is_that_of_a_new_user(checkpoint: Checkpoint) -> None:
    short = with_ttl(checkpoint, 100)
    log = clicks([0, 0, 0, 0], [1, 2, 3, 4])
    at_s = np.array([0, 10, 111, 120])
    away = replace(log, time_ms=START_MS + 1000 * at_s)
    left, _ = run(away, 1, short, [])
    right, _ = run(away.take(slice(2, 4)), 1, short, [])
    for name in left.dtype.names or ():
        if name not in ("event_hash", "events"):
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert left["events"].tolist() == [4]
    whole, _ = run(away, 1, checkpoint, [])
    assert whole["steps"].tolist() == [4], "nothing expires without a time to live"
