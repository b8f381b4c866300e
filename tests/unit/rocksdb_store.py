"""As much of Faust's RocksDB store as the lane touches, without an app."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from faust.stores.rocksdb import Store
from faust.types import TP

from stream_app.lane.table import RowTable, WorkerBudget


class RocksDBStore:
    """Opens the stores of partitions in a folder as a worker opens them."""

    offset_key = Store.offset_key

    def __init__(self, folder: Path) -> None:
        self._options = WorkerBudget(cache_mb=8)
        self._folder = folder
        self._open: dict[int, Any] = {}

    def partition_path(self, partition: int) -> Path:
        return self._folder / f"{partition}.db"

    def _db_for_partition(self, partition: int) -> Any:
        if partition not in self._open:
            self._open[partition] = self._options.open(self.partition_path(partition))
        return self._open[partition]

    def persisted_offset(self, tp: TP) -> int | None:
        return Store.persisted_offset(self, tp)  # type: ignore[arg-type]

    def flush(self) -> None:
        for db in self._open.values():
            db.flush()

    def close(self) -> None:
        for db in self._open.values():
            db.close()
        self._open.clear()


def row_table(store: RocksDBStore) -> RowTable:
    """The lane's table on a store."""
    return RowTable(SimpleNamespace(data=store))  # type: ignore[arg-type]
