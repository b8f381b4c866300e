"""The Faust app of a worker: when the lane begins and ends, and what runs beside it."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import faust
from mode.utils.queues import FlowControlEvent
from yarl import URL

from model.transition import warm_up
from stream_app.errors import InterestStreamError, WorkerError
from stream_app.lane.table import WorkerBudget

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from stream_app.health import HealthServer, WorkerHealth
    from stream_app.lane.lane import Lane
    from stream_app.log_tail import Where
    from stream_app.metrics import Metrics
    from stream_app.repartition.mapping import Report
    from stream_app.repartition.step import Repartition
    from stream_app.settings import Settings

logger = logging.getLogger(__name__)

GC_THRESHOLDS = (100_000, 50, 50)
"""A batch makes some ten thousand objects that all go together: collect after several batches."""


class FlowControl(FlowControlEvent):
    """Faust's flow control, which empties no queue while the flow goes on.

    Faust resumes the flow twice when it starts standbys, and at the second time the first polls of
    their changelogs wait: a copy would have a gap.
    """

    def resume(self) -> None:
        """Resume the flow, and empty the queues, if it is suspended."""
        if not self.is_active():
            super().resume()


class InterestApp(faust.App):
    """A Faust app whose data path is the lane. `build_app` fills in the attributes."""

    settings: Settings
    checkpoint: Checkpoint
    metrics: Metrics
    health: WorkerHealth
    health_server: HealthServer
    lane: Lane
    table: Any
    http_port: int | None = None
    on_failure: Callable[[], None] | None = None
    _watch: asyncio.Task[None] | None = None
    repartition: Repartition | None = None
    _own_loop: asyncio.AbstractEventLoop | None = None
    _adapted: frozenset[Where] = frozenset()

    @cached_property
    def flow_control(self) -> FlowControlEvent:
        """What lets polls into the queues of streams and recovery."""
        return FlowControl(loop=self.loop)

    async def on_start(self) -> None:
        """Answer on HTTP at once, and run the model once at every size before it is ready."""
        await super().on_start()
        # Not earlier: a store is bound to the event loop that runs when it is first asked for.
        self.table.data.rocksdb_options = WorkerBudget(self.settings.rocksdb_cache_mb)
        host, port = self.settings.http_host, self.settings.http_port
        try:
            self.http_port = await self.health_server.start(host, port)
        except OSError as error:
            raise WorkerError(
                f"{host}:{port} cannot be listened on ({error.strerror}); set "
                "INTEREST_HTTP_PORT to a free port."
            ) from error
        logger.info("Health and metrics at http://%s:%s", host, self.http_port)
        # Before the group is joined: the other workers learn it with the assignment.
        self.conf.canonical_url = URL(self.settings.http_url or self._own_url(host))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, warm_up, self.checkpoint)
        # What is loaded by now stays: the collector need not walk through it at every turn.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        self.health.warm = True
        self._watch = loop.create_task(self.lane.watch())
        if self.repartition is not None:
            self._own_loop = loop
            self.repartition.start()

    def adapters_report(self, report: Report) -> None:
        """Note how far the mixed topics are; called in the thread of the step."""
        assert self._own_loop is not None
        self._own_loop.call_soon_threadsafe(self._note_adapters, report)

    def adapters_fail(self, error: Exception) -> None:
        """End the worker; called in the thread of the step."""
        assert self._own_loop is not None
        self._own_loop.call_soon_threadsafe(self.lane.fail, error)

    def _note_adapters(self, report: Report) -> None:
        lost = self._adapted - report.progress.keys()
        self.health.forget(lost)
        self.metrics.forget_partitions(lost)
        self._adapted = frozenset(report.progress)
        now = time.monotonic()
        for (topic, partition), (position, lag) in report.progress.items():
            self.health.record((topic, partition), position, lag, now)
            self.metrics.set_lag(topic, partition, lag)
        for topic, events in report.events.items():
            self.metrics.adapted_events_total.labels(topic).inc(events)
        for reason in report.letters:
            self.metrics.dead_letters_total.labels(reason).inc()

    def _own_url(self, host: str) -> str:
        everywhere = ipaddress.ip_address(host).is_unspecified if _is_address(host) else False
        reached_at = socket.gethostname() if everywhere else host
        return f"http://{f'[{reached_at}]' if ':' in reached_at else reached_at}:{self.http_port}"

    def fail(self, error: InterestStreamError) -> None:
        """The lane cannot go on: whoever runs the app stops it."""
        if self.on_failure is not None:
            self.on_failure()

    def on_rebalance_end(self) -> None:
        """Begin with the new assignment: rows are recovered and offsets sought."""
        super().on_rebalance_end()
        self.lane.begin()

    async def on_stop(self) -> None:
        """Let the lane finish and commit while consumer, producer and store are still there."""
        if self.repartition is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.repartition.stop)
        await self.lane.stop()
        if self.lane.has_applied:
            await self.consumer.commit_all()  # type: ignore[attr-defined]
        if self._watch is not None:
            self._watch.cancel()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        """Answer on HTTP to the last."""
        await self.health_server.stop()
        await super().on_shutdown()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class RawBatches(faust.Schema[Any, Any]):
    """Hands a poll's records on as they are."""

    def compile(self, app: Any, **_callbacks: Any) -> Callable[..., Any]:
        """A decoder that decodes nothing."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, None, message)

        return decode
