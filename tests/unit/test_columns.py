"""A file with other columns and event types is read as if it had ours."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from model.errors import EventLogError
from model.event_log import Columns, read_event_log
from model.events import EventType, Kind
from stream_app.errors import UsageError
from stream_app.file_replay import parse_columns

ROWS = {
    "visitor": ["ann", "ann", "bob", "bob"],
    "ts": [1772360100250, 1772360101000, 1772360102000, 1772360103000],
    "what": ["view", "basket", "sale", "search"],
    "sku": ["kettle-3", "kettle-3", "boots-8", None],
    "words": [None, None, None, "boots"],
}
MAP = "user_id=visitor,timestamp=ts,event_type=what,item_id=sku,query=words,category="
TYPES = "view=click,basket=click:cart,sale=purchase"


def write(path: Path) -> Path:
    table = pa.table(ROWS)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        lines = (json.dumps({k: v for k, v in row.items() if v}) for row in table.to_pylist())
        path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_mapped_file_is_read(tmp_path: Path, suffix: str) -> None:
    log = read_event_log(write(tmp_path / f"log{suffix}"), parse_columns(MAP, TYPES))
    assert [log.users[code] for code in log.user] == ["ann", "ann", "bob", "bob"]
    assert log.time_ms.tolist() == ROWS["ts"]
    assert [EventType(n).name for n in log.event_type] == ["CLICK", "CLICK", "PURCHASE", "SEARCH"]
    assert [Kind(n).name for n in log.kind] == ["VIEW", "CART", "PURCHASE", "SEARCH"]
    assert [log.items[code] if code >= 0 else None for code in log.item] == ROWS["sku"]
    assert log.categories == []
    assert log.queries == ["boots"]
    assert log.event_ids == [f"log:{row}" for row in range(4)]


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv")
    with pytest.raises(
        EventLogError, match=r"has no column shopper; map user_id to another one\.$"
    ):
        read_event_log(path, parse_columns("user_id=shopper", ""))


@pytest.mark.parametrize(
    ("columns", "types", "sentence"),
    [
        ("user_id", "", "--map has 'user_id'; write it like a=b,c=d, each name once."),
        ("user_id=a,user_id=b", "", "--map has 'user_id=b'; write it like"),
        ("user=a", "", "'user' is no column of an event log; map one of user_id"),
        ("", "view", "--types has 'view'; write it like"),
        ("", "view=look", "'view' cannot become 'look'; name click, search, purchase"),
        ("", "view=purchase:cart", "'view' cannot become 'purchase:cart'"),
    ],
)
def test_a_wrong_mapping_is_one_sentence(columns: str, types: str, sentence: str) -> None:
    with pytest.raises((UsageError, EventLogError)) as raised:
        parse_columns(columns, types)
    assert str(raised.value).startswith(sentence)


def test_without_a_mapping_nothing_changes() -> None:
    assert parse_columns("", " ") == Columns()
