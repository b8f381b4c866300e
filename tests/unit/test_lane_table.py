"""The rows in RocksDB: whole batches, with the changelog offset where Faust's recovery looks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.stores.rocksdb import Store
from faust.types import TP

from model.state import new_rows, pack
from stream_app.errors import RecoveryError, StoreError
from stream_app.lane.intake import Poll
from stream_app.lane.table import LaneTable, RowTable
from tests.unit.rocksdb_store import RocksDBStore, row_table

CHANGELOG = TP("app-user_state-changelog", 3)
WRITES = 40
FLUSHED = 25


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


def changelog_table(store: RocksDBStore) -> RowTable:
    named = SimpleNamespace(data=store, changelog_topic_name=CHANGELOG.topic)
    return RowTable(named)  # type: ignore[arg-type]


def test_after_a_crash_the_store_has_every_row_up_to_its_offset(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", __name__, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    after = changelog_table(RocksDBStore(tmp_path))
    count = after.next_offset(3)
    assert FLUSHED <= count < WRITES, "a crash takes the memtable away"
    keys = [b"%d" % offset for offset in range(WRITES)]
    assert after.read(3, keys) == [b"row"] * count + [None] * (WRITES - count)


def test_what_others_put_into_the_store_does_not_outlive_the_rows_before_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", __name__, str(tmp_path), "put"], check=False)
    after = changelog_table(RocksDBStore(tmp_path))
    assert after.next_offset(3) == FLUSHED, "as Faust itself puts an offset"


def write_and_die(folder: Path, puts: bool) -> None:
    """Write a row and its offset at a time, flush in between, and kill oneself."""
    store = RocksDBStore(folder)
    rows = changelog_table(store)
    for offset in range(WRITES):
        rows.write(3, [b"%d" % offset], [b"row"], offset)
        if offset + 1 == FLUSHED:
            store.flush()
    if puts:
        Store.set_persisted_offset(store, CHANGELOG, WRITES)  # type: ignore[arg-type]
    os.kill(os.getpid(), signal.SIGKILL)


class Polled:
    """An event of Faust's recovery: a poll with records from `first` on, one row for each key."""

    def __init__(
        self,
        first: int,
        keys: list[bytes],
        at: int = 0,
        partition: int = 3,
        start: int | None = None,
        markers: int = 0,
    ) -> None:
        rows = new_rows(1, 64)
        rows["offset"], rows["epoch"] = (at, -1, -1), 7
        self.row = pack(rows)[0]
        records = [
            SimpleNamespace(key=key, value=self.row, headers=(), offset=offset)
            for offset, key in enumerate(keys, first)
        ]
        end = first + len(keys) + markers
        self.value = Poll(records, first if start is None else start, end, 0.0)
        self.message = SimpleNamespace(partition=partition)


class Lane:
    """As much of the lane as the table needs."""

    failure: Exception | None = None

    def fail(self, error: Exception) -> None:
        assert self.failure is None
        self.failure = error


@pytest.fixture
def lane() -> Lane:
    return Lane()


@pytest.fixture
def lane_table(store: RocksDBStore, lane: Lane) -> LaneTable:
    one = LaneTable.__new__(LaneTable)
    one.app = SimpleNamespace(lane=lane)  # type: ignore[assignment]
    one.rows = changelog_table(store)
    one.stale, one._stale_from, one._markers, one._due = {}, {}, {}, {}
    return one


def test_polls_of_several_partitions_are_applied_with_the_offset_of_their_last_record(
    lane_table: LaneTable, lane: Lane
) -> None:
    ann, bob = Polled(0, [b"ann", b"bob"], at=1), Polled(2, [b"bob"], at=2)
    eve = Polled(40, [b"eve"], partition=5)
    lane_table.apply_changelog_batch([ann, eve, bob])
    assert lane_table.rows.read(3, [b"ann", b"bob"]) == [ann.row, bob.row]
    assert lane_table.rows.read(5, [b"eve"]) == [eve.row]
    assert [lane_table.rows.next_offset(partition) for partition in (3, 5)] == [3, 41]
    assert lane_table.stale == {}
    assert lane.failure is None


def test_records_that_are_in_the_store_are_passed_over(lane_table: LaneTable) -> None:
    late = Polled(6, [b"ann"], at=9)
    lane_table.apply_changelog_batch([late])
    lane_table.recovers_from(3, 5)
    again = Polled(5, [b"ann", b"ann"], at=4)
    lane_table.apply_changelog_batch([again])
    assert lane_table.rows.next_offset(3) == 7
    assert lane_table.stale == {}
    lane_table.apply_changelog_batch([Polled(6, [b"ann", b"ann"], at=4)])
    assert lane_table.rows.read(3, [b"ann"]) == [late.row]
    assert lane_table.stale == {3: {b"ann"}}, "offset 7 is new, and older than our row"


def test_a_record_older_than_our_row_is_found_again_by_whoever_recovers_next(
    lane_table: LaneTable,
) -> None:
    ours, old = Polled(0, [b"ann"], at=9), Polled(1, [b"eve", b"ann"], at=4)
    lane_table.apply_changelog_batch([ours])
    lane_table.apply_changelog_batch([old])
    lane_table.apply_changelog_batch([Polled(3, [b"bob"], at=1)])
    assert lane_table.stale == {3: {b"ann"}}
    assert lane_table.rows.next_offset(3) == 2, "what stands before the first such record"
    lane_table.forget()  # the partition is taken away before our row is sent again
    lane_table.recovers_from(3, 1)
    lane_table.apply_changelog_batch([Polled(2, [b"ann"], at=4), Polled(3, [b"bob"], at=1)])
    assert lane_table.stale == {3: {b"ann"}}
    assert lane_table.rows.read(3, [b"ann"]) == [ours.row]
    lane_table.apply_changelog_batch([Polled(4, [b"ann"], at=9)])  # it is, by the owner
    assert lane_table.stale == {3: set()}
    assert lane_table.rows.next_offset(3) == 5


def test_records_that_come_again_in_a_later_poll_are_passed_over(lane_table: LaneTable) -> None:
    first, again = Polled(0, [b"ann", b"bob"], at=4), Polled(1, [b"bob", b"eve"], at=3)
    lane_table.apply_changelog_batch([first, again])
    assert lane_table.rows.read(3, [b"ann", b"bob", b"eve"]) == [first.row, first.row, again.row]
    assert lane_table.stale == {}


def test_a_poll_that_goes_on_behind_a_gap_ends_the_worker_and_is_not_applied(
    lane_table: LaneTable, lane: Lane
) -> None:
    lane_table.recovers_from(3, 0)
    lane_table.apply_changelog_batch([Polled(0, [b"ann"]), Polled(1, [b"bob"], markers=2)])
    lane_table.apply_changelog_batch([Polled(4, [b"ann"])])
    assert lane.failure is None
    lane_table.apply_changelog_batch([Polled(6, [b"eve"])])
    assert isinstance(lane.failure, RecoveryError)
    assert "partition 3 went on with offset 6 where 5 was due" in str(lane.failure)
    assert lane_table.rows.next_offset(3) == 5


def test_compaction_and_what_was_deleted_before_a_changelogs_begin_are_no_gap(
    lane_table: LaneTable, lane: Lane
) -> None:
    lane_table.recovers_from(3, 99)
    compacted = Polled(160, [b"bob"], start=102)
    lane_table.apply_changelog_batch([Polled(100, [b"ann", b"bob"]), compacted])
    assert lane.failure is None
    assert lane_table.rows.next_offset(3) == 161


def test_the_first_poll_of_a_recovery_has_to_be_there(lane_table: LaneTable, lane: Lane) -> None:
    lane_table.apply_changelog_batch([Polled(0, [b"ann", b"bob"])])
    lane_table.recovers_from(3, 1)
    lane_table.apply_changelog_batch([Polled(3, [b"eve"])])
    assert isinstance(lane.failure, RecoveryError)


def test_an_error_ends_the_worker_and_nothing_is_written_behind_it(
    lane_table: LaneTable, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RowTable.write
    attempts: list[int] = []

    def failing(rows: RowTable, partition: int, *arguments: Any) -> None:
        attempts.append(partition)
        if attempts == [3, 5]:
            raise StoreError("The disk is full.")
        write(rows, partition, *arguments)

    monkeypatch.setattr(RowTable, "write", failing)
    batch = [Polled(0, [b"ann"], partition=partition) for partition in (3, 5, 7)]
    lane_table.apply_changelog_batch(batch)
    assert str(lane.failure) == "The disk is full."
    lane_table.apply_changelog_batch(batch)  # as Faust does when the recovery stops
    lane_table.apply_changelog_batch([Polled(1, [b"bob"], partition=5)])
    assert attempts == [3, 5]
    assert [lane_table.rows.next_offset(partition) for partition in (3, 5, 7)] == [1, 0, 0]


if __name__ == "__main__":
    write_and_die(Path(sys.argv[1]), "put" in sys.argv[2:])
