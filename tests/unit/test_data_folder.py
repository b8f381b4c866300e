"""The data folder: held by one worker, and stores that are damaged are wiped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faust.stores.rocksdb import Store
from faust.types import TP

from stream_app.data_folder import held
from stream_app.errors import StoreError, UsageError
from tests.unit.rocksdb_store import RocksDBStore, row_table

KEYS = [b"%06d" % number for number in range(500)]


def filled(folder: Path) -> Path:
    """A store in the folder whose rows are all in one file, which is returned."""
    store = RocksDBStore(folder)
    row_table(store).write(0, KEYS, [os.urandom(1000) for _ in KEYS], 7)
    store.flush()
    store.close()
    (file,) = folder.glob("0.db/*.sst")
    return file


def rows(folder: Path) -> list[bytes | None]:
    """What is read from the store in the folder."""
    store = RocksDBStore(folder)
    try:
        return row_table(store).read(0, KEYS)
    finally:
        store.close()


def test_a_folder_is_held_by_one_worker_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    refused = pytest.raises(UsageError, match=f"{folder}.*INTEREST_DATA_DIR")
    with held(folder), refused, held(folder):
        raise AssertionError("a second worker got the folder")
    with held(folder):
        assert folder.is_dir()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(UsageError, match=r"cannot be made.*INTEREST_DATA_DIR")
    with refused, held(tmp_path / "file" / "data"):
        raise AssertionError("a folder in a file")


@pytest.mark.parametrize("pattern", ["*.sst", "MANIFEST-*", "CURRENT"])
def test_a_store_that_cannot_be_opened_is_wiped(tmp_path: Path, pattern: str) -> None:
    filled(tmp_path)
    for file in tmp_path.glob(f"0.db/{pattern}"):
        file.write_bytes(bytes(byte ^ 0xFF for byte in file.read_bytes()))
    assert rows(tmp_path) == [None] * len(KEYS)


@pytest.mark.parametrize("kept", range(10, 100, 10))
def test_a_list_of_files_without_its_end_is_not_believed(tmp_path: Path, kept: int) -> None:
    store = RocksDBStore(tmp_path)
    table = row_table(store)
    for first in range(0, len(KEYS), 100):
        keys = KEYS[first : first + 100]
        table.write(0, keys, keys, first)
        store.flush()
    table.write(0, KEYS[:1], KEYS[:1], len(KEYS))
    (files,) = tmp_path.glob("0.db/MANIFEST-*")
    size = files.stat().st_size
    store.close()
    os.truncate(files, size * kept // 100)
    assert rows(tmp_path) == [None] * len(KEYS)


def test_a_store_that_was_killed_while_it_wrote_is_kept(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.unit.rocksdb_store import RocksDBStore, row_table
from tests.unit.test_data_folder import KEYS
table = row_table(RocksDBStore(Path({str(tmp_path)!r})))
for number in range(40):  # 20 MB through memtables of 4 MB
    table.write(0, KEYS, [b"%06d" % number + os.urandom(1000) for _ in KEYS], number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    store = RocksDBStore(tmp_path)
    reached = Store.persisted_offset(store, TP("changelog", 0))  # type: ignore[arg-type]
    store.close()
    assert reached, "what was flushed before the kill"
    for _ in range(3):
        assert [row and row[:6] for row in rows(tmp_path)] == [b"%06d" % reached] * len(KEYS)


def test_a_store_that_cannot_be_read_is_wiped_at_the_next_start(tmp_path: Path) -> None:
    file = filled(tmp_path)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(StoreError, match=r"is damaged.*start the worker again"):
        rows(tmp_path)
    assert rows(tmp_path) == [None] * len(KEYS)


def test_a_store_whose_folder_is_gone_says_which_setting_to_look_at(tmp_path: Path) -> None:
    store = RocksDBStore(tmp_path)
    store._db_for_partition(0).close()
    with pytest.raises(StoreError, match="INTEREST_DATA_DIR"):
        row_table(store).write(0, KEYS, KEYS, 1)
