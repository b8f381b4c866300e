"""The data folder: held by one worker, and stores that are damaged are wiped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stream_app.data_folder import held
from stream_app.errors import StoreError, UsageError
from stream_app.lane.table import RowTable, WorkerBudget

KEYS = [b"%06d" % number for number in range(500)]


class OneStore:
    """What the lane's table asks of Faust's store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = WorkerBudget(8).open(path)

    def _db_for_partition(self, partition: int) -> Any:
        return self.db

    def partition_path(self, partition: int) -> Path:
        return self.path


class OneTable:
    """What the lane's table asks of Faust's table."""

    def __init__(self, path: Path) -> None:
        self.data = OneStore(path)


def filled(path: Path) -> Path:
    """A store whose rows are all in one file, which is returned."""
    table = OneTable(path)
    RowTable(table).write(0, KEYS, [os.urandom(1000) for _ in KEYS], 7)  # type: ignore[arg-type]
    table.data.db.flush()
    table.data.db.close()
    (file,) = path.glob("*.sst")
    return file


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
    filled(tmp_path / "store")
    for file in (tmp_path / "store").glob(pattern):
        file.write_bytes(bytes(byte ^ 0xFF for byte in file.read_bytes()))
    table = OneTable(tmp_path / "store")
    assert RowTable(table).read(0, KEYS) == [None] * len(KEYS)  # type: ignore[arg-type]
    table.data.db.close()


@pytest.mark.parametrize("kept", range(10, 100, 10))
def test_a_list_of_files_without_its_end_is_not_believed(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "store"
    table = OneTable(path)
    for first in range(0, len(KEYS), 100):
        keys = KEYS[first : first + 100]
        RowTable(table).write(0, keys, keys, first)  # type: ignore[arg-type]
        table.data.db.flush()
    RowTable(table).write(0, KEYS[:1], KEYS[:1], len(KEYS))  # type: ignore[arg-type]
    (files,) = path.glob("MANIFEST-*")
    size = files.stat().st_size
    table.data.db.close()
    os.truncate(files, size * kept // 100)

    again = OneTable(path)
    assert RowTable(again).read(0, KEYS) == [None] * len(KEYS)  # type: ignore[arg-type]
    again.data.db.close()


def test_a_store_that_was_killed_while_it_wrote_is_kept(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from stream_app.lane.table import RowTable
from tests.unit.test_data_folder import KEYS, OneTable
rows = RowTable(OneTable(Path({str(tmp_path / "store")!r})))
for number in range(40):  # 20 MB through memtables of 4 MB
    rows.write(0, KEYS, [b"%06d" % number + os.urandom(1000) for _ in KEYS], number)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False)
    assert ended.returncode == -signal.SIGKILL
    for _ in range(3):
        table = OneTable(tmp_path / "store")
        found = RowTable(table).read(0, KEYS)  # type: ignore[arg-type]
        assert [row and row[:6] for row in found] == [b"000039"] * len(KEYS)
        RowTable(table).write(0, KEYS[:1], found[:1], 40)  # type: ignore[arg-type]
        table.data.db.close()


def test_a_store_that_cannot_be_read_is_wiped_at_the_next_start(tmp_path: Path) -> None:
    file = filled(tmp_path / "store")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
    table = OneTable(tmp_path / "store")
    with pytest.raises(StoreError, match=r"is damaged.*start the worker again"):
        RowTable(table).read(0, KEYS)  # type: ignore[arg-type]
    table.data.db.close()

    again = OneTable(tmp_path / "store")
    assert RowTable(again).read(0, KEYS) == [None] * len(KEYS)  # type: ignore[arg-type]
    again.data.db.close()


def test_a_store_whose_folder_is_gone_says_which_setting_to_look_at(tmp_path: Path) -> None:
    table = OneTable(tmp_path / "store")
    table.data.db.close()
    with pytest.raises(StoreError, match="INTEREST_DATA_DIR"):
        RowTable(table).write(0, KEYS, KEYS, 1)  # type: ignore[arg-type]
