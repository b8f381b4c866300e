"""A worker under an even load for long: memory, file descriptors and threads stay flat.

The broker reads and writes all of its data anew every minute or so, and has them in memory then. So
the long form, of 18 million events, lets it delete what is applied: rows and dead letters are then
checked by counts alone, and the outputs are not compared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import suppress

import psutil
from kafka import TopicPartition

from stream_app.admin import admin_client
from stream_app.errors import InterestStreamError
from stream_app.lane.reading import bounds
from stream_app.lane.table import MAX_OPEN_FILES
from tests.failures.chaos.brokers import DiskBroker, bytes_in
from tests.failures.chaos.counts import check_counts
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run

GIB = 1024**3
SECONDS, RATE = 30, 500
LONG_SECONDS, LONG_RATE = 1800, 10_000
DISK_BUDGET_BYTES = 2 * GIB
LONG_DISK_BUDGET_BYTES = 8 * GIB
"""Of broker and worker together; the long form keeps what was written in the last half minute or
so, and the broker has it twice while it writes all anew."""
DELETE_EVERY_S = 10.0
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


@scenario("soak", settles=False, broker=DiskBroker)
def soak(run: Run) -> None:
    """An even load on a broker with its data on disk: the worker does not grow."""
    _stay_flat(run)
    if run.long:
        run.settle()
        run.stop_workers()
        check_counts(run, run.load.all())
    else:
        run.check()


def _stay_flat(run: Run) -> None:
    seconds, rate = (LONG_SECONDS, LONG_RATE) if run.long else (SECONDS, RATE)
    budget = LONG_DISK_BUDGET_BYTES if run.long else DISK_BUDGET_BYTES
    worker = run.worker()
    run.load.start(rate)
    time.sleep(WARM_UP_S)
    process = psutil.Process(worker.pid)
    samples: dict[str, list[int]] = {name: [] for name in FIGURES}
    began = deleted = time.monotonic()
    while time.monotonic() - began < seconds:
        worker.check_alive()
        run.require(_table_files(process) <= TABLE_FILES, "RocksDB holds too many files open")
        for name, figure in FIGURES.items():
            samples[name].append(figure(process))
        used = run.broker.data_bytes() + bytes_in(run.home / "one")
        run.require(used < budget, f"{used / GIB:.1f} GiB on disk, budgeted are {budget / GIB:g}")
        if run.long and time.monotonic() - deleted > DELETE_EVERY_S:
            with suppress(InterestStreamError):  # the broker is busy with its data; the next time
                _delete_what_is_applied(run)
            deleted = time.monotonic()
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


def _delete_what_is_applied(run: Run) -> None:
    settings = run.settings
    ends = {TopicPartition(*place): offset for place, offset in run.committed().items()}
    for topic in (settings.recommendations_topic, settings.drift_topic):
        for partition in range(settings.partitions):
            ends[TopicPartition(topic, partition)] = bounds(settings, topic, partition)[1]
    with admin_client(settings) as admin:
        admin.delete_records({place: offset for place, offset in ends.items() if offset > 0})
