"""The rows in RocksDB: whole batches, with the changelog offset where Faust's recovery looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faust.stores.rocksdb import Store
from faust.types import TP

from stream_app.lane.table import RowTable
from tests.unit.rocksdb_store import RocksDBStore, row_table

CHANGELOG = TP("app-user_state-changelog", 3)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    one = RocksDBStore(tmp_path)
    yield one
    one.close()


@pytest.fixture
def table(store: RocksDBStore) -> RowTable:
    return row_table(store)


def test_reads_what_was_written_and_none_for_the_rest(table: RowTable) -> None:
    table.write(3, [b"ann", b"bob"], [b"row a", b"row b"], 7)
    assert table.read(3, [b"bob", b"eve", b"ann"]) == [b"row b", None, b"row a"]
    assert table.read(2, [b"ann"]) == [None], "another partition is another store"


def test_fausts_recovery_finds_the_offset(table: RowTable, store: Any) -> None:
    assert Store.persisted_offset(store, CHANGELOG) is None
    table.write(3, [b"ann"], [b"row"], 12_345)
    assert Store.persisted_offset(store, CHANGELOG) == 12_345


def test_rows_and_offset_are_there_after_the_store_was_closed(table: RowTable, store: Any) -> None:
    table.write(3, [b"ann"], [b"row"], 8)
    table.write(3, [b"ann"], [b"newer"], 9)
    store.close()
    assert table.read(3, [b"ann"]) == [b"newer"]
    assert Store.persisted_offset(store, CHANGELOG) == 9


def test_many_partitions_share_one_budget(table: RowTable) -> None:
    row = bytes(2000)
    for partition in range(16):
        for start in range(0, 1000, 100):
            keys = [b"%d" % number for number in range(start, start + 100)]
            table.write(partition, keys, [row] * 100, start)
    assert all(table.read(partition, [b"999"]) == [row] for partition in range(16))
