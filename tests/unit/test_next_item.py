"""Targets, lists and figures of the next-item protocols, by hand and on a simulated shop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from model.checkpoint import Checkpoint
from model.evaluation.item_lists import MRR_20, NDCG_10, mean_intervals, places
from model.evaluation.next_item import (
    in_replay_order,
    last,
    leave_one_out,
    split_time,
    successive,
    targets_from,
)
from model.evaluation.protocols import Options
from model.event_log import EventLog, event_log, read_event_log
from model.events import Source
from model.item_baselines import ItemFloor, Mix, Queries
from model.ranking import rank
from model.simulation import ShopSettings, simulate
from model.state import new_rows
from model.tables import write_table
from model.training import TrainingConfig, make_vocabulary, no_progress
from model.transition import moved_rows
from tests.checkpoints import tiny_checkpoint

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop") / "shop.parquet"
    shop = simulate(ShopSettings(users=30, days=40, categories=12, sessions_per_day=0.8))
    write_table(shop.events, path)
    return path


@pytest.fixture(scope="module")
def log(data: Path) -> EventLog:
    return in_replay_order(read_event_log(data))


@pytest.fixture(scope="module")
def checkpoint(log: EventLog) -> Checkpoint:
    """Untrained weights over the log's own names."""
    vocabulary = make_vocabulary(log, TrainingConfig())
    known = (len(vocabulary.item_names), len(vocabulary.category_names))
    return replace(tiny_checkpoint(items=known[0], categories=known[1]), vocabulary=vocabulary)


def _log(rows: list[tuple[str, int, str]], pos: list[int] | None = None) -> EventLog:
    """Purchases (user, minute, item)."""
    columns = {
        "user_id": [user for user, _, _ in rows],
        "timestamp": [minute * MINUTE_MS for _, minute, _ in rows],
        "event_type": ["purchase"] * len(rows),
        "item_id": [item for *_, item in rows],
        "category": ["c"] * len(rows),
    }
    if pos is not None:
        columns["pos"] = pos
    return event_log(pa.table(columns), "hand")


def test_targets_by_hand() -> None:
    log = in_replay_order(
        _log(
            [
                ("u", 0, "a"),
                ("v", 10, "b"),  # at the cut-off, without an earlier event
                ("u", 20, "b"),
                ("u", 51, "a"),
                ("v", 51, "c"),
                ("u", 51, "c"),
                ("w", 1, "a"),  # nothing after the cut-off
            ]
        )
    )
    checkpoint = tiny_checkpoint()
    vocabulary = make_vocabulary(log, TrainingConfig())
    batch, users = log.batch(replace(checkpoint, vocabulary=vocabulary).vocabulary)
    steps = batch.take(np.argsort(batch.user, kind="stable"))
    targets = targets_from(steps, 10 * MINUTE_MS)
    names = [(users[u], int(n)) for u, n in zip(targets.user, targets.number, strict=True)]
    items = [vocabulary.item_name(int(i)) for i in targets.item]
    found = dict(zip(names, items, strict=True))
    assert found == {("u", 0): "b", ("u", 1): "a", ("u", 2): "c", ("v", 0): "c"}
    by_name = {name: i for i, name in enumerate(names)}
    assert [bool(targets.seen[by_name["u", n]]) for n in range(3)] == [False, True, False]
    assert [bool(targets.later[by_name["u", n]]) for n in range(3)] == [False, True, False]
    queries = targets.queries(steps)
    latest = [vocabulary.item_name(int(i)) for i in queries.latest(4)[by_name["u", 2]]]
    assert latest == ["a", "b", "a", None]
    ends = targets.last_of_users()
    assert [(users[u], int(n)) for u, n in zip(ends.user, ends.number, strict=True)] == [
        name for name in names if name in {("u", 2), ("v", 0)}
    ]


def test_events_of_one_time_go_by_position_then_by_row() -> None:
    log = _log([("u", 5, "a"), ("u", 5, "b"), ("u", 5, "c"), ("u", 1, "d")], [2, 1, 1, 9])
    ordered = in_replay_order(log)
    assert [log.items[code] for code in ordered.item] == ["d", "b", "c", "a"]


def test_the_split_leaves_a_tenth() -> None:
    log = _log([("u", minute, "a") for minute in range(101)])
    assert split_time(log) == 90 * MINUTE_MS
    assert (log.time_ms >= split_time(log)).sum() == 11


def test_the_last_event_may_have_several_lines() -> None:
    columns = {
        "user_id": ["u", "u", "v", "u"],
        "timestamp": [1, 2, 2, 3],
        "event_type": ["purchase"] * 4,
        "item_id": list("abcd"),
        "category": ["c"] * 4,
        "event_id": ["1", "2", "3", "4"],
    }
    assert event_log(pa.table(columns), "hand").last_events().tolist() == [0, 0, 0, 1]
    columns["event_id"] = ["1", "2", "2", "4"]
    columns["user_id"] = ["u", "v", "v", "u"]
    assert event_log(pa.table(columns), "hand").last_events().tolist() == [0, 0, 0, 1]


def test_figures_of_places_by_hand() -> None:
    lists = np.array([[3, 1, 2], [4, 5, 6], [7, 8, 0]])
    place = places(lists, np.array([1, 9, 0]))
    assert place.tolist() == [1, -1, -1]
    hit, gain = NDCG_10.values(np.array([0, 2, 9, 10, -1]))
    assert hit.tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(gain, [1, 0.5, 1 / np.log2(11), 0, 0])
    hit, gain = MRR_20.values(np.array([0, 3, 19, 20]))
    assert hit.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(gain, [1, 0.25, 0.05, 0])


def test_intervals_keep_a_users_targets_together() -> None:
    random = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 10)
    of_user = random.normal(0.5, 1.0, 200)
    values = np.stack((of_user[user], random.normal(0.5, 1.0, 2000)), 1)
    (low, high), (low_alone, high_alone) = mean_intervals(values, user)
    assert low < of_user.mean() < high
    assert high - low == pytest.approx(4 * 0.98 / np.sqrt(200), rel=0.2)
    assert high_alone - low_alone == pytest.approx(4 * 0.98 / np.sqrt(2000), rel=0.2)


def test_the_floor_lists_what_follows_and_what_goes_together() -> None:
    pairs = [("a", "b")] * 6 + [("c", "d")] * 6 + [("e", "a")] * 2
    rows = [
        (f"u{n}", n * 100 + step, item)
        for n, pair in enumerate(pairs)
        for step, item in enumerate(pair)
    ]
    log = in_replay_order(_log(rows))
    vocabulary = make_vocabulary(log, TrainingConfig())
    batch, _ = log.batch(vocabulary)
    floor = ItemFloor(batch, vocabulary.items, vocabulary.first_item_bucket, 30 * 86400)
    index = {name: vocabulary.item(name) for name in "abcde"}
    asked = Queries(
        np.array([index["a"], index["d"], index["b"]]), np.array([0, 1, 2]), np.array([1, 2, 3])
    )
    lists = floor.lists(asked, Mix(), 3, unseen=False)
    assert vocabulary.item_name(int(lists[0, 0])) == "b"  # follows
    assert vocabulary.item_name(int(lists[1, 0])) == "c"  # never follows d, but stands beside it
    new = floor.lists(asked, Mix(own=5.0), 5, unseen=True)
    assert not (new == np.array([[index["a"]], [index["d"]], [index["b"]]])).any()
    assert (floor.lists(asked, Mix(own=5.0), 5, unseen=False)[:, 0] == asked.item).all()
    assert (lists < vocabulary.first_item_bucket).all()
    target = np.array([index["b"], index["c"], index["a"]])
    assert floor.tune(asked, target, False, no_progress).own == 0.0
    assert floor.tune(asked, asked.item, False, no_progress).own > 0.1


def test_lists_are_those_of_the_row_before(
    data: Path, log: EventLog, checkpoint: Checkpoint
) -> None:
    report = successive(Options(data, TrainingConfig(), checkpoint), no_progress)
    assert report.predictions is not None
    assert report.predictions.column_names == ["user_id", "target", "item_id", "rank"]
    cutoff_ms = split_time(log)
    batch, users = log.batch(checkpoint.vocabulary)
    listed = report.predictions.to_pylist()
    by_target: dict[tuple[str, int], list[str]] = {}
    for row in listed:
        held = by_target.setdefault((row["user_id"], row["target"]), [])
        held.append(row["item_id"])
        assert row["rank"] == len(held)
    number = np.zeros(len(users), dtype=int)
    checked = 0
    heads = np.flatnonzero(batch.line == 0)
    seen = np.zeros(len(users), dtype=bool)
    for head in heads.tolist():
        user = int(batch.user[head])
        if batch.time_ms[head] >= cutoff_ms and seen[user]:
            key = (users[user], int(number[user]))
            number[user] += 1
            assert len(by_target[key]) == 20
            if key[1] == 2 and checked < 5:  # two events after the cut-off have moved the row
                own = np.flatnonzero(batch.user[:head] == user)
                part = batch.take(own)
                part = replace(part, user=part.user * 0)
                row, _ = moved_rows(new_rows(1, checkpoint.hidden), part, Source(), checkpoint)
                wanted = rank(row, row["last_time_ms"], checkpoint, 20, last_is_known=True).item[0]
                names = [checkpoint.vocabulary.item_name(int(i)) for i in wanted]
                assert by_target[key] == names
                checked += 1
        seen[user] = True
    assert checked == 5
    assert len(by_target) == number.sum()
    costs, reasons = report.tables[-2:]
    assert [row[0] for row in costs.rows] == ["0", "0.5", "0.8", "0.9", "0.97"]
    miscalibration = [float(row[-1]) for row in costs.rows]
    assert miscalibration == sorted(miscalibration, reverse=True)
    (curve,) = report.curves
    assert len(curve.lines["calibrated re-ranking"]) == 5
    gain = report.figures["diversity, lambda 0, NDCG@10"]
    assert gain == pytest.approx(report.figures["all, model, NDCG@10"])  # all targets are drawn
    for name, *_ in reasons.rows:
        assert report.figures[f"fidelity, {name}: drop"] > 0


def test_protocols_end_to_end(data: Path, log: EventLog, checkpoint: Checkpoint) -> None:
    for protocol, title in ((last, "last"), (leave_one_out, "leave one out")):
        report = protocol(Options(data, TrainingConfig(), checkpoint), no_progress)
        assert report.predictions is not None
        assert report.predictions.column_names == ["user_id", "item_id", "rank"]
        assert title in report.tables[0].title
        floor = next(name for name in report.figures if "mix" in name and "NDCG" in name)
        assert 0 < report.figures[floor] < 1  # untrained weights prove nothing; counts do
    lists = report.predictions.to_pylist()
    gone = log.last_events()
    known = {
        (log.users[u], log.items[i])
        for u, i in zip(log.user[~gone], log.item[~gone], strict=True)
        if i >= 0
    }
    assert not known & {(row["user_id"], row["item_id"]) for row in lists}
    assert {row["user_id"] for row in lists} == {log.users[u] for u in set(log.user[gone].tolist())}


def test_an_item_that_training_lacks_is_listed_by_its_own_name(
    data: Path, log: EventLog, tmp_path: Path, checkpoint: Checkpoint
) -> None:
    events = parquet.read_table(data).to_pylist()
    time_ms = split_time(log)
    new = [row for row in events if row["timestamp"].timestamp() * 1000 >= time_ms][:2]
    rows = [dict(row, item_id=f"new-{row['user_id']}", event_type="click") for row in new]
    again = [dict(row, event_id=f"again-{row['event_id']}") for row in rows]
    path = tmp_path / "shop.parquet"
    table = pa.Table.from_pylist([*events, *rows, *again])
    write_table(table.sort_by("timestamp"), path)
    sure = replace(checkpoint, ranking=replace(checkpoint.ranking, again=(500.0,) * 8))
    report = successive(Options(path, TrainingConfig(), sure), no_progress)
    assert report.predictions is not None
    listed = report.predictions.to_pylist()
    named = {(row["user_id"], row["item_id"]) for row in listed if "new-" in row["item_id"]}
    assert {(row["user_id"], row["item_id"]) for row in rows} == named


def test_what_comes_after_the_cut_off_trains_nothing(tmp_path: Path, log: EventLog) -> None:
    """Other events after T change no list that is made before them."""
    shop = simulate(ShopSettings(users=15, days=30, categories=8, sessions_per_day=0.8))
    table = shop.events
    read = in_replay_order(event_log(table, "shop"))
    cutoff_ms = split_time(read)
    times = [time.timestamp() * 1000 for time in table["timestamp"].to_pylist()]
    names = table["item_id"].to_pylist()
    early = sorted({n for n, time in zip(names, times, strict=True) if n and time < cutoff_ms})
    swapped = [
        name if time < cutoff_ms or name is None else early[number % len(early)]
        for number, (name, time) in enumerate(zip(names, times, strict=True))
    ]
    column = table.column_names.index("item_id")
    other = table.set_column(column, "item_id", pa.array(swapped, table["item_id"].type))
    config = replace(TrainingConfig.quick(), windows=200, lists=100)
    config = replace(config, learning=replace(config.learning, max_steps=4, counter_steps=4))
    first = []
    for name, each in (("one", table), ("other", other)):
        path = tmp_path / f"{name}.parquet"
        write_table(each, path)
        report = successive(Options(path, config), no_progress)
        assert report.predictions is not None
        first.append([row for row in report.predictions.to_pylist() if row["target"] == 0])
    assert first[0] == first[1]
