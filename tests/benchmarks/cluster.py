"""Where a measurement takes place: topics of its own, on a broker of its own or a given cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.settings import Settings
from tests.benchmarks.processor_time import family
from tests.benchmarks.workload import bench_checkpoint
from tests.conftest import own_settings
from tests.workers import overrides_of


@contextmanager
def cluster(
    bootstrap: str | None, home: Path, partitions: int
) -> Iterator[tuple[Settings, list[psutil.Process]]]:
    """Settings with topics of their own, and the broker's processes if it is ours.

    Args:
        bootstrap: a cluster, whose topics are deleted afterwards; None starts a broker.
        home: the broker's log goes there.
        partitions: of every topic.
    """
    with ExitStack() as stack:
        processes = []
        if bootstrap is None:
            broker = stack.enter_context(EmbeddedBroker(log_file=home / "broker.log"))
            bootstrap, processes = broker.bootstrap, family(broker._process.pid)
        settings = own_settings(bootstrap, home / "data").model_copy(
            update={"partitions": partitions}
        )
        topics.create(settings)
        stack.callback(topics.delete, settings)
        yield settings, processes


def worker_overrides(settings: Settings, home: Path) -> dict[str, Any]:
    """Settings for the processes of the benchmark, with the time-outs that a user has."""
    overrides = overrides_of(settings, bench_checkpoint(), home)
    for name in ("session_timeout_s", "heartbeat_s"):
        overrides[name] = Settings.model_fields[name].default
    return overrides
