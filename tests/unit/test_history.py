"""The events of a file: what a worker would refuse is refused, and their order is the worker's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from model.errors import EventLogError
from model.event_log import EventLog, event_log
from model.events import EventType
from stream_app.events import RESERVED_KEY
from stream_app.history import as_sent, history_of, live_order, read_history
from stream_app.lane.merge import NO_MAXIMA, merge
from stream_app.partitioner import partitions_for
from tests.checkpoints import tiny_checkpoint
from tests.histories import COLUMNS, START_MS, history_log, history_table

VOCABULARY = tiny_checkpoint(items=40, categories=6).vocabulary
LATEST_MS = START_MS + 10**9
CLICK = {"user_id": "ann", "timestamp": START_MS, "event_type": "click", "item_id": "item-1"}
SEARCH = {**CLICK, "event_type": "search", "item_id": None, "query": "blue"}
PURCHASE = {**CLICK, "event_type": "purchase", "event_id": "p"}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in COLUMNS} for row in rows],
        pa.schema([(n, pa.int64() if n == "timestamp" else pa.string()) for n in COLUMNS]),
    )


def log_of(*rows: dict[str, Any]) -> EventLog:
    return event_log(table(*rows), "log")


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({**CLICK, "user_id": "x" * 257}, "a user_id of more than 256 characters"),
        ({**CLICK, "user_id": RESERVED_KEY.decode()}, "the user_id that the local store keeps"),
        ({**CLICK, "event_id": "x" * 257}, "an event_id of more than 256 characters"),
        ({**CLICK, "timestamp": START_MS // 1000}, "a timestamp before 2000-01-01"),
        ({**CLICK, "timestamp": LATEST_MS + 1}, "a timestamp in the future"),
        ({**CLICK, "item_id": ""}, "no item_id"),
        ({**PURCHASE, "item_id": None}, "no item_id"),
        ({**CLICK, "item_id": "x" * 257}, "an item_id of more than 256 characters"),
        ({**SEARCH, "query": None}, "no query"),
        ({**SEARCH, "query": "x" * 1001}, "a query of more than 1000 characters"),
        ({**SEARCH, "category": "x" * 257}, "a category of more than 256 characters"),
    ],
)
def test_an_event_that_a_worker_would_refuse_is_refused(
    tmp_path: Path, wrong: dict[str, Any], what: str
) -> None:
    path = tmp_path / "log.parquet"
    parquet.write_table(table(CLICK, SEARCH, wrong, CLICK), path)
    with pytest.raises(EventLogError, match=rf"log.parquet has {what}.* in row 2, which") as caught:
        read_history(path, 4, VOCABULARY, LATEST_MS)
    assert str(caught.value).count(". ") == 0


def test_a_purchase_has_as_many_items_as_a_worker_takes(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    parquet.write_table(table(CLICK, *[PURCHASE] * 100, CLICK), path)
    assert read_history(path, 4, VOCABULARY, LATEST_MS).events == 3
    parquet.write_table(table(CLICK, *[PURCHASE] * 101, CLICK), path)
    with pytest.raises(EventLogError, match="a purchase of more than 100 items in row 1"):
        read_history(path, 4, VOCABULARY, LATEST_MS)


def test_what_is_longest_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    longest = {**SEARCH, "user_id": "ü" * 256, "query": "名" * 1000, "category": "c" * 256}
    parquet.write_table(table(longest, {**CLICK, "timestamp": LATEST_MS}), path)
    assert read_history(path, 4, VOCABULARY, LATEST_MS).users == ["ü" * 256, "ann"]


def test_a_file_without_events_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    parquet.write_table(table(), path)
    with pytest.raises(EventLogError, match="has no events; name another file"):
        read_history(path, 4, VOCABULARY, LATEST_MS)
    with pytest.raises(EventLogError, match="No such file"):
        read_history(tmp_path / "nothing.parquet", 4, VOCABULARY, LATEST_MS)


def test_an_event_is_what_its_records_can_say() -> None:
    sent = as_sent(
        log_of(
            {**CLICK, "event_id": "a", "query": "red"},
            {**CLICK, "event_id": "a", "item_id": "item-2"},  # a producer's retry
            {**SEARCH, "event_id": "b", "item_id": "item-3"},
            {**PURCHASE, "timestamp": START_MS + 5},
            {**PURCHASE, "timestamp": START_MS + 6, "item_id": "item-2"},
        )
    )
    assert [sent.items[code] if code >= 0 else None for code in sent.item] == [
        "item-1",
        None,
        "item-1",
        "item-2",
    ]
    assert (sent.query >= 0).tolist() == [False, True, False, False]
    assert (sent.time_ms - START_MS).tolist() == [0, 0, 5, 5]
    assert sent.event_type.tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("partitions", [1, 3])
def test_the_order_is_that_of_the_merge(seed: int, partitions: int) -> None:
    log = as_sent(history_log(seed, 700))
    steps, users = log.batch(VOCABULARY)
    place = partitions_for([user.encode() for user in users], partitions)
    order = live_order(steps, place)
    for number in range(partitions):
        mine = order[place[steps.user[order]] == number]
        heads = mine[steps.line[mine] == 0]
        kinds = [
            np.flatnonzero(
                (place[steps.user] == number) & (steps.event_type == kind) & (steps.line == 0)
            )
            for kind in EventType
        ]
        cut = merge([steps.time_ms[rows] for rows in kinds], NO_MAXIMA)
        merged = [kinds[t][i] for t, i in zip(cut.topic.tolist(), cut.index.tolist(), strict=True)]
        assert heads.tolist() == merged
        assert (np.diff(steps.time_ms[heads]) < 0).any()  # times that go back are among them
        lines = np.flatnonzero(steps.line[mine] > 0)
        assert (steps.event_hash[mine][lines] == steps.event_hash[mine][lines - 1]).all()


def test_a_file_gives_its_events(tmp_path: Path) -> None:
    path = tmp_path / "history.parquet"
    parquet.write_table(history_table(3, 200), path)
    found = read_history(path, 4, VOCABULARY, LATEST_MS)
    same = history_of(event_log(history_table(3, 200), "history"), 4, VOCABULARY)
    assert found.users == same.users
    assert found.partition.tolist() == same.partition.tolist()
    assert found.steps.time_ms.tolist() == same.steps.time_ms.tolist()
    assert set(found.steps.offset.tolist()) == {-1}
