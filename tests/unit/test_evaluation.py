"""Figures by hand, and the protocols end to end on a simulated shop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from model.checkpoint import Checkpoint
from model.evaluation.planted import evaluate_drift
from model.evaluation.window import evaluate_window
from model.event_log import EventLog, event_log
from model.events import Source
from model.metrics import bootstrap, labels, ndcg_by_user, window_figures
from model.prediction import (
    drift_table,
    event_cuts,
    event_numbers,
    move,
    predict_categories,
    predict_items,
    probabilities,
)
from model.simulation import DAY_MS, ShopSettings, SimulatedLog, simulate
from model.state import new_rows
from model.training import TrainingConfig, make_vocabulary, no_progress
from model.transition import transition
from tests.checkpoints import tiny_checkpoint

HORIZON_S = 10 * 86400


@pytest.fixture(scope="module")
def shop() -> SimulatedLog:
    return simulate(ShopSettings(users=60, days=60, categories=12, sessions_per_day=0.8))


@pytest.fixture(scope="module")
def log(shop: SimulatedLog) -> EventLog:
    return event_log(shop.events, "sim")


@pytest.fixture(scope="module")
def checkpoint(log: EventLog) -> Checkpoint:
    """Untrained weights over the log's own names."""
    vocabulary = make_vocabulary(log, TrainingConfig())
    known = (len(vocabulary.item_names), len(vocabulary.category_names))
    return replace(tiny_checkpoint(items=known[0], categories=known[1]), vocabulary=vocabulary)


@pytest.fixture(scope="module")
def cutoff_ms(log: EventLog) -> int:
    return int(log.time_ms.min()) + 45 * DAY_MS


def test_figures_equal_those_counted_one_by_one() -> None:
    random = np.random.default_rng(0)
    score = random.random((40, 30)).round(2)  # with ties for the AUROC
    label = random.random((40, 30)) < 0.1
    label[:, 0] = False
    figures = window_figures(score, label)
    score, label = score[:, 1:], label[:, 1:]
    areas = []
    for column in np.flatnonzero(label.any(0)):
        with_label, without = score[label[:, column], column], score[~label[:, column], column]
        pairs = with_label[:, None] - without
        areas.append(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert figures["macro AUROC"] == pytest.approx(np.mean(areas))
    precisions, ndcgs, recalls = [], [], []
    for user in np.flatnonzero(label.any(1)):
        ranked = label[user, np.argsort(-score[user], kind="stable")].tolist()
        total = sum(ranked)
        precisions.append(
            sum(sum(ranked[: i + 1]) / (i + 1) for i, hit in enumerate(ranked) if hit) / total
        )
        gain = sum(1 / np.log2(i + 2) for i, hit in enumerate(ranked[:10]) if hit)
        ndcgs.append(gain / sum(1 / np.log2(i + 2) for i in range(min(total, 10))))
        recalls.append(sum(ranked[:5]) / total)
    assert figures["mAP"] == pytest.approx(np.mean(precisions))
    assert figures["NDCG@10"] == pytest.approx(np.mean(ndcgs))
    assert figures["recall@5"] == pytest.approx(np.mean(recalls))
    p = np.where(label, score, 1 - score).clip(1e-7, 1 - 1e-7)
    assert figures["log-loss"] == pytest.approx(-np.log(p).mean())
    assert figures["Brier"] == pytest.approx(((score - label) ** 2).mean(), abs=1e-6)


def test_a_perfect_list_has_ndcg_1_and_none_is_nan() -> None:
    label = np.array([[False, True, False, True], [False] * 4])
    ndcg = ndcg_by_user(label.astype(float), label)
    assert ndcg[0] == 1.0
    assert np.isnan(ndcg[1])


def test_the_interval_holds_the_mean_and_narrows() -> None:
    values = np.random.default_rng(0).normal(1.0, 1.0, 400)
    low, high = bootstrap(np.append(values, np.nan))
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * 0.98 / np.sqrt(400), rel=0.25)
    assert bootstrap(values) == bootstrap(values)


def test_labels_are_of_the_window_alone(log: EventLog, checkpoint: Checkpoint) -> None:
    batch, users = log.batch(checkpoint.vocabulary)
    cutoff_s = int(log.time_ms[1000]) // 1000
    label = labels(batch, len(users), checkpoint.vocabulary.categories, cutoff_s, 86400)
    for user, category in np.argwhere(label):
        own = (batch.user == user) & (batch.category == category)
        seconds = batch.time_ms[own] / 1000 - cutoff_s
        assert ((seconds >= 0) & (seconds < 86400)).any()


def test_moving_in_slices_equals_moving_at_once(log: EventLog, checkpoint: Checkpoint) -> None:
    moved = move(log, checkpoint, no_progress, lists=True)
    rows, outputs = transition(
        new_rows(len(log.users), checkpoint.hidden),
        log.batch(checkpoint.vocabulary)[0],
        Source(),
        checkpoint,
    )
    for name in rows.dtype.names or ():
        if rows.dtype[name].base != np.float16:
            np.testing.assert_array_equal(rows[name], moved.rows[name])
    assert [alarm.step for alarm in moved.alarms] == outputs.drifts.step.tolist()


def test_cuts_part_no_event(log: EventLog, checkpoint: Checkpoint) -> None:
    batch, _ = log.batch(checkpoint.vocabulary)
    for size in (1, 7, 1000, 10**6):
        cuts = event_cuts(batch, size)
        assert cuts[0][0] == 0
        assert cuts[-1][1] == len(batch)
        assert all(batch.line[start] == 0 and batch.last_line[end - 1] for start, end in cuts)


def test_category_table(log: EventLog, checkpoint: Checkpoint, cutoff_ms: int) -> None:
    moved = move(log, checkpoint, no_progress, cutoff_ms)
    table = predict_categories(moved, cutoff_ms, checkpoint)
    known = int((moved.rows["events"] > 0).sum())
    assert table.column_names == ["user_id", "category", "probability"]
    assert table.num_rows == known * len(checkpoint.vocabulary.category_names)
    p = np.array(table["probability"])
    assert ((p > 0) & (p < 1)).all()
    first = p[: len(checkpoint.vocabulary.category_names)]
    assert (np.diff(first) <= 0).all()
    new = predict_categories(moved, cutoff_ms, checkpoint, top=2, new_only=True)
    touched = {
        (log.users[u], log.categories[c])
        for u, c in zip(log.user, log.category, strict=True)
        if c >= 0 and u >= 0
    } - {
        (log.users[u], log.categories[c])
        for u, c, t in zip(log.user, log.category, log.time_ms, strict=True)
        if t >= cutoff_ms
    }
    pairs = set(zip(new["user_id"].to_pylist(), new["category"].to_pylist(), strict=True))
    assert new.num_rows <= 2 * known
    assert not pairs & touched


def test_a_longer_horizon_is_likelier(log: EventLog, checkpoint: Checkpoint) -> None:
    rows = move(log, checkpoint, no_progress).rows
    now_ms = int(log.time_ms.max())
    p = probabilities(rows, now_ms, checkpoint)[:, 1:]
    twice = probabilities(rows, now_ms, checkpoint, 2 * checkpoint.horizon_s)[:, 1:]
    np.testing.assert_allclose(twice, 1 - (1 - p) ** 2, rtol=1e-6)


def test_item_table(log: EventLog, checkpoint: Checkpoint) -> None:
    moved = move(log, checkpoint, no_progress)
    table = predict_items(moved, int(log.time_ms.max()), checkpoint, 5)
    assert table.column_names == ["user_id", "item_id", "rank", "score"]
    ranks = np.array(table["rank"])
    assert set(ranks.tolist()) == {1, 2, 3, 4, 5}
    assert set(table["item_id"].to_pylist()) <= set(log.items)
    score = np.array(table["score"])
    assert (np.diff(score)[ranks[1:] > 1] <= 0).all()


def test_drift_table_names_events_of_the_user(
    shop: SimulatedLog, log: EventLog, checkpoint: Checkpoint
) -> None:
    sharp = replace(checkpoint, drift=replace(checkpoint.drift, threshold=2.5))
    moved = move(log, sharp, no_progress)
    table = drift_table(moved, log, sharp)
    assert table.num_rows == len(moved.alarms) > 5
    owner = dict(zip(log.event_ids, _first_rows(log), strict=True))
    for row in table.to_pylist():
        assert row["statistic"] >= row["threshold"] == 2.5
        assert row["from"] in log.categories
        assert row["to"] in log.categories
        assert row["evidence"]
        numbers = event_numbers(moved.batch)
        for event_id in row["evidence"]:
            at = owner[event_id]
            assert log.users[log.user[at]] == row["user_id"]
            assert numbers[at] <= row["event_index"]
    report = evaluate_drift(table, shop.truth, log)
    assert report.changes == shop.truth.num_rows
    assert report.recall[50] > report.chance[50]


def test_drift_report_by_hand(log: EventLog) -> None:
    truth = pa.table(
        {
            "user_id": [log.users[0], log.users[1]],
            "time_ms": [0, 0],
            "event_index": [30, 40],
            "to_categories": [["a"], ["b"]],
        }
    )
    alarms = pa.table(
        {
            "user_id": [log.users[0], log.users[0], log.users[2]],
            "event_index": [10, 45, 5],
            "to": ["a", "a", "c"],
        }
    )
    report = evaluate_drift(alarms, truth, log)
    assert report.recall == {10: 0.0, 20: 0.5, 50: 0.5}
    assert report.delay_events == 15
    assert report.right_to == 1.0
    assert report.false_per_1000_30d > 0
    assert evaluate_drift(alarms.slice(0, 0), truth, log).recall[50] == 0.0


def test_window_protocol(log: EventLog, checkpoint: Checkpoint, cutoff_ms: int) -> None:
    report = evaluate_window(log, checkpoint, cutoff_ms, no_progress, HORIZON_S)
    assert set(report.figures) == {
        "model",
        "most popular",
        "last",
        "history frequency",
        "decayed counts",
    }
    assert report.users[0] <= report.users[1] <= len(log.users)
    for name, figures in report.figures.items():
        low, high = report.intervals[name]
        assert low <= figures["NDCG@10"] <= high
    assert report.figures["decayed counts"]["NDCG@10"] > report.figures["most popular"]["NDCG@10"]
    gain, (low, high) = report.gains["most popular"]
    assert low <= gain <= high
    new = evaluate_window(log, checkpoint, cutoff_ms, no_progress, HORIZON_S, new_only=True)
    assert new.users[0] <= report.users[0]


def test_labels_after_the_cutoff_do_not_move_predictions(
    log: EventLog, checkpoint: Checkpoint, cutoff_ms: int
) -> None:
    late = log.time_ms >= cutoff_ms
    unlike = replace(log, category=np.where(late, 0, log.category))
    ours, theirs = (
        predict_categories(move(each, checkpoint, no_progress, cutoff_ms), cutoff_ms, checkpoint)
        for each in (log, unlike)
    )
    assert ours.equals(theirs)


def _first_rows(log: EventLog) -> list[int]:
    return np.flatnonzero(np.r_[True, log.event[1:] != log.event[:-1]]).tolist()
