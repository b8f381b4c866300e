"""Event log files: read, refused in one sentence, and turned into a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from model.errors import EventLogError
from model.event_hash import event_hash
from model.event_log import EventLog, event_log, read_event_log
from model.events import EventType, Kind
from model.vocabulary import Vocabulary

ROWS: list[dict[str, Any]] = [
    {"user_id": "7", "event_type": "click", "action": "click", "item_id": "a", "category": "x"},
    {"user_id": "7", "event_type": "click", "action": "favourite_or_cart", "item_id": "a"},
    {"user_id": "8", "event_type": "search", "action": "search", "query": "red shoes"},
    {"user_id": "8", "event_type": "purchase", "item_id": "b", "category": "y", "event_id": "p1"},
    {"user_id": "8", "event_type": "purchase", "item_id": "c", "category": "y", "event_id": "p1"},
    {"user_id": "7", "event_type": "click", "action": "cart", "item_id": "b", "category": "y"},
]
COLUMNS = ("user_id", "event_type", "action", "item_id", "category", "query", "event_id")
START_MS = 1_700_000_000_000


def table() -> pa.Table:
    columns = {name: pa.array([row.get(name) for row in ROWS], pa.string()) for name in COLUMNS}
    times = pa.array([START_MS + 1000 * i for i in range(len(ROWS))], pa.timestamp("ms", tz="UTC"))
    return pa.table({**columns, "timestamp": times})


def write(path: Path, content: pa.Table) -> Path:
    if path.suffix == ".parquet":
        parquet.write_table(content, path)
    elif path.suffix == ".csv":
        csv.write_csv(content, path)
    else:
        rows = content.to_pylist()
        path.write_text("\n".join(json.dumps(row, default=lambda t: t.isoformat()) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_all_formats_read_alike(tmp_path: Path, suffix: str) -> None:
    log = read_event_log(write(tmp_path / f"log{suffix}", table()))
    assert log.users == ["7", "8"]
    assert log.items == ["a", "b", "c"]
    assert log.categories == ["x", "y"]
    assert log.user.tolist() == [0, 0, 1, 1, 1, 0]
    assert log.item.tolist() == [0, 0, -1, 1, 2, 1]
    assert log.category.tolist() == [0, -1, -1, 1, 1, 1]
    assert log.time_ms.tolist() == [START_MS + 1000 * i for i in range(6)]
    assert log.kind.tolist() == [
        Kind.VIEW,
        Kind.FAVOURITE,
        Kind.SEARCH,
        Kind.PURCHASE,
        Kind.PURCHASE,
        Kind.CART,
    ]
    assert log.event_ids == ["log:0", "log:1", "log:2", "p1", "log:5"]


def test_text_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    count = len(ROWS)
    places = np.arange(count + 1, dtype=np.int32).tobytes()
    buffers = [None, pa.py_buffer(places), pa.py_buffer(b"\xff" * count)]
    content = table()
    for name in ("user_id", "event_id"):
        wild = pa.Array.from_buffers(pa.string(), count, buffers)
        path = tmp_path / "log.parquet"
        column = content.schema.get_field_index(name)
        parquet.write_table(content.set_column(column, name, wild), path)
        with pytest.raises(EventLogError, match="that is no text"):
            read_event_log(path)


def test_rows_of_one_purchase_are_one_event() -> None:
    batch, users = event_log(table(), "log").batch(Vocabulary(("a", "b", "c"), ("x", "y")))
    assert users == ["7", "8"]
    assert batch.line.tolist() == [0, 0, 0, 0, 1, 0]
    assert batch.last_line.tolist() == [True, True, True, False, True, True]
    assert batch.offset.tolist() == [0, 1, 0, 0, 0, 2]
    assert batch.event_hash[3] == batch.event_hash[4] == event_hash(["p1"])[0]
    assert batch.item.tolist() == [1, 1, 0, 2, 3, 2]
    assert (batch.query[2] > 0).sum() > 2
    assert batch.query[[0, 1, 3, 4, 5]].sum() == 0


def test_equal_rows_without_an_id_are_events_of_their_own() -> None:
    content = table().drop_columns(["event_id"]).slice(0, 1)
    log = event_log(pa.concat_tables([content] * 3), "twice")
    assert log.event_ids == ["twice:0", "twice:1", "twice:2"]
    assert len(set(event_hash(log.event_ids).tolist())) == 3


def test_before_keeps_the_earlier_rows() -> None:
    log = event_log(table(), "log").before(START_MS + 3000)
    assert len(log) == 3
    assert log.time_ms.max() < START_MS + 3000
    batch, users = log.batch(Vocabulary((), ()))
    assert len(batch) == 3
    assert users == ["7", "8"]


@pytest.mark.parametrize("column", ["user_id", "timestamp", "event_type", "item_id", "category"])
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    path = write(tmp_path / "log.parquet", table().drop_columns([column]))
    with pytest.raises(EventLogError, match=f"no column {column}"):
        read_event_log(path)


@pytest.mark.parametrize("value", ["1700000000000", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20"])
def test_times_as_text(tmp_path: Path, value: str) -> None:
    row = {"user_id": 7, "timestamp": value, "event_type": "click", "item_id": "a", "category": "x"}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row))
    log = read_event_log(path)
    assert log.time_ms.tolist() == [START_MS]
    assert log.users == ["7"]


def test_a_file_without_rows_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "log.parquet", table().slice(0, 0))
    with pytest.raises(EventLogError, match=r"log\.parquet has no events; name another file\.$"):
        read_event_log(path)


def test_times_in_microseconds_are_one_sentence() -> None:
    times = pa.array([(START_MS + i) * 1000 for i in range(len(ROWS))])
    with pytest.raises(EventLogError, match="after the year 2106; give epoch milliseconds"):
        event_log(table().set_column(7, "timestamp", times), "log")


def test_a_line_that_is_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("[" * 100_000)
    with pytest.raises(EventLogError, match="cannot be read"):
        read_event_log(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"event_type": "view"}, "event_type 'view'"),
        ({"timestamp": "yesterday"}, "neither RFC 3339 nor epoch"),
        ({"timestamp": None}, "without timestamp"),
        ({"user_id": ""}, "without user_id"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    row = {"user_id": "7", "timestamp": 1, "event_type": "click", "item_id": "a", "category": "x"}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({**row, **change}))
    with pytest.raises(EventLogError, match=words):
        read_event_log(path)


@pytest.mark.parametrize("name", ["log.txt", "absent.parquet", "broken.parquet", "broken.jsonl"])
def test_an_unreadable_file_is_one_sentence(tmp_path: Path, name: str) -> None:
    if name.startswith("broken"):
        (tmp_path / name).write_text("{no log")
    with pytest.raises(EventLogError) as caught:
        read_event_log(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_hashes_are_never_0_and_equal_for_equal_ids() -> None:
    ids = [f"id-{i}" for i in range(1000)] + ["ü", "", "id-0"]
    hashes = event_hash(ids)
    assert hashes.dtype == np.uint64
    assert (hashes != 0).all()
    assert len(np.unique(hashes)) == len(ids) - 1
    assert hashes[0] == hashes[-1]
    assert event_hash([]).shape == (0,)


def test_the_digest_follows_the_content() -> None:
    log: EventLog = event_log(table(), "log")
    assert log.digest() == event_log(table(), "other").digest()
    assert log.digest() != log.before(START_MS + 3000).digest()
    assert EventType.CLICK in log.event_type
