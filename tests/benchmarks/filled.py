"""Topics whose changelog has rows before anything is measured.

The back-fill makes the rows of 10,000 users with 20 events each, on average, and publishes each of
them under as many users' keys as it takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from stream_app.history import read_history
from stream_app.history_publishing import look, publish
from stream_app.history_rows import MadeRows, make_rows
from stream_app.partitioner import partitions_for
from stream_app.settings import Settings
from stream_app.terminal import Stages
from tests.benchmarks.backfill import write_log
from tests.benchmarks.cluster import cluster
from tests.benchmarks.processes import BenchmarkError
from tests.benchmarks.workload import (
    EVENTS_PER_USER,
    bench_checkpoint,
    population_of,
    user_keys,
)
from tests.noida import NoidaBroker

PARTITIONS = 8
TEMPLATES = 10_000
"""Users whose rows are made of events; the others have copies of theirs."""
PUBLISHED_TOGETHER = 50_000
ROW_RECORD_BYTES = 2_200
"""Of a row in a broker."""
MEMORY_SHARE = 0.6
"""Of the free memory that the embedded broker may come to take."""


@dataclass(frozen=True)
class Rows:
    """Rows that the back-fill has made: as stored (T,), and their users' own categories (T, 3)."""

    values: list[bytes]
    own: np.ndarray


def make_templates(home: Path, show: Stages) -> Rows:
    """The rows of the users of a log, made by the back-fill."""
    what = "Making rows"
    show(what, 0, 1)
    events = TEMPLATES * EVENTS_PER_USER
    path = home / "log.parquet"
    write_log(path, events)
    checkpoint = bench_checkpoint()
    history = read_history(path, PARTITIONS, checkpoint.vocabulary, int(time.time() * 1e3))
    batch = Settings.model_fields["max_batch_events"].default
    made = list(make_rows(history, checkpoint, PARTITIONS, batch))
    show(what, 1, 1)
    number = {key: user for user, key in enumerate(user_keys(TEMPLATES))}
    users = [number[key] for part in made for key in part.keys]
    return Rows([value for part in made for value in part.values], population_of(events).own[users])


def broker_for(needed_bytes: int, home: Path, stack: ExitStack) -> tuple[str, str]:
    """A broker that holds so much, its name and its address."""
    if needed_bytes < MEMORY_SHARE * psutil.virtual_memory().available:
        settings, _ = stack.enter_context(cluster(None, home, PARTITIONS))
        return "the embedded broker, in memory", settings.kafka_bootstrap
    try:
        noida = stack.enter_context(NoidaBroker(home / "noida", home / "noida.log"))
    except ModuleNotFoundError:
        raise BenchmarkError(
            f"The rows and events take about {needed_bytes / 1e9:.0f} GB of memory in the embedded "
            "broker, and noida-db is not installed; name fewer with --users."
        ) from None
    return "noida-db, on disk", noida.bootstrap


def fill(settings: Settings, rows: Rows, users: int, show: Stages) -> np.ndarray:
    """Publish the rows of so many users; which row each of them has, (U,)."""
    template = np.random.default_rng(users).permutation(users) % len(rows.values)
    publish(
        settings,
        look(settings),
        _copies(rows, template),
        lambda count: show(f"Publishing {users:,} rows", count, users),
    )
    return template


def _copies(rows: Rows, template: np.ndarray) -> Iterator[MadeRows]:
    """The rows of all users, some at a time; each has the row of its template (U,)."""
    keys = user_keys(len(template))
    for start in range(0, len(keys), PUBLISHED_TOGETHER):
        part = slice(start, start + PUBLISHED_TOGETHER)
        yield MadeRows(
            partition=partitions_for(keys[part], PARTITIONS),
            keys=keys[part],
            values=[rows.values[number] for number in template[part].tolist()],
            events=0,
            repeats=0,
        )
