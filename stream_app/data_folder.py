"""The data folder of a worker: nobody else's, and wiped where it is damaged.

All that is in it can be had again: the changelog has every row.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stream_app.errors import StoreError, UsageError

logger = logging.getLogger(__name__)

LOCK = "in-use.lock"
DAMAGED = "DAMAGED"
"""A file that marks the store of a partition as one to wipe before it is opened again."""

FILES_SEEN = "files-seen"
"""A file that says how long the store's list of its files was when rows were last written."""

_noted: dict[Path, tuple[Path, int]] = {}
"""By store that is open, the list of its files and the length that was written down."""

_T = TypeVar("_T")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make the folder if need be, and keep it from other workers of this machine.

    The lock goes with the process, however that ends.

    Raises:
        UsageError: the folder cannot be made, or another worker has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / LOCK, "w")  # noqa: SIM115
    except OSError as error:
        raise UsageError(
            f"The data folder {folder} cannot be made ({error.strerror}); set "
            "INTEREST_DATA_DIR to another."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UsageError(
                f"The data folder {folder} is in use by another worker; set INTEREST_DATA_DIR to a "
                "folder of this worker's own, or end the other one."
            ) from None
        yield


def open_or_wipe(path: Path, open_store: Callable[[], _T]) -> _T:
    """Open the store of a partition; a damaged one is wiped first, and begins empty.

    Recovery then reads the whole changelog of the partition, as the offset reached is gone too.

    What keeps it from being opened otherwise is raised as it came.
    """
    _noted.pop(path, None)
    if (path / DAMAGED).exists():
        _wipe(path, "it could not be read")
    elif _has_lost_files(path):
        _wipe(path, "its list of files has lost its end")
    try:
        return open_store()
    except Exception as error:  # the only class that rocksdict raises
        if not _is_damage(error):
            raise
        _wipe(path, str(error))
        return open_store()


def store_error(path: Path, error: Exception) -> StoreError:
    """What ends the worker when the store of a partition cannot be read or written."""
    if _is_damage(error):
        with suppress(OSError):
            (path / DAMAGED).touch()
        return StoreError(
            f"The local store {path} is damaged ({error}); start the worker again: it wipes the "
            "store and rebuilds the rows from the changelog."
        )
    return StoreError(
        f"The local store {path} cannot be used ({error}); make sure that INTEREST_DATA_DIR is "
        "there, writable and has free space, and start the worker again."
    )


def note_files(path: Path) -> None:
    """Write down how long the list of files of an open store is, if that has changed.

    RocksDB takes a list that has lost its end for a whole one, and opens without the rows of the
    files that are missing there. What was added to the list after the last batch is not seen.
    """
    with suppress(OSError):  # it is another list now
        if path in _noted and _noted[path][0].stat().st_size == _noted[path][1]:
            return
    with suppress(OSError, ValueError):  # then the next batch does it
        list_file = _list_file(path)
        number, size = _length(list_file)
        new = (path / FILES_SEEN).with_suffix(".new")
        new.write_text(f"{number} {size}")
        new.replace(path / FILES_SEEN)
        _noted[path] = list_file, size


def _has_lost_files(path: Path) -> bool:
    try:
        number, size = map(int, (path / FILES_SEEN).read_text().split())
        return _length(_list_file(path)) < (number, size)
    except (OSError, ValueError):
        return False  # not noted yet, or RocksDB itself is going to find what is wrong


def _length(list_file: Path) -> tuple[int, int]:
    """Number of a MANIFEST and its size; numbers rise with each opening."""
    return int(list_file.name.removeprefix("MANIFEST-")), list_file.stat().st_size


def _list_file(path: Path) -> Path:
    """The MANIFEST that is in use."""
    return path / (path / "CURRENT").read_text().strip()


def _is_damage(error: Exception) -> bool:
    return str(error).startswith("Corruption")


def _wipe(path: Path, why: str) -> None:
    logger.warning(
        "The local store %s is wiped, and its rows are read from the changelog (%s)", path, why
    )
    shutil.rmtree(path)
