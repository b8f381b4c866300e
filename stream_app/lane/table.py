"""The rows in the local store: raw bytes in and out, whole batches at a time.

The store belongs to a Faust table, which opens, closes and recovers it. The lane reads and writes
the RocksDB of a partition directly, as Faust's own way costs 75 us a row and needs a current event.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import faust
import rocksdict
from faust.stores.rocksdb import RocksDBOptions, Store
from faust.types import TP

from stream_app.data_folder import note_files, open_or_wipe, store_error
from stream_app.errors import RecoveryError
from stream_app.lane.intake import Poll
from stream_app.lane.recovered_batch import recover_batch
from stream_app.lane.stored_rows import MARKER_PREFIX, Markers, decode_marker

if TYPE_CHECKING:
    from faust.types.tables import CollectionT

MIB = 1024 * 1024
BLOOM_BITS_PER_KEY = 10
MAX_OPEN_FILES = 128  # of one partition
TARGET_FILE_BYTES = 32 * MIB

_UNLOGGED = rocksdict.WriteOptions()
_UNLOGGED.disable_wal = True  # type: ignore[assignment, method-assign]  # it is no method


class Rows(Protocol):
    """What the lane needs of a store of rows; `RowTable` is one, a test may bring another."""

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """The rows of the keys, None where there is none."""
        ...

    def write(
        self,
        partition: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        changelog_offset: int,
    ) -> None:
        """Write rows (None deletes), and how far the changelog is in them, in one step."""
        ...


class RowTable:
    """The rows of a Faust table's RocksDB, which is written without a write-ahead log.

    A crash takes the last writes away, rows and changelog offset alike, at most the memtables: what
    stands on disk ends between two writes, and recovery reads the changelog from there. So the log
    would save a part of that reading, for a third of what a row costs.
    """

    def __init__(self, table: CollectionT) -> None:
        self._table: Any = table

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        """The rows of the keys by one multi-get, None where there is none.

        Raises:
            StoreError: the store is damaged.
        """
        store = self._store()
        try:
            found: list[bytes | None] = store._db_for_partition(partition).get(keys)
        except Exception as error:  # the only class that rocksdict raises
            raise store_error(store.partition_path(partition), error) from error
        return found

    def write(
        self,
        partition: int,
        keys: Sequence[bytes],
        rows: Sequence[bytes | None],
        changelog_offset: int,
    ) -> None:
        """Write the rows (None deletes) and the changelog offset reached, all or nothing.

        The offset stands under Faust's key, so that its recovery goes on from there. All of it has
        to be in the changelog: a crash may take it away again.

        Raises:
            StoreError: the store cannot be written, as when the disk is full.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        put = batch.put
        for key, row in zip(keys, rows, strict=True):
            if row is None:
                batch.delete(key)
            else:
                put(key, row)
        put(Store.offset_key, str(changelog_offset).encode())  # as Store.set_persisted_offset
        store = self._store()
        try:
            store._db_for_partition(partition).write(batch)
        except Exception as error:  # the only class that rocksdict raises
            raise store_error(store.partition_path(partition), error) from error
        note_files(store.partition_path(partition))

    def after(self, partition: int, key: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """The first rows and markers at or after a key, by rising keys; at most `count`."""
        database = self._store()._db_for_partition(partition)
        found = islice(database.items(from_key=key or None), count + 1)
        return [(k, value) for k, value in found if k != Store.offset_key][:count]

    def markers(self, partition: int) -> Markers:
        """The markers of erased users, by the hash of the user."""
        found = self._store()._db_for_partition(partition).items(from_key=MARKER_PREFIX)
        return {key[len(MARKER_PREFIX) :]: decode_marker(value) for key, value in found}

    def next_offset(self, partition: int) -> int:
        """The changelog offset after the last record that is in the store."""
        reached = self._store().persisted_offset(TP(self._table.changelog_topic_name, partition))
        return 0 if reached is None else int(reached) + 1

    def _store(self) -> Any:
        return self._table.data


class LaneTable(faust.Table[bytes, bytes]):
    """A Faust table whose recovery keeps the later state of a user, see recovered_rows.py.

    The offset in the store stays before the first record that is older than our row until ours is
    the last one again: whoever recovers next finds it as well, whatever ends this recovery.

    stale   per partition the keys whose last changelog record is older than our row
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.rows = RowTable(self)
        self.stale: dict[int, set[bytes]] = {}
        self._stale_from: dict[int, int] = {}
        self._markers: dict[int, Markers] = {}
        self._due: dict[int, int] = {}

    def apply_changelog_batch(self, batch: Iterable[Any]) -> None:
        """Apply polls of changelogs in Faust's recovery; of standbys, too.

        The rows of a partition and the offset of their last record are written in one step: a crash
        leaves both or neither, and what Faust takes for applied beyond that is read again. An error
        ends the worker, and nothing is written behind it: raised, Faust would log it and go on.

        Args:
            batch: events whose value is a `Poll`.
        """
        lane = self.app.lane  # type: ignore[attr-defined]
        polls: dict[int, list[Poll]] = {}
        for event in batch:
            polls.setdefault(event.message.partition, []).append(event.value)
        try:
            for partition, found in polls.items():
                if lane.failure is None:
                    self._apply(partition, found)
        except Exception as error:
            lane.fail(error)

    def recovers_from(self, partition: int, offset: int) -> None:
        """The next poll begins at this offset, or at the changelog's first record behind it.

        Faust seeks to the last record that is in the store, or to the one before the first record.
        """
        self._due[partition] = offset + 1

    def forget(self) -> None:
        """Begin a recovery: what is known of stale records and markers is read again."""
        self.stale.clear()
        self._stale_from.clear()
        self._markers.clear()

    def _apply(self, partition: int, polls: list[Poll]) -> None:
        records = self._new_records(partition, polls)
        if not records:
            return
        if partition not in self._markers:
            self._markers[partition] = self.rows.markers(partition)
        keys = list({record.key: None for record in records})
        stored = dict(zip(keys, self.rows.read(partition, keys), strict=True))
        found = recover_batch(records, stored, self._markers[partition])
        reached = records[-1].offset
        before = self.stale.get(partition)
        if before or found.stale:
            stale = self.stale[partition] = ((before or set()) - found.values.keys()) | found.stale
            first = self._stale_from.pop(partition, None)
            if stale:
                if first is None:
                    first = next(record.offset for record in records if record.key in stale)
                self._stale_from[partition] = first
                reached = first - 1
        self.rows.write(partition, list(found.values), list(found.values.values()), reached)

    def _new_records(self, partition: int, polls: list[Poll]) -> list[Any]:
        """The records of the polls that are not in the store.

        Raises:
            RecoveryError: a poll does not go on where the one before it ended.
        """
        next_offset, new = self.rows.next_offset(partition), []
        for poll in polls:
            due = self._due.get(partition, poll.end)
            if poll.start is not None and poll.start > due:
                raise RecoveryError(
                    f"The changelog of partition {partition} went on with offset {poll.start} "
                    f"where {due} was due; start the worker again, it goes on from the store."
                )
            self._due[partition] = max(due, poll.end)
            at = bisect_left(poll.records, next_offset, key=attrgetter("offset"))
            if at < len(poll.records):
                new += poll.records[at:]
                next_offset = new[-1].offset + 1
        return new


class WorkerBudget(RocksDBOptions):
    """Options under which all partitions of a worker share one block cache and one memtable budget.

    Memtables, index and filter blocks are charged to the cache, so that the memory of the store is
    about `cache_mb` however many partitions the worker has.
    """

    def __init__(self, cache_mb: int) -> None:
        super().__init__(use_rocksdict=True)
        self._cache = rocksdict.Cache(cache_mb * MIB)
        self._memtables = rocksdict.WriteBufferManager.new_write_buffer_manager_with_cache(
            cache_mb * MIB // 2, False, self._cache
        )

    def open(self, path: Path, *, read_only: bool = False) -> Any:
        """Open the RocksDB of one partition; one that is damaged is wiped first."""

        def opened() -> Any:
            store = rocksdict.Rdict(str(path), options=self.as_options())
            # A logged write behind unlogged ones would come back from a crash without them.
            store.set_write_options(_UNLOGGED)
            return store

        return open_or_wipe(path, opened)

    def as_options(self) -> Any:
        """The options of one partition."""
        blocks = rocksdict.BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
        blocks.set_cache_index_and_filter_blocks(True)
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(True)
        options = rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_max_open_files(MAX_OPEN_FILES)
        options.set_write_buffer_manager(self._memtables)
        options.set_target_file_size_base(TARGET_FILE_BYTES)
        options.set_compression_type(rocksdict.DBCompressionType.lz4())
        options.set_block_based_table_factory(blocks)
        return options
