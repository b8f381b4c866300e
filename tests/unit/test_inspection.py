"""A row in words: what the lists say, what is left out, and rows that say nothing."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from model.checkpoint import Checkpoint
from model.events import Source
from model.interests import interval
from model.state import new_rows, pack
from model.transition import Outputs, transition
from stream_app.answers import Inspection
from stream_app.events import Recommendation
from stream_app.inspection import UNKNOWN, inspect_row
from stream_app.outputs import encode
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, random_log

TOPICS = ("clicks", "searches", "purchases")
USERS = 12


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = tiny_checkpoint(items=60, categories=8)
    return replace(made, drift=replace(made.drift, threshold=2.0))


def inspected(value: bytes | None, checkpoint: Checkpoint, without: int = 0) -> Inspection:
    return inspect_row("ann", value, False, 3, TOPICS, checkpoint, without)


def test_lists_are_those_of_the_message(checkpoint: Checkpoint) -> None:
    log = random_log(5, 400, USERS, checkpoint)
    users = [f"u{number}" for number in range(USERS)]
    _, out = transition(new_rows(USERS, checkpoint.hidden), log, Source(), checkpoint)
    messages = encode(out, log, users, str, 3, TOPICS, checkpoint).recommendations
    assert len(messages) > 20
    for (_, value), row in zip(messages, pack(out.rows), strict=True):
        message = msgspec.json.decode(value, type=Recommendation)
        found = inspected(row, checkpoint)
        assert found.items == message.items
        assert [(one.category, one.probability, one.uncertainty) for one in found.interests] == [
            (one.category, one.probability, one.uncertainty) for one in message.interests
        ]
        for one in found.interests:
            low, high = interval(np.array([one.probability]), checkpoint)
            assert (one.low, one.high) == pytest.approx((low[0], high[0]), abs=0.02)
            assert one.low < one.high
    assert {item.reason.kind for item in found.items} & {"repeated", "viewed_together"}


def moved(count: int, checkpoint: Checkpoint) -> tuple[bytes, Outputs]:
    """The row after so many clicks, an hour apart, with a change of interest among them."""
    category = ([1] * 26 + [2] * 40)[:count]
    log = clicks([0] * count, category, 3600, [1 + n % 50 for n in range(count)])
    rows, out = transition(new_rows(1, checkpoint.hidden), log, Source(), checkpoint)
    return pack(rows)[0], out


def test_the_history_of_drift_is_what_the_row_knows(checkpoint: Checkpoint) -> None:
    value, out = moved(66, checkpoint)
    found = inspected(value, checkpoint)
    history = found.drift_history
    assert history.count == found.drifts == len(out.drifts.changes) > 0
    assert history.last == found.last_drift is not None
    assert history.statistic == found.drift_statistic is not None
    assert history.threshold == found.drift_threshold == 2.0


def test_a_row_without_its_last_steps_reads_like_the_earlier_row(checkpoint: Checkpoint) -> None:
    quiet = replace(checkpoint, drift=replace(checkpoint.drift, threshold=1e9))
    value, _ = moved(30, quiet)
    earlier, _ = moved(25, quiet)
    found, true = inspected(value, quiet, without=5), inspected(earlier, quiet)
    assert found.without == 5
    assert true.without == 0
    assert (found.events, found.steps) == (true.events, true.steps)
    assert found.last_event == true.last_event
    assert found.drift_statistic == pytest.approx(true.drift_statistic, abs=1.0)
    assert [one.category for one in found.interests] == [one.category for one in true.interests]
    for left, right in zip(found.interests, true.interests, strict=True):
        assert left.probability == pytest.approx(right.probability, abs=0.005)
    assert [item.item_id for item in found.items] == [item.item_id for item in true.items]
    assert found.recent == true.recent[: len(found.recent)]
    assert len(found.recent) == 11
    assert found.offsets == inspected(value, quiet).offsets


def test_more_than_the_anchor_reaches_says_how_many_it_was(checkpoint: Checkpoint) -> None:
    value, _ = moved(19, checkpoint)
    assert inspected(value, checkpoint, without=16).without == 3
    few, _ = moved(4, checkpoint)
    nothing = inspected(few, checkpoint, without=16)
    assert (nothing.without, nothing.steps, nothing.events) == (4, 0, 0)
    assert nothing.interests == nothing.items == nothing.recent == []
    assert nothing.last_event is None


def test_no_row_and_a_row_of_other_weights_say_nothing_of_interests(checkpoint: Checkpoint) -> None:
    value, _ = moved(20, checkpoint)
    other = tiny_checkpoint(seed=7, items=60, categories=8)
    for found in (inspected(None, checkpoint, 3), inspected(value, other, 3)):
        assert found.without == 0
        assert not found.row_checkpoint
        assert found.interests == found.items == found.recent == []
        assert found.drift_history.statistic is None
    assert inspected(value, other).stored
    assert not inspected(None, other).stored


def test_names_that_training_has_not_seen_are_unknown(checkpoint: Checkpoint) -> None:
    vocabulary = checkpoint.vocabulary
    log = clicks([0], [vocabulary.first_category_bucket], item=[vocabulary.first_item_bucket])
    rows, _ = transition(new_rows(1, checkpoint.hidden), log, Source(), checkpoint)
    (step,) = inspected(pack(rows)[0], checkpoint).recent
    assert (step.item_id, step.category) == (UNKNOWN, UNKNOWN)
