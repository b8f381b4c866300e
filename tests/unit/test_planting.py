"""Changes planted in a log, and the protocol that looks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.calibration import run_test
from model.evaluation.drift import judge, protocol
from model.evaluation.drift_tables import chance, every_events, tables
from model.evaluation.planting import (
    AT_ONCE,
    KINDS,
    MAX_COSINE,
    Planted,
    cut_sessions,
    plant,
    split_users,
)
from model.evaluation.protocols import Options
from model.event_log import EventLog, event_log
from model.prediction import drift_table, move
from model.simulation import ShopSettings, simulate
from model.tables import write_table
from model.training import TrainingConfig, no_progress, untrained_checkpoint


@pytest.fixture(scope="module")
def log() -> EventLog:
    shop = simulate(ShopSettings(users=60, days=60, categories=12, sessions_per_day=0.8))
    return event_log(shop.events, "sim")


@pytest.fixture(scope="module")
def planted(log: EventLog) -> Planted:
    return plant(log, split_users(log, 0)[0], draws=2, seed=3)


def events(log: EventLog, user: int) -> list[tuple[int, int]]:
    rows = np.flatnonzero(log.user == user)
    return list(zip(log.item[rows].tolist(), log.category[rows].tolist(), strict=True))


def test_a_stream_is_the_users_own_until_the_change_and_the_donors_sessions_after(
    log: EventLog, planted: Planted
) -> None:
    assert len(planted.user) > 20
    assert set(planted.kind.tolist()) == set(range(len(KINDS)))
    for stream in range(len(planted.user)):
        own, donor = planted.user[stream], planted.donor[stream]
        made = events(planted.log, stream)
        number = np.unique(planted.log.event[planted.log.user == stream], return_inverse=True)[1]
        rows = int(np.searchsorted(number, planted.change[stream]))
        assert made[:rows] == events(log, own)[:rows]
        assert made[rows] == events(log, donor)[0]
        if planted.kind[stream] == AT_ONCE:
            assert made[rows:] == events(log, donor)[: len(made) - rows]
        assert rows >= 20
        a, b = (
            np.bincount(log.category[log.user == u] + 1, minlength=99)[1:] for u in (own, donor)
        )
        assert a @ b < MAX_COSINE * (a @ a * (b @ b)) ** 0.5


def test_sessions_that_come_in_stay_whole(log: EventLog, planted: Planted) -> None:
    def whole(of: EventLog, user: int) -> set[tuple[int, ...]]:
        cut = cut_sessions(of)
        first, end = cut.first[user], cut.first[user + 1]
        return {tuple(of.item[cut.rows(s)].tolist()) for s in range(first, end)}

    for stream in range(len(planted.user)):
        known = whole(log, planted.user[stream]) | whole(log, planted.donor[stream])
        assert whole(planted.log, stream) <= known


def test_halves_share_no_user_and_only_changed_users_take_part(
    log: EventLog, planted: Planted
) -> None:
    changed, control = split_users(log, 0)
    assert sorted([*changed, *control]) == list(range(len(log.users)))
    assert np.isin(planted.user, changed).all()
    assert np.isin(planted.donor, changed).all()


def test_the_protocol_scores_the_alarms_that_the_worker_raises(
    log: EventLog, planted: Planted
) -> None:
    made = untrained_checkpoint(log, TrainingConfig())
    made = replace(made, drift=replace(made.drift, threshold=2.0))
    moved = move(planted.log, made, no_progress)
    found = run_test(moved.batch, made, with_rows=True)
    assert len(found.step) > 10
    assert [alarm.step for alarm in moved.alarms] == found.step.tolist()
    assert [alarm.change.statistic for alarm in moved.alarms] == found.statistic.tolist()
    assert found.rows is not None
    assert found.rows["slot_units"].tolist() == [a.row["slot_units"].tolist() for a in moved.alarms]


def test_chance_and_regular_alarms_are_as_many_as_those_of_the_test(
    log: EventLog, planted: Planted
) -> None:
    made = untrained_checkpoint(log, TrainingConfig())
    made = replace(made, drift=replace(made.drift, threshold=1.5))
    judged = judge(log, split_users(log, 0)[1], planted, made, made, 0)
    rate = len(judged.planted.step) / judged.planted.tested.sum()
    assert every_events(judged) == round(1 / rate)
    random = np.random.default_rng(0)
    hits = [(random.random(min(51, int(left))) < rate).any() for left in judged.left.tolist() * 40]
    assert chance(judged, planted, 50) == pytest.approx(np.mean(hits), abs=0.03)
    shown = tables(planted, {"model": judged}, {"model": made.drift}, 1000.0)
    recall = {str(row[0]): row for row in shown[0].rows}
    assert recall["never an alarm"][-1] == 0
    assert float(recall["model"][-1]) > 0


def test_the_protocol_on_a_file(log: EventLog, planted: Planted, tmp_path: Path) -> None:
    shop = simulate(ShopSettings(users=60, days=60, categories=12, sessions_per_day=0.8))
    path = tmp_path / "sim.parquet"
    write_table(shop.events, path)
    config = TrainingConfig(average_run_length=300, calibration_steps=20_000)
    report = protocol(Options(path, config), no_progress)
    assert report.predictions is not None
    assert report.predictions.column_names == [
        "user_id", "event_index", "timestamp", "statistic", "threshold", "from", "to", "evidence",
    ]  # fmt: skip
    assert 0 < report.figures["model: recall within 50"] <= 1
    assert report.figures["model: recall within 50"] > report.figures["model: chance within 50"]
    assert report.figures["model: events between alarms, shuffled"] > 100
    made = untrained_checkpoint(log, config)
    again = drift_table(move(planted.log, made, no_progress), planted.log, made)
    assert again.column_names == report.predictions.column_names
