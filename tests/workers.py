"""Starts real workers for tests, and waits for what they have to reach."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kafka.admin import KafkaAdminClient

from model.checkpoint import Checkpoint, save
from stream_app.demo.processes import WorkerProcess
from stream_app.log_records import LogRecord
from stream_app.producing import EventProducer, produce
from stream_app.settings import Settings

WAIT_S = 120.0
"""Bound of every wait; no verdict depends on it."""
SESSION_TIMEOUT_S = 6.0 if "INTEREST_KAFKA_BOOTSTRAP" in os.environ else 3.0
"""Brokers refuse less than 6 s by default; the embedded one takes what shortens the tests."""

FASTER = {"rebalance_timeout_s": 3.0, "commit_interval_s": 0.2}
"""Settings of workers that shorten what a test waits for."""


def overrides_of(settings: Settings, checkpoint: Checkpoint, home: Path) -> dict[str, Any]:
    """Settings for a worker process: those of the test, with a checkpoint written to ``home``."""
    directory = home / "checkpoint"
    save(checkpoint, directory, "A checkpoint for a test.")
    changed = settings.model_dump(exclude_defaults=True, exclude={"data_dir", "http_port"})
    return {
        **changed,
        "kafka_bootstrap": settings.kafka_bootstrap,
        "checkpoint": directory,
        "session_timeout_s": SESSION_TIMEOUT_S,
        "heartbeat_s": 0.5,
        "log_level": "warn",
    }


def start_worker(overrides: dict[str, Any], home: Path, name: str = "worker") -> WorkerProcess:
    """A worker process that is ready."""
    worker = WorkerProcess(overrides, home, name)
    try:
        worker.wait_until_ready(WAIT_S)
    except BaseException:
        worker.kill()
        raise
    return worker


def send_all(settings: Settings, records: Iterable[LogRecord]) -> int:
    """Produces the records and waits for their acknowledgements."""
    producer = EventProducer(settings)
    count = produce(producer, records)
    producer.close()
    return count


def committed_events(settings: Settings) -> int:
    """Records of the input topics below the committed offsets of the worker's group."""
    admin = KafkaAdminClient(**settings.kafka_python())
    try:
        offsets = admin.list_group_offsets(settings.app_id).get(settings.app_id, {})
    finally:
        admin.close()
    inputs = set(settings.input_topics)
    return sum(max(0, o.offset) for place, o in offsets.items() if place.topic in inputs)


def wait_until(reached: Callable[[], bool], worker: WorkerProcess | None = None) -> None:
    """Waits for a condition; fails when the worker ends before it is reached."""
    deadline = time.monotonic() + WAIT_S
    while not reached():
        if worker is not None:
            worker.check_alive()
        assert time.monotonic() < deadline, "the condition was not reached in time"
        time.sleep(0.05)
