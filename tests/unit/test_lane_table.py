"""The rows in RocksDB: whole batches, with the changelog offset where Faust's recovery looks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.stores.rocksdb import Store
from faust.types import TP

from model.state import new_rows, pack
from stream_app.errors import StoreError
from stream_app.lane.table import LaneTable, RowTable
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


class Poll:
    """An event of Faust's recovery: the records of a poll, `first` and up, one row for each key."""

    def __init__(self, first: int, keys: list[bytes], at: int = 0, partition: int = 3) -> None:
        rows = new_rows(1, 64)
        rows["offset"], rows["epoch"] = (at, -1, -1), 7
        self.row = pack(rows)[0]
        records = [
            SimpleNamespace(key=key, value=self.row, headers=(), offset=offset)
            for offset, key in enumerate(keys, first)
        ]
        self.message = SimpleNamespace(partition=partition, value=records)


@pytest.fixture
def lane_table(store: RocksDBStore) -> LaneTable:
    one = LaneTable.__new__(LaneTable)
    named = SimpleNamespace(data=store, changelog_topic_name=CHANGELOG.topic)
    one.rows, one.stale, one._markers = RowTable(named), {}, {}  # type: ignore[arg-type]
    return one


def test_polls_of_several_partitions_are_applied_with_the_offset_of_their_last_record(
    lane_table: LaneTable,
) -> None:
    ann, bob = Poll(0, [b"ann", b"bob"], at=1), Poll(2, [b"bob"], at=2)
    eve = Poll(40, [b"eve"], partition=5)
    lane_table.apply_changelog_batch([ann, eve, bob])
    assert lane_table.rows.read(3, [b"ann", b"bob"]) == [ann.row, bob.row]
    assert lane_table.rows.read(5, [b"eve"]) == [eve.row]
    assert [lane_table.rows.next_offset(partition) for partition in (3, 5)] == [3, 41]
    assert lane_table.stale == {}


def test_records_that_are_in_the_store_are_passed_over(lane_table: LaneTable) -> None:
    late = Poll(6, [b"ann"], at=9)
    lane_table.apply_changelog_batch([late])
    again = Poll(5, [b"ann", b"ann"], at=4)  # as after a seek to offset 5, or a second attempt
    lane_table.apply_changelog_batch([again])
    assert lane_table.rows.next_offset(3) == 7
    assert lane_table.stale == {}
    lane_table.apply_changelog_batch([Poll(6, [b"ann", b"ann"], at=4)])
    assert lane_table.rows.read(3, [b"ann"]) == [late.row]
    assert lane_table.stale == {3: {b"ann"}}, "offset 7 is new, and older than our row"


def test_a_batch_that_fails_in_one_partition_is_applied_whole_at_the_next_attempt(
    lane_table: LaneTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RowTable.write
    attempts = []

    def failing(rows: RowTable, partition: int, *arguments: Any) -> None:
        attempts.append(partition)
        if attempts == [3, 5]:
            raise StoreError("The disk is full.")
        write(rows, partition, *arguments)

    monkeypatch.setattr(RowTable, "write", failing)
    batch = [Poll(0, [b"ann"]), Poll(0, [b"eve"], partition=5)]
    with pytest.raises(StoreError):
        lane_table.apply_changelog_batch(batch)
    lane_table.apply_changelog_batch([*batch, Poll(1, [b"bob"])])
    assert attempts == [3, 5, 3, 5]
    assert [lane_table.rows.next_offset(partition) for partition in (3, 5)] == [2, 1]
    assert lane_table.rows.read(5, [b"eve"]) == [batch[1].row]
