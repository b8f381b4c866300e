"""The ablation: each change takes away just what it names, and what helps is seen to help."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from rich.console import Console

from model.counting import by_user
from model.evaluation import ablation, attention, readout_parts
from model.event_log import EventLog, event_log
from model.interest_lstm import InterestLSTM, NetworkSize
from model.learning import LearningSettings
from model.simulation import ShopSettings, simulate
from model.training import TrainingConfig, no_progress, train
from model.windows import UserSteps
from tests.event_batches import clicks

LEARNING = LearningSettings(max_steps=4, counter_steps=2, lanes=8, chunk=4, validate_every=4)
CONFIG = TrainingConfig(hidden=8, windows=50, lists=200, refit=False, learning=LEARNING)


@pytest.fixture(scope="module")
def log() -> EventLog:
    return event_log(simulate(ShopSettings(users=30, days=30, categories=8)).events, "sim")


def test_a_table_that_is_left_out_stays_zero(log: EventLog) -> None:
    network = train(log, replace(CONFIG, left_out=("gap", "kind")), no_progress).draft.network
    assert not bool(network.gap.weight.any())
    assert not bool(network.kind.weight.any())
    assert bool(network.hour.weight.any())


def test_every_change_changes_something(log: EventLog) -> None:
    trained = train(log, CONFIG, no_progress)
    for name, without in ablation.PARTS.items():
        before, after = trained.draft.statistics, without(trained.draft.statistics)
        changed = [
            field.name
            for field in fields(before)
            if not np.array_equal(getattr(before, field.name), getattr(after, field.name))
        ]
        assert changed, name
    for name, change in ablation.NETWORKS.items():
        assert change(TrainingConfig()) != TrainingConfig(), name


def test_the_table_has_a_row_per_change(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "NETWORKS", {"no dropout": ablation.NETWORKS["no dropout"]})
    some = ("no neighbours of the recent items", "no late popularity")
    monkeypatch.setattr(ablation, "PARTS", {name: ablation.PARTS[name] for name in some})
    table, of_attention = ablation.ablation(log, 2, CONFIG, Console(quiet=True))
    assert [row[0] for row in table.rows] == [ablation.BASE, *some, "no dropout"]
    figures = {row[0]: float(row[2]) for row in table.rows}
    assert all(0 < value < 1 for value in figures.values())
    assert np.isfinite(list(figures.values())).all()
    assert torch.get_num_threads() >= 1
    without, with_it, counts, weights = (float(row[1]) for row in of_attention.rows)
    assert 0 < with_it < without + 1
    assert 0 <= weights <= 1
    assert 0 <= counts <= 1


def test_parts_of_the_readout_are_left_out_one_by_one(log: EventLog) -> None:
    trained = train(log, CONFIG, no_progress)
    for name, weights in readout_parts.PARTS.items():
        before = trained.checkpoint.network.state_dict()
        after = readout_parts.without(trained.checkpoint, weights).network.state_dict()
        assert all(not after[weight].any() for weight in weights), name
        others = before.keys() - set(weights)
        assert all(torch.equal(before[other], after[other]) for other in others), name
    assert trained.checkpoint.network.count_weight.any()  # a copy was changed
    table = readout_parts.readout_table(log, 2, CONFIG, Console(quiet=True))
    assert [row[0] for row in table.rows] == [readout_parts.ALL, *readout_parts.PARTS]
    assert all(0 < float(row[column]) <= 1 for row in table.rows for column in (1, 3))
    changes = {row[0]: row[2] for row in table.rows}
    assert changes[readout_parts.ALL] == ""
    assert "(" in str(changes["no counts and no share of the user's own"])


def test_attention_learns_what_the_network_does_not_see() -> None:
    """The next item is always the one of three steps ago."""
    random = np.random.default_rng(0)
    users, length, items = 40, 24, 12
    user = np.repeat(np.arange(users), length)
    item = np.concatenate([np.tile(1 + random.permutation(items)[:4], 6) for _ in range(users)])
    batch = clicks(user.tolist(), np.ones(len(user), np.int64).tolist(), item.tolist())
    torch.manual_seed(0)
    network = InterestLSTM(NetworkSize(items + 1, 3, hidden=16))
    torch.nn.init.normal_(network.item.weight)
    steps = UserSteps(by_user(batch))
    task = attention.Task(network, steps, int(np.quantile(batch.time_ms, 0.8)), 0)
    before = task.late_loss(None)
    _, after = attention.fit(task, 400)
    assert after < before - 0.5
