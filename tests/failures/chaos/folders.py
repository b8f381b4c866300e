"""The data folder of a worker: deleted, damaged, shared, and on a disk that is full."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run

EVENTS = 2000
SMALL_BATCH = 200
REFUSED = 2
"""The exit code of a worker that is started wrongly."""
SMALL_DISK, LARGE_DISK = "4m", "512m"
DAMAGES = (
    ("*.sst", "flip"),
    ("*.log", "cut"),
    ("MANIFEST-*", "flip"),
    ("MANIFEST-*", "cut"),
    ("CURRENT", "cut"),
)
LONG_DAMAGES = (*DAMAGES, ("*.sst", "cut"), ("*.log", "flip"), ("*.sst", "delete"))


@scenario("data folder deleted between runs")
def deleted_between_runs(run: Run) -> None:
    """The rows come back from the changelog when the data folder is gone."""
    for _ in range(5 if run.long else 1):
        worker = run.worker()
        run.wait_until(run.applied(run.load.send(EVENTS)), "the events are applied")
        run.require(worker.stop() == 0, "the worker does not end in order")
        shutil.rmtree(run.home / "one")
        run.note()
    run.worker()
    run.load.send(EVENTS)


@scenario("data folder deleted under a worker")
def deleted_under_a_worker(run: Run) -> None:
    """The data folder goes while the worker writes to it."""
    one = run.supervise(max_batch_events=SMALL_BATCH)
    run.load.start(rate=500)
    run.wait_until(run.applied(EVENTS), "the worker is under load")
    for _ in range(5 if run.long else 1):
        shutil.rmtree(run.home / "one", ignore_errors=True)
        run.note()
        count = run.load.count
        run.wait_until(run.applied(count + EVENTS), "events go on to be applied")
    one.kill()
    run.wait_until(run.applied(run.load.count), "events are applied by the next worker")


@scenario("store damaged", kills=True)
def store_damaged(run: Run) -> None:
    """Files of RocksDB are flipped, cut and deleted between runs."""
    damages = LONG_DAMAGES if run.long else DAMAGES
    for turn in range(len(damages) if run.long else 2):
        worker = run.worker()
        run.wait_until(run.applied(run.load.send(EVENTS)), "the events are applied")
        worker.kill()  # not in order, so that the log of RocksDB holds rows
        for partition, store in enumerate(sorted(run.home.glob("one/**/user_state-*.db"))):
            pattern, how = damages[(partition + turn) % len(damages)]
            for file in store.glob(pattern):
                _damage(file, how, run.rng)
                run.note()
    run.worker()
    run.load.send(EVENTS)


@scenario("two workers of one data folder")
def shared_folder(run: Run) -> None:
    """The second worker is refused with a sentence, and the first goes on."""
    run.worker()
    run.load.send(EVENTS)
    folder = run.home / "one"
    second = run.worker("two", ready=False, data_dir=folder)
    run.wait_until(lambda: second.status() is not None, "the second worker is refused")
    run.note()
    run.require(
        second.status() == REFUSED
        and str(folder) in second.last_line()
        and "INTEREST_DATA_DIR" in second.last_line(),
        f"the second worker ended with status {second.status()}: {second.last_line()}",
    )
    run.load.send(EVENTS)


@scenario("disk full")
def disk_full(run: Run) -> None:
    """The disk of the data folder fills up; later there is space again."""
    with _small_disk(run) as folder:
        # Small memtables, so that rows are on the disk soon.
        one = run.supervise(data_dir=folder, max_batch_events=SMALL_BATCH, rocksdb_cache_mb=1)
        run.load.start(rate=1500)
        run.wait_until(lambda: bool(one.ends), "the disk is full")
        run.load.stop()
        run.note()
        words = one.ends[0].sentence
        run.require("INTEREST_DATA_DIR" in words, f"the sentence does not help: {words}")
        _mount("-o", f"remount,size={LARGE_DISK}", str(folder))
        run.wait_until(run.is_settled, "the worker goes on when there is space")
        run.load.send(EVENTS)
        run.settle()
        run.stop_workers()


def _damage(file: Path, how: str, rng: np.random.Generator) -> None:
    content = bytearray(file.read_bytes())
    if how == "delete":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif content:
        for place in rng.integers(len(content), size=max(1, len(content) // 1000)).tolist():
            content[place] ^= 0xFF
        file.write_bytes(content)


@contextmanager
def _small_disk(run: Run) -> Iterator[Path]:
    folder = run.home / "disk"
    folder.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        run.skip(f"a small disk cannot be mounted here, which takes root on Linux ({error})")
    try:
        yield folder
    finally:
        # Lazily: a worker that is left holds files open, and is killed later.
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
