"""Lists and predictions beside what users did next: counts that are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from zlib import crc32

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from model.checkpoint import Checkpoint
from model.events import Source
from model.kept_prediction import Scored
from model.state import new_rows
from model.transition import transition
from stream_app.lane.scoring import (
    LIST_ITEMS,
    MAX_LISTS,
    USER_SAMPLE,
    Scorable,
    Scoring,
    scorable,
)
from stream_app.metrics import BINS, Metrics
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, random_log, run

NAMES = (f"user-{number}".encode() for number in range(10_000))
SAMPLED = [name for name in NAMES if crc32(name) % USER_SAMPLE == 0]
OTHER = b"user-0"
ANN, BOB = SAMPLED[:2]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(items=40, categories=6)


class Counts:
    """A scoring and what it has counted."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._registry = CollectorRegistry()
        self.scoring = Scoring(checkpoint, Metrics(self._registry))

    def of(self, name: str, **labels: str) -> float:
        found = self._registry.get_sample_value(name, labels)
        assert found is not None, name
        return found

    @property
    def lists(self) -> tuple[float, float, float]:
        """Scored events, hits of the worker's lists, hits of popularity."""
        hits = "interest_list_hits_total"
        of = [self.of(hits, model=model) for model in ("worker", "popularity")]
        return self.of("interest_scored_events_total"), of[0], of[1]


def batch(
    users: list[bytes],
    events: Sequence[tuple[int, int, int]],
    lists: Sequence[tuple[int, int, list]],
) -> Scorable:
    """Events as (user, step, item), lists as (user, step, items)."""
    user, step, item = np.array(events, np.int64).reshape(-1, 3).T
    padded = [items + [0] * (LIST_ITEMS - len(items)) for _, _, items in lists]
    return Scorable(
        users,
        np.arange(len(users)),
        user,
        step,
        item,
        np.array([of for of, _, _ in lists], np.int64),
        np.array([at for _, at, _ in lists], np.int64),
        np.array(padded, np.int64).reshape(-1, LIST_ITEMS),
    )


def test_each_event_is_compared_with_the_last_list_before_it(checkpoint: Checkpoint) -> None:
    """Items 1 to 10 are the popular ones of the checkpoint."""
    counts = Counts(checkpoint)
    first = batch(
        [ANN, BOB],
        [
            (0, 0, 30),  # Ann has no list yet
            (0, 1, 30),  # on the list of step 0
            (0, 3, 30),  # not on that of step 2
            (1, 4, 7),  # Bob has none, Ann's says nothing of him
        ],
        [(0, 0, [30, 31]), (0, 2, [20]), (1, 4, [7, 8])],
    )
    counts.scoring.count_lists(first)
    assert counts.lists == (2, 1, 0)
    second = batch(
        [BOB, ANN],
        [
            (0, 0, 7),  # Bob's list of the batch before, and popular
            (1, 1, 20),  # Ann's
            (1, 2, 3),  # popular only
        ],
        [],
    )
    counts.scoring.count_lists(second)
    assert counts.lists == (5, 3, 2)


def test_the_popular_items_are_the_first_ten(checkpoint: Checkpoint) -> None:
    counts = Counts(checkpoint)
    events = [(0, item, item) for item in range(1, 41)]
    counts.scoring.count_lists(batch([ANN], events, [(0, 0, [40])]))
    assert counts.lists == (40, 1, 10)
    shorter = Counts(replace(checkpoint, top_k=3))
    shorter.scoring.count_lists(batch([ANN], events, [(0, 0, [40])]))
    assert shorter.lists == (40, 1, 3)


def test_an_item_that_nobody_knows_hits_no_list_that_is_short(checkpoint: Checkpoint) -> None:
    counts = Counts(checkpoint)
    bucket = checkpoint.vocabulary.first_item_bucket
    counts.scoring.count_lists(batch([ANN], [(0, 1, bucket)], [(0, 0, [4])]))
    assert counts.lists == (1, 0, 0)


def test_lists_are_forgotten(checkpoint: Checkpoint) -> None:
    def counted(scoring: Scoring) -> None:
        scoring.count_lists(batch([ANN, BOB], [(0, 0, 9), (1, 1, 9)], []))

    lists = batch([ANN, BOB], [], [(0, 0, [9]), (1, 1, [9])])
    counts = Counts(checkpoint)
    counts.scoring.count_lists(lists)
    counts.scoring.erase(ANN)
    counts.scoring.erase(b"nobody")
    counted(counts.scoring)
    assert counts.lists == (1, 1, 1)
    counts.scoring.forget()
    counted(counts.scoring)
    assert counts.lists == (1, 1, 1)
    counts.scoring.count_lists(lists)
    many = [b"%d" % number for number in range(MAX_LISTS - 1)]
    counts.scoring.count_lists(batch(many, [], [(at, at, [1]) for at in range(len(many))]))
    counted(counts.scoring)
    assert counts.lists == (2, 2, 2), "Ann's list was the oldest"


def test_users_of_the_sample_are_taken_out_of_a_batch(checkpoint: Checkpoint) -> None:
    """One in 16 by the user id; each applied event counts once, by its first item."""
    keys = [OTHER, *SAMPLED[:5]]
    assert crc32(OTHER) % USER_SAMPLE != 0
    events = random_log(3, 600, len(keys), checkpoint, repeats=0.1)
    _, out = transition(new_rows(len(keys), 64), events, Source(), checkpoint)
    found = scorable(out, events, keys)
    assert found.users == SAMPLED[:5]
    expected = [
        (int(events.user[step]) - 1, step, int(events.item[step]))
        for step in range(len(events))
        if events.user[step] > 0
        and events.line[step] == 0
        and events.item[step] > 0
        and not out.duplicate[step]
    ]
    assert list(
        zip(found.user.tolist(), found.step.tolist(), found.item.tolist(), strict=True)
    ) == (expected)
    assert out.duplicate.any()
    lists = [
        (int(events.user[step]) - 1, step, items)
        for step, items in zip(
            out.recommend_step.tolist(), out.recommendations.item.tolist(), strict=True
        )
        if events.user[step] > 0
    ]
    given = (found.list_user.tolist(), found.list_step.tolist(), found.lists.tolist())
    assert list(zip(*given, strict=True)) == lists


def test_the_cut_does_not_change_the_hits(checkpoint: Checkpoint) -> None:
    keys = SAMPLED[:7]
    events = random_log(5, 900, len(keys), checkpoint, repeats=0.1)
    counted = []
    for cuts in ([], list(range(10, 900, 10))):
        counts = Counts(checkpoint)
        _, outputs = run(events, len(keys), checkpoint, cuts)
        ends = [start for start, _ in outputs[1:]] + [len(events)]
        for (start, out), end in zip(outputs, ends, strict=True):
            part = events.take(slice(start, end))
            touched, number = np.unique(part.user, return_inverse=True)
            named = [keys[user] for user in touched.tolist()]
            counts.scoring.count_lists(scorable(out, replace(part, user=number), named))
        counted.append(counts.lists)
    assert counted[0] == counted[1]
    assert min(counted[0]) > 10


def predictions(cases: Sequence[tuple[int, float, bool]]) -> Scored:
    """One prediction of three categories; a case is (category, probability, happened)."""
    category, probability, happened = zip(*cases, strict=True)
    none = np.zeros(1, np.int64)
    return Scored(
        none, none, np.array([category]), np.array([probability]), np.array([happened], dtype=bool)
    )


def test_log_loss_and_calibration_beside_the_base_rates(checkpoint: Checkpoint) -> None:
    rate = np.linspace(0.0, 0.26, checkpoint.vocabulary.categories).astype(np.float32)
    rate[[1, 2]] = 0.25, 0.5
    statistics = replace(checkpoint.statistics, category_rate=rate)
    counts = Counts(replace(checkpoint, statistics=statistics))
    counts.scoring.count_predictions(
        predictions([(1, 0.75, True), (2, 0.125, False), (0, 0.0, False)])
    )
    loss = "interest_prediction_log_loss_total"
    assert counts.of(loss, model="worker") == pytest.approx(-log(0.75) - log(0.875))
    assert counts.of(loss, model="popularity") == pytest.approx(-log(0.25) - log(0.5))
    for name, high, low in (("cases", 1, 1), ("probability", 0.75, 0.125), ("happened", 1, 0)):
        metric = f"interest_prediction_{name}_total"
        by_bin = {place: counts.of(metric, model="worker", bin=place) for place in BINS}
        assert by_bin.pop("0.7-0.8") == high
        assert by_bin.pop("0.1-0.2") == low
        assert not any(by_bin.values())
    cases = [counts.of("interest_prediction_cases_total", model="popularity", bin=b) for b in BINS]
    assert [place for place, number in zip(BINS, cases, strict=True) if number] == [
        "0.2-0.3",
        "0.5-0.6",
    ]


def test_certainty_that_was_wrong_costs_a_bounded_loss(checkpoint: Checkpoint) -> None:
    counts = Counts(checkpoint)
    counts.scoring.count_predictions(predictions([(1, 1.0, False), (2, 0.0, True), (3, 1.0, True)]))
    wrong = counts.of("interest_prediction_log_loss_total", model="worker")
    assert wrong == pytest.approx(2 * 11 * log(2), rel=1e-3)
    assert counts.of("interest_prediction_cases_total", model="worker", bin=BINS[-1]) == 2
    # This checkpoint knows no base rates.
    assert counts.of("interest_prediction_log_loss_total", model="popularity") == 0


def test_a_step_that_scores_nothing_counts_nothing(checkpoint: Checkpoint) -> None:
    counts = Counts(checkpoint)
    _, out = transition(new_rows(1, 64), clicks([0], [1]), Source(), checkpoint)
    counts.scoring.count_predictions(out.scored)
    cases = "interest_prediction_cases_total"
    assert not any(counts.of(cases, model="worker", bin=place) for place in BINS)
