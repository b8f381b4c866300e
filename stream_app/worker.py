"""The worker: wires Faust, the lane, metrics and health together, and runs them.

build_app    a Faust app with the lane as its data path
run          one worker until a signal or a failure; the exit code
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import faust
import torch
from faust.exceptions import ConsistencyError
from faust.types import TP
from prometheus_client import CollectorRegistry, ProcessCollector

from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint
from model.errors import ModelError
from stream_app import topics
from stream_app.data_folder import held
from stream_app.errors import (
    InterestStreamError,
    TopicError,
    UsageError,
    WorkerError,
)
from stream_app.health import HealthServer, WorkerHealth
from stream_app.lane.app import InterestApp, RawBatches
from stream_app.lane.commit import AtStep, no_step
from stream_app.lane.lane import Lane
from stream_app.lane.recovery import store_is_ahead
from stream_app.lane.table import LaneTable
from stream_app.lane.transport import LaneTransport
from stream_app.metrics import Metrics
from stream_app.repartition.step import Repartition
from stream_app.security import hide_credentials
from stream_app.settings import Settings
from stream_app.user_endpoint import PATH, UserEndpoint

TABLE = "user_state"
FETCH_BYTES = 2 * 1024 * 1024
"""Of one partition and fetch; bounds what aiokafka holds of each."""
PRODUCER_BATCH_BYTES = 900_000
"""Below the brokers' default of 1,048,588 for a record batch."""
RECOVERY_POLLS = 8
"""Polls of the changelogs that a recovery writes to the store at once; bounds memory.

Not 1: Faust would then go on reading the changelogs of its own partitions after the recovery.
"""
SEND_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 1.0
"""For tasks that are left when all is committed and closed, and do not end when cancelled."""
STREAM_BUFFER_BATCHES = 65_536
"""Never reached: polls of the inputs go past Faust's queues, and few of a changelog may wait."""


def build_app(
    settings: Settings,
    checkpoint: Checkpoint,
    registry: CollectorRegistry,
    at_step: AtStep = no_step,
    until: Mapping[TP, int] | None = None,
) -> InterestApp:
    """A Faust app that applies the input topics to the rows. Starts nothing.

    Args:
        settings: of the worker.
        checkpoint: the model.
        registry: receives the metrics.
        at_step: told every step of every commit, see lane/commit.py; for tests.
        until: offset per topic partition at which a replay ends, None to go on with what comes.
    """
    app = InterestApp(
        settings.app_id,
        broker=settings.faust_broker_url(),
        broker_credentials=settings.faust_credentials(),
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_commit_interval=settings.commit_interval_s,
        broker_max_poll_records=settings.max_batch_events,
        consumer_max_fetch_size=FETCH_BYTES,
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_linger=0.0,
        producer_max_batch_size=PRODUCER_BATCH_BYTES,
        producer_request_timeout=SEND_TIMEOUT_S,
        store="rocksdb://",
        datadir=settings.data_dir,
        stream_wait_empty=False,
        stream_buffer_maxsize=STREAM_BUFFER_BATCHES,
        table_standby_replicas=settings.standby_replicas,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        topic_disable_leader=True,
        web_enabled=False,
        Table=LaneTable,
        worker_redirect_stdouts=False,
    )
    app.transport = LaneTransport(app.conf.broker_consumer, app)
    raw = RawBatches(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    table = app.Table(
        TABLE,
        key_type=bytes,
        value_type=bytes,
        schema=raw,
        partitions=settings.partitions,
        options={"driver": "rocksdict"},
        recovery_buffer_size=RECOVERY_POLLS,
        standby_buffer_size=1,
        extra_topic_configs={"min.insync.replicas": str(settings.min_insync)},
    )
    app.table = table
    app.settings = settings
    app.checkpoint = checkpoint = replace(
        checkpoint,
        recommend_every=settings.recommend_every,
        top_k=settings.top_k,
        state_ttl_s=settings.state_ttl_s,
    )
    app.metrics = Metrics(registry)
    drift = checkpoint.drift
    app.metrics.set_model(
        checkpoint.version,
        checkpoint.hidden,
        drift.false_alarms,
        drift.average_run_length,
        (drift.history_low, drift.history_high),
        checkpoint.trained_until_s,
    )
    ProcessCollector(registry=registry)  # memory, processor time, open files
    app.health = WorkerHealth()
    app.metrics.follow(app.health, time.monotonic)
    app.health_server = HealthServer(app.health, registry, token=settings.http_access())
    assert isinstance(table, LaneTable)
    app.lane = Lane(
        app, table, settings, checkpoint, app.metrics, app.health, app.fail, at_step, until
    )
    if settings.adapters and until is None:  # a replay must not map anything a second time
        app.repartition = Repartition(settings, app.adapters_report, app.adapters_fail, at_step)
    users = UserEndpoint(
        app.lane,
        app.assignor,
        settings.input_topics,
        settings.changelog_topic,
        settings.partitions,
        checkpoint,
        settings.http_access(),
    )
    app.health_server.add_user_data(PATH, users.get)
    read = (*settings.input_topics, settings.control_topic)
    source = app.topic(*read, schema=raw, acks=False)

    @app.agent(source, name="lane")
    async def lane(stream: Any) -> None:
        await app.lane.run(stream)

    return app


class LaneWorker(faust.Worker):
    """Faust's worker, with an end in time: a stop that hangs ends the process."""

    shutdown_timeout_s = 8.0
    _deadline: threading.Timer | None = None

    def _schedule_shutdown(self, signal: Any) -> None:
        self.end_in_time()
        super()._schedule_shutdown(signal)

    def end_in_time(self) -> None:
        """From now on the process has `shutdown_timeout_s` seconds to end."""
        if self._deadline is None:
            self._deadline = threading.Timer(
                self.shutdown_timeout_s, _give_up, [self.shutdown_timeout_s, self.loop]
            )
            self._deadline.daemon = True
            self._deadline.start()

    def has_ended(self) -> None:
        """The end was in time."""
        if self._deadline is not None:
            self._deadline.cancel()


def read_until(file: Path) -> dict[TP, int]:
    """The offsets at which a replay ends: a JSON object, per topic a list by partition."""
    found = json.loads(file.read_text("utf-8"))
    return {
        TP(topic, partition): offset
        for topic, offsets in found.items()
        for partition, offset in enumerate(offsets)
    }


def run(
    settings: Settings, at_step: AtStep = no_step, until: Mapping[TP, int] | None = None
) -> int:
    """Run a worker until SIGTERM, SIGINT or a failure; returns the exit code.

    A failure is one sentence on standard error. 0 for an end in order, 2 for wrong settings, 1 for
    anything else.
    """
    try:
        settings.http_access()  # refuses an open door before anything else is done
        checkpoint = _load(settings)
        _check(settings)
        with held(settings.data_dir):
            _run(build_app(settings, checkpoint, CollectorRegistry(), at_step, until))
    except InterestStreamError as error:
        _say(f"{type(error).__name__}: {error}")
        return error.exit_code
    return 0


def _load(settings: Settings) -> Checkpoint:
    if settings.checkpoint is None:
        raise UsageError("No checkpoint is named; set INTEREST_CHECKPOINT to its directory.")
    try:
        return checkpoints.load(settings.checkpoint)
    except ModelError as error:
        raise UsageError(str(error)) from error


def _check(settings: Settings) -> None:
    """Refuse topics that would lose or split data."""
    for finding in topics.check(settings):
        if finding.is_certain:
            raise TopicError(finding.sentence)


def _run(app: InterestApp) -> None:
    """Start the app and wait for its end; raises what ended it, if that was a failure."""
    torch.set_num_threads(1)
    hide_credentials()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = LaneWorker(
        app,
        loop=loop,
        loglevel=app.settings.log_level,
        logfile=sys.stderr,
        quiet=True,
        redirect_stdouts=False,
    )
    worker.spinner = None
    worker.shutdown_timeout_s = app.settings.shutdown_timeout_s
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        worker.end_in_time()
        stopping.append(loop.create_task(worker.stop()))

    app.on_failure = stop
    try:
        worker._starting_fut = starting = asyncio.ensure_future(worker.start(), loop=loop)
        try:
            loop.run_until_complete(starting)
        except asyncio.CancelledError:
            pass
        finally:
            worker.end_in_time()
            pending = worker._signal_stop_future or (stopping[0] if stopping else worker.stop())
            loop.run_until_complete(pending)
    finally:
        _close(loop)
        worker.has_ended()
    if app.lane.failure is not None:
        raise app.lane.failure
    if worker.crash_reason is not None:
        raise _crashed(app.settings, worker.crash_reason) from worker.crash_reason


def _crashed(settings: Settings, reason: BaseException) -> InterestStreamError:
    if isinstance(reason, InterestStreamError):
        return reason
    if isinstance(reason, ConsistencyError):
        return store_is_ahead(settings)
    return WorkerError(
        f"The worker ended at an error of Faust or its clients ({type(reason).__name__})."
    )


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left in the loop, and close it."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()


def _give_up(seconds: float, loop: asyncio.AbstractEventLoop) -> None:
    try:
        _say(
            f"WorkerError: The worker did not end within {seconds:g} s of being told to; what was "
            "not committed is applied again, once, at the next start. "
            f"Still under way: {under_way(loop)}."
        )
    finally:
        os._exit(1)


def under_way(loop: asyncio.AbstractEventLoop) -> str:
    """What the tasks of a loop, which may be another thread's, are at."""
    found = set()
    for task in asyncio.all_tasks(loop):
        outer = inner = task.get_coro()
        while (awaited := getattr(inner, "cr_await", None)) is not None:
            if not hasattr(awaited, "cr_frame"):
                break
            inner = awaited
        names = [getattr(each, "__qualname__", "") for each in (outer, inner)]
        found.add(" in ".join(dict.fromkeys(names)))
    return ", ".join(sorted(found)) or "nothing"


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
    sys.stderr.flush()
