"""A worker under an even load for long: memory, file descriptors and threads stay flat."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import psutil

from stream_app.lane.table import MAX_OPEN_FILES
from tests.failures.chaos.brokers import DiskBroker, bytes_in
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run

GIB = 1024**3
SECONDS, RATE = 30, 500
LONG_SECONDS, LONG_RATE = 1800, 10_000
DISK_BUDGET_BYTES = 2 * GIB
LONG_DISK_BUDGET_BYTES = 60 * GIB
"""Of broker and worker together; 18 million events of 220 bytes, their outputs and rows."""
FLAT = 0.05
"""How much the last third may lie above or below the first."""
SAMPLE_EVERY_S = 0.5
TABLE_FILES = 4 * MAX_OPEN_FILES
"""Of all partitions."""
WARM_UP_S = 10.0


def _table_files(process: psutil.Process) -> int:
    """Files of RocksDB's tables, which come with writes and go with compactions."""
    return sum(file.path.endswith(".sst") for file in process.open_files())


FIGURES: dict[str, Callable[[psutil.Process], int]] = {
    "memory": lambda process: process.memory_info().rss,
    "file descriptors": lambda process: process.num_fds() - _table_files(process),
    "threads": lambda process: process.num_threads(),
}


@scenario("soak", broker=DiskBroker)
def soak(run: Run) -> None:
    """An even load on a broker with its data on disk: the worker does not grow."""
    seconds, rate = (LONG_SECONDS, LONG_RATE) if run.long else (SECONDS, RATE)
    budget = LONG_DISK_BUDGET_BYTES if run.long else DISK_BUDGET_BYTES
    worker = run.worker()
    run.load.start(rate)
    time.sleep(WARM_UP_S)
    process = psutil.Process(worker.pid)
    samples: dict[str, list[int]] = {name: [] for name in FIGURES}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        worker.check_alive()
        run.require(_table_files(process) <= TABLE_FILES, "RocksDB holds too many files open")
        for name, figure in FIGURES.items():
            samples[name].append(figure(process))
        used = run.broker.data_bytes() + bytes_in(run.home / "one")
        run.require(used < budget, f"{used / GIB:.1f} GiB on disk, budgeted are {budget / GIB:g}")
        time.sleep(SAMPLE_EVERY_S)
    run.note()
    for name, values in samples.items():
        third = len(values) // 3
        first, last = statistics.mean(values[:third]), statistics.mean(values[-third:])
        run.require(
            abs(last - first) <= FLAT * first,
            f"{name} of the worker went from {first:,.0f} in the first third to {last:,.0f} in "
            "the last",
        )
