"""Figures by hand, and the protocols end to end on a simulated shop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.evaluation import contest, trees
from model.evaluation.contest import best_pairs, best_pairs_a_user, f1_interval, micro_f1
from model.evaluation.protocols import Options
from model.evaluation.window import cutoffs_ms, protocol, report, score_cut
from model.event_log import EventLog, event_log
from model.events import Source
from model.learning import LearningSettings
from model.metrics import (
    bootstrap,
    calibration,
    interest_correlation,
    labels,
    ndcg_by_user,
    top_cases,
    window_figures,
)
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
from model.tables import write_table
from model.training import TrainingConfig, make_vocabulary, no_progress
from model.transition import transition
from tests.checkpoints import tiny_checkpoint
from tests.planted import evaluate_drift

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


def test_scores_that_are_left_out_count_for_nothing() -> None:
    random = np.random.default_rng(1)
    score, label = random.random((30, 12)), random.random((30, 12)) < 0.3
    left_out = random.random((30, 12)) < 0.4
    label[:, 0] = label[left_out] = False
    hidden = window_figures(np.where(left_out, -np.inf, score), label)
    p = np.where(label, score, 1 - score)[:, 1:][~left_out[:, 1:]].clip(1e-7, 1 - 1e-7)
    assert hidden["log-loss"] == pytest.approx(-np.log(p).mean())
    for row in range(30):  # as if they stood last
        last = np.where(left_out, -1.0, score)
        expected = ndcg_by_user(last, label)[row]
        assert ndcg_by_user(np.where(left_out, -np.inf, score), label)[row] == pytest.approx(
            expected, nan_ok=True
        )


def test_calibration_tells_who_is_calibrated() -> None:
    random = np.random.default_rng(2)
    p = random.beta(1, 6, 4000)
    true = random.random(4000) < p
    good, bad = calibration(p, true), calibration(np.minimum(1.5 * p, 1), true)
    assert good.is_inside
    assert not bad.is_inside
    assert good.band[0] < good.error
    assert len(good.bins) == 15
    assert bad.error == pytest.approx((np.minimum(1.5 * p, 1) - p).mean(), abs=0.02)
    assert calibration(p[:0], true[:0]).cases == 0


def test_the_ten_highest_of_each_user() -> None:
    probability = np.tile(np.arange(14) / 20, (2, 1))
    probability[1, 5:] = -np.inf
    label = np.zeros((2, 14), dtype=bool)
    label[0, 13] = label[0, 3] = True
    p, true = top_cases(probability, label)
    assert len(p) == 10 + 4
    assert true.sum() == 1


def test_correlation_is_of_each_users_interest() -> None:
    observed = np.array([[0, 6, 3, 1], [0, 0, 0, 0], [0, 1, 2, 9]], float)
    score = np.array([[0, 0.6, 0.3, 0.1], [0, 0.5, 0.2, 0.1], [0, 0.9, 0.2, 0.1]])
    spearman, pearson = interest_correlation(score, observed)
    assert spearman == pytest.approx(0.0)  # one agrees, one is the other way round
    by_hand = (1.0 + np.corrcoef(score[2, 1:], observed[2, 1:])[0, 1]) / 2
    assert pearson == pytest.approx(by_hand)


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
    table = predict_items(moved, log, int(log.time_ms.max()), checkpoint, 5)
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


def test_window_figures_of_a_cut(log: EventLog, checkpoint: Checkpoint, cutoff_ms: int) -> None:
    moved = move(log, checkpoint, no_progress, cutoff_ms)
    cut = score_cut(log, moved, checkpoint, cutoff_ms, HORIZON_S)
    later = (log.time_ms >= cutoff_ms) & (log.time_ms < cutoff_ms + HORIZON_S * 1000)
    pairs = {
        (log.users[u], int(c))
        for u, c in zip(
            log.user[later], _categories(log, checkpoint)[log.category[later]], strict=True
        )
        if c > 0
    }
    named = {(cut.users[u], int(c)) for u, c in np.argwhere(cut.label)}
    assert named == {(user, c) for user, c in pairs if user in cut.users}
    assert (cut.observed > 0).tolist() == cut.label.tolist()
    made = report([cut], False, pa.table({}))
    predictors = {"model", "most popular", "factor model", "decayed counts", "blend", "Markov"}
    figures = made.figures
    for name in predictors:
        assert 0 < figures[f"all: {name}: NDCG@10"] <= 1
    assert figures["all: decayed counts: NDCG@10"] > figures["all: most popular: NDCG@10"]
    assert figures["all: blend: NDCG@10"] > figures["all: most popular: NDCG@10"]
    assert 0 < figures["all users: blend: log-loss / base"] < 1.5
    (table,) = (t for t in made.tables if t.title == "Intervals of the interests")
    pairs = 10 * len(cut.users)
    assert [row[1:3] for row in table.rows[:2]] == [
        [f"{size:,}", str(pairs // size)] for size in sorted((100, pairs // 15))
    ]
    assert 0 <= figures["intervals: groups of 100"] <= 1
    new = cut.new_only()
    assert new.label.sum() < cut.label.sum()
    assert not (new.label & cut.touched).any()
    assert np.isneginf(new.scores["model"][cut.touched]).all()


def _categories(log: EventLog, checkpoint: Checkpoint) -> np.ndarray:
    """Index in the vocabulary of each category of the log; the last is that of none."""
    return np.array([*(checkpoint.vocabulary.category(name) for name in log.categories), 0])


def test_a_perfect_model_gains_over_every_baseline(
    log: EventLog, checkpoint: Checkpoint, cutoff_ms: int
) -> None:
    moved = move(log, checkpoint, no_progress, cutoff_ms)
    cut = score_cut(log, moved, checkpoint, cutoff_ms, HORIZON_S)
    knowing = replace(cut, scores={**cut.scores, "model": cut.label * 0.98 + 0.01})
    made = report([knowing, knowing], False, pa.table({}))
    assert made.figures["all: model: NDCG@10"] == pytest.approx(1.0)
    assert made.figures["all: gain from"] > 0
    (gains,) = (t for t in made.tables if t.title == "Gain of the model in NDCG@10, all")
    best = "NDCG@10 over the best floor, all"
    assert len(made.samples[best]) == knowing.label.any(1).sum()  # each user once
    assert all(float(row[1]) > 0 for row in gains.rows)


def test_new_users_are_shown_by_their_events(
    log: EventLog, checkpoint: Checkpoint, cutoff_ms: int
) -> None:
    moved = move(log, checkpoint, no_progress, cutoff_ms)
    cut = score_cut(log, moved, checkpoint, cutoff_ms, HORIZON_S)
    few = replace(cut, events=np.arange(len(cut.events)) % 3)
    (table,) = (t for t in report([few], False, pa.table({})).tables if "new users" in t.title)
    returning = cut.label.any(1)
    counts = [int((returning & (few.events == n)).sum()) for n in (1, 2)]
    assert [row[:2] for row in table.rows] == [["1", str(counts[0])], ["2", str(counts[1])]]


def test_contest_pairs_and_figures_by_hand() -> None:
    score = np.array([[9, 0.9, 0.2, 0.5], [9, 0.8, 0.5, 0.1]])
    label = np.array([[False, True, False, True], [False, False, True, False]])
    # the best pair is a hit, of two 1 is, of three 2 are, of four 3 are: F1 6/7
    pairs_a_user = best_pairs_a_user(score, label)
    assert pairs_a_user == 2.0
    chosen = best_pairs(score, pairs_a_user)
    assert np.argwhere(chosen).tolist() == [[0, 1], [0, 3], [1, 1], [1, 2]]
    assert micro_f1(chosen, label) == (0.75, 1.0, pytest.approx(6 / 7))
    low, high = f1_interval(chosen, label)
    assert low <= 6 / 7 <= high
    assert low == pytest.approx(2 / 3)  # the second user alone: 1 hit, 2 pairs, 1 bought


def test_the_contest_predicts_purchases(shop: SimulatedLog, tmp_path: Path) -> None:
    path = tmp_path / "shop.parquet"
    write_table(shop.events, path)
    config = TrainingConfig(
        hidden=8, windows=500, lists=20, learning=LearningSettings(max_steps=2, counter_steps=60)
    )
    found = contest.protocol(Options(path, config, horizon_s=HORIZON_S), no_progress)
    assert found.predictions is not None
    assert found.predictions.column_names == ["user_id", "category"]
    bought = shop.events.filter(pc.equal(shop.events["event_type"], "purchase"))
    assert set(found.predictions["category"].to_pylist()) <= set(bought["category"].to_pylist())
    assert found.figures["blend: F1"] > 0


def test_cutoffs_leave_whole_windows(log: EventLog) -> None:
    for horizon_s in (86400, 10 * 86400, 15 * 86400):
        times = cutoffs_ms(log, horizon_s)
        assert len(times) == 3
        assert 0 < times[-1] + horizon_s * 1000 - log.time_ms.max() <= 1000
        assert not np.any(np.array(times) % 1000)  # labels are of whole seconds
        assert (np.diff(times) >= horizon_s * 500).all()


def test_the_protocol_trains_on_nothing_at_or_after_the_cutoff(
    shop: SimulatedLog, cutoff_ms: int, tmp_path: Path
) -> None:
    """What comes from the cut-off on is told as of other categories: predictions stay."""
    tables = [shop.events, _told_otherwise(shop.events, cutoff_ms)]
    learning = LearningSettings(max_steps=2, counter_steps=20)
    config = TrainingConfig(hidden=8, windows=500, lists=20, horizon_s=HORIZON_S, learning=learning)
    found = []
    for number, table in enumerate(tables):
        path = tmp_path / f"{number}.parquet"
        write_table(table, path)
        options = Options(path, config, cutoff_ms=cutoff_ms, horizon_s=HORIZON_S)
        found.append(protocol(options, no_progress))
    assert found[0].predictions is not None
    assert found[0].predictions.equals(found[1].predictions)
    assert found[0].figures != found[1].figures


def _told_otherwise(events: pa.Table, cutoff_ms: int) -> pa.Table:
    """The events with one category, of no event before, for all from the cut-off on."""
    times = events["timestamp"].cast(pa.int64())
    late = pc.greater_equal(times, cutoff_ms)
    changed = pc.if_else(late, "elsewhere", events["category"])
    return events.set_column(events.column_names.index("category"), "category", changed)


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


def test_a_protocol_whose_baselines_cannot_be_made_says_so_before_it_trains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trees, "find_spec", lambda _name: None)
    options = Options(tmp_path / "never-read.parquet", TrainingConfig.quick(0))
    for asked in (protocol, contest.protocol):
        with pytest.raises(ModelError, match="scikit-learn, which is not installed"):
            asked(options, no_progress)
