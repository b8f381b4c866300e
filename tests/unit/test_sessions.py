"""Sessions and periods: what is read, what is listed, and a memory that stays bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from model import continual as learner
from model.continual import first_memory, grown, grown_network, in_grown, moved_on
from model.errors import EventLogError
from model.evaluation import continual, sessions
from model.evaluation.protocols import Options
from model.event_log import EventLog
from model.events import EventBatch
from model.learning import LearningSettings
from model.training import TrainingConfig, no_progress, train
from tests.checkpoints import tiny_checkpoint

LEARNING = LearningSettings(max_steps=4, counter_steps=1, lanes=8, chunk=4, validate_every=4)
CONFIG = TrainingConfig(hidden=8, windows=10, lists=50, refit=False, learning=LEARNING)
ITEMS = 12


def _walks(count: int, seed: int, items: int = ITEMS) -> list[list[int]]:
    """Sessions that mostly go from an item to the one behind it."""
    random = np.random.default_rng(seed)
    walks = []
    for _ in range(count):
        at, walk = int(random.integers(items)), []
        for _ in range(int(random.integers(2, 6))):
            walk.append(at + 1)
            at = (at + 1) % items if random.random() < 0.8 else int(random.integers(items))
        walks.append(walk)
    return walks


@pytest.fixture(scope="module")
def session_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sessions") / "sessions.parquet"
    train_rows, test_rows = _walks(300, 0), _walks(40, 1)
    split = ["train"] * len(train_rows) + ["test"] * len(test_rows)
    parquet.write_table(pa.table({"split": split, "items": train_rows + test_rows}), path)
    return path


@pytest.fixture(scope="module")
def period_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("periods") / "periods.parquet"
    rows: list[tuple[int, int, int]] = []
    for period in range(3):
        walks = _walks(120, period, ITEMS + 2 * period)  # two new items in each period
        clicks = [(step, n, item) for n, walk in enumerate(walks) for step, item in enumerate(walk)]
        rows += [(period, n, item) for _, n, item in sorted(clicks)]  # sessions interleave
    columns = dict(zip(("period", "session", "item"), zip(*rows, strict=True), strict=True))
    parquet.write_table(pa.table({name: list(column) for name, column in columns.items()}), path)
    return path


def test_a_session_is_a_user(session_file: Path) -> None:
    log, test = sessions.read_sessions(session_file)
    walks = _walks(300, 0)
    assert len(log.users) == 300
    assert len(test.users) == 40
    for user in (0, 17, 299):
        own = log.user == user
        assert [int(log.items[code]) for code in log.item[own]] == walks[user]
        assert (np.diff(log.time_ms[own]) > 0).all()
    assert log.users[17] == "17"
    first = [int(log.time_ms[log.user == user].min()) for user in range(300)]
    assert first == sorted(first)


def test_sessions_end_to_end(session_file: Path) -> None:
    report = sessions.protocol(Options(session_file, CONFIG), no_progress)
    assert report.predictions is not None
    assert report.predictions.column_names == ["seq", "items"]
    lists = report.predictions["items"].to_pylist()
    assert report.predictions["seq"].to_pylist() == list(range(40))
    assert all(len(set(listed)) == len(listed) == ITEMS for listed in lists)
    walks = _walks(40, 1)
    place = [listed.index(str(walk[-1])) for listed, walk in zip(lists, walks, strict=True)]
    mrr = float(np.mean([1 / (p + 1) for p in place]))
    assert report.figures["all, model, MRR@20"] == pytest.approx(mrr)
    following = [
        listed[0] == str(walk[-2] % ITEMS + 1) for listed, walk in zip(lists, walks, strict=True)
    ]
    assert np.mean(following) > 0.8


@pytest.mark.parametrize("column", ["split", "items"])
def test_a_file_without_a_column_is_refused(tmp_path: Path, column: str) -> None:
    table = pa.table({"split": ["train", "test"], "items": [[1, 2], [2, 3]]})
    path = tmp_path / "other.parquet"
    parquet.write_table(table.drop_columns([column]), path)
    with pytest.raises(EventLogError, match=column):
        sessions.read_sessions(path)


def test_periods_end_to_end(period_file: Path) -> None:
    report = continual.protocol(Options(period_file, CONFIG), no_progress)
    table = parquet.read_table(period_file)
    assert report.predictions is not None
    listed = report.predictions.to_pylist()
    at = 0
    for period in (1, 2):
        rows = [row for row in table.to_pylist() if row["period"] == period]
        begun: set[int] = set()
        last: dict[int, int] = {}
        seq, follows = 0, []
        for row in rows:
            if row["session"] in begun:
                assert listed[at]["period"] == period
                assert listed[at]["seq"] == seq
                before = last[row["session"]]
                if before < ITEMS:
                    follows.append(listed[at]["items"][0] == str(before + 1))
                seq, at = seq + 1, at + 1
            begun.add(row["session"])
            last[row["session"]] = row["item"]
        assert np.mean(follows) > 0.8
    assert at == len(listed)
    of_all, of_known = (
        report.figures[f"mean over periods, {group}, model, MRR@20"]
        for group in ("all", "known items")
    )
    assert 0 < of_all < of_known <= 1
    beside = report.tables[-1]
    assert [row[0] for row in beside.rows] == [
        "moved on, period by period",
        "trained anew on all earlier periods",
    ]
    assert all(0.3 < float(row[2]) <= 1 for row in beside.rows)  # type: ignore[arg-type]
    floor = report.figures["mean over periods, known items, Markov + kNN mix, P@20"]
    assert 0.8 < floor <= 1  # 20 places for some dozen items


def test_the_first_period_is_predicted_by_nobody_and_unknown_items_follow_themselves_alone(
    period_file: Path,
) -> None:
    report = continual.protocol(Options(period_file, CONFIG), no_progress)
    assert report.predictions is not None
    listed: dict[int, list[list[str]]] = {}
    for row in report.predictions.to_pylist():
        listed.setdefault(row["period"], []).append(row["items"])
    assert set(listed) == {1, 2}
    new = {str(ITEMS + 1), str(ITEMS + 2)}
    clicks = [row for row in parquet.read_table(period_file).to_pylist() if row["period"] == 1]
    last: dict[int, str] = {}
    before = []
    for click in clicks:
        if click["session"] in last:
            before.append(last[click["session"]])
        last[click["session"]] = str(click["item"])
    for items, previous in zip(listed[1], before, strict=True):
        assert new & set(items) == new & {previous}
    assert new <= {item for items in listed[2] for item in items}


@pytest.fixture(scope="module")
def logs(period_file: Path) -> list[EventLog]:
    return continual.read_periods(period_file)[0]


def test_the_memory_stays_bounded(logs: list[EventLog], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "EXEMPLARS", 50)
    monkeypatch.setattr(learner, "KEPT_PAIRS", 3)
    checkpoint = train(logs[0], CONFIG).checkpoint
    memory = first_memory(checkpoint, logs[0])
    for log in logs[1:]:
        checkpoint, memory = moved_on(
            checkpoint, memory, log, checkpoint.ranking, LEARNING, no_progress
        )
        assert len(np.unique(memory.exemplars.user)) == 50
        assert np.bincount(memory.follow.source).max() <= 3
        assert np.bincount(memory.together.source).max() <= 3
    assert {str(n + 1) for n in range(ITEMS + 4)} <= set(checkpoint.vocabulary.item_names)
    assert isinstance(memory.exemplars, EventBatch)


def test_names_that_no_index_had_are_not_taken_for_new_ones(logs: list[EventLog]) -> None:
    names = tuple(str(n + 1) for n in range(ITEMS))
    before = replace(tiny_checkpoint(items=ITEMS, categories=2).vocabulary, item_names=names[:-2])
    after = grown(before, logs[2])
    steps, _ = logs[0].batch(before)
    moved = in_grown(steps, before, after)
    nameless = steps.item >= before.first_item_bucket
    assert nameless.any()
    assert (after.first_item_bucket <= moved.item[nameless]).all()
    assert (moved.item[nameless] < after.items).all()
    assert (moved.item[~nameless] == steps.item[~nameless]).all()
    assert (moved.category >= after.first_category_bucket).all()


def test_what_is_known_keeps_index_and_weights(logs: list[EventLog]) -> None:
    before = tiny_checkpoint(items=ITEMS, categories=2)
    names = tuple(str(n + 1) for n in range(ITEMS))
    vocabulary = replace(before.vocabulary, item_names=names)
    after = grown(vocabulary, logs[2])
    assert after.item_names[:ITEMS] == names
    assert len(set(after.item_names)) == len(after.item_names) > ITEMS
    network = grown_network(before.network, vocabulary, after, 0)
    known, behind = vocabulary.first_item_bucket, after.first_item_bucket
    table, old = network.item.weight, before.network.item.weight
    assert bool((table[:known] == old[:known]).all())
    assert bool((table[behind:] == old[known:]).all())
    assert bool((network.item_bias[:known] == before.network.item_bias[:known]).all())
    assert bool((network.cell.weight_hh == before.network.cell.weight_hh).all())


def test_neighbours_of_categories_stay_the_same_when_categories_come() -> None:
    before = tiny_checkpoint(items=ITEMS, categories=4)
    vocabulary, old = before.vocabulary, before.network
    names = (*vocabulary.category_names, "later", "latest")
    after = replace(vocabulary, category_names=names)
    made = grown_network(old, vocabulary, after, 0)
    known, behind = vocabulary.first_category_bucket, after.first_category_bucket
    assert behind == known + 2
    same = np.r_[np.arange(known), np.arange(behind, after.categories)]  # old index to new
    assert np.array_equal(made.near_category.numpy()[same], same[old.near_category.numpy()])
    assert torch.equal(made.near_share[torch.from_numpy(same)], old.near_share)
    assert not made.near_share[known:behind].any()
    assert np.array_equal(made.near_item_category.numpy(), same[old.near_item_category.numpy()])
    assert torch.equal(made.near_item_share, old.near_item_share)
