"""Runs the demo: broker, topics, checkpoint, workers, producer; then verifies and sums up."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kafka.admin import KafkaAdminClient
from rich.console import Console
from rich.live import Live

from model.checkpoint import Checkpoint, load, save
from model.event_log import EventLog, read_event_log
from model.simulation import ShopSettings, simulate, write_simulated
from model.training import TrainingConfig, train
from stream_app import topics
from stream_app.broker import EmbeddedBroker, wait_until_ready
from stream_app.demo.judging import PlantedChange
from stream_app.demo.observer import OutputObserver
from stream_app.demo.processes import PageProcess, WorkerProcess
from stream_app.demo.summary import Facts, make_summary, render_summary
from stream_app.demo.view import Flow, render
from stream_app.errors import BrokerError, UsageError, WorkerError
from stream_app.log_records import LogRecord, log_records
from stream_app.producing import EventProducer, produce
from stream_app.settings import PREFIX, Settings
from stream_app.terminal import check_folder_of, stages
from stream_app.verify import verify

DEFAULT_SECONDS = 60.0
STALL_S = 60.0
"""Without a newly applied event for so long, the demo gives up with a sentence."""
DRAIN_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
"""For a worker to end, on a machine that everything shares."""


@dataclass(frozen=True)
class DemoOptions:
    """What ``interest-stream demo`` was asked for.

    seconds      how long events are produced; None: 60 for the simulator, the whole file for data
    data         an event log to replay as fast as it goes, instead of the simulator
    checkpoint   None: trained on the first half of the events, by time
    with_page    serve the live page beside it
    """

    seconds: float | None = None
    data: Path | None = None
    summary: Path | None = None
    checkpoint: Path | None = None
    workers: int = 1
    users: int = 1000
    days: int = 60
    seed: int = 0
    with_page: bool = False


@dataclass(frozen=True)
class _Material:
    """What is replayed: the log, the planted changes (simulator only), and its training cut."""

    log: EventLog
    planted: list[PlantedChange] | None
    cutoff_ms: int
    name: str


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """The whole demo; returns the summary, which is also written where the options say."""
    if options.summary is not None:
        check_folder_of(options.summary)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interest-demo-")))
        material = _material(options, home, console)
        checkpoint_dir = options.checkpoint or home / "checkpoint"
        if options.checkpoint is None:
            _train(material, checkpoint_dir, options.seed, console)
        checkpoint = load(checkpoint_dir)
        overrides = stack.enter_context(_kafka(console))
        overrides |= {"adapter_topics": None, "http_url": None}  # those of other workers
        overrides |= {
            "checkpoint": checkpoint_dir.resolve(),
            "log_level": "warn",
            "shutdown_timeout_s": END_TIMEOUT_S,
        }
        if options.with_page and Settings().http_access() is None:  # it asks about users
            overrides |= {"http_token": secrets.token_hex(16)}
        settings = Settings(**overrides)
        summary = _replay(options, material, checkpoint, settings, overrides, home, console)
    if options.summary is not None:
        options.summary.write_text(json.dumps(summary, indent=2) + "\n", "utf-8")
    return summary


def _material(options: DemoOptions, home: Path, console: Console) -> _Material:
    if options.data is not None:
        log = read_event_log(options.data)
        return _Material(log, None, _middle(log), options.data.name)
    with console.status(f"Simulating {options.users:,} shoppers over {options.days} days"):
        made = simulate(ShopSettings(users=options.users, days=options.days, seed=options.seed))
        path = home / "shop.parquet"
        write_simulated(made, path)
        log = read_event_log(path)
    planted = [
        PlantedChange(row["user_id"], _ms(row["time_ms"]), row["event_index"])
        for row in made.truth.to_pylist()
    ]
    return _Material(log, planted, _middle(log), "the simulated shop")


def _ms(value: Any) -> int:
    return int(value.timestamp() * 1000) if hasattr(value, "timestamp") else int(value)


def _middle(log: EventLog) -> int:
    """The time before which half of the events lie: the training cut."""
    if len(log) == 0:
        raise UsageError("The event log has no rows; give one that has.")
    return int(np.quantile(log.time_ms, 0.5, method="higher")) + 1


def _train(material: _Material, directory: Path, seed: int, console: Console) -> None:
    started = time.monotonic()
    with stages(console, transient=True) as progress:
        config = TrainingConfig.quick(seed)
        trained = train(material.log, config, progress, material.cutoff_ms, material.name)
    save(trained.checkpoint, directory, trained.card)
    console.print(
        f"Trained model {trained.checkpoint.version} on the first half of {material.name} "
        f"in {time.monotonic() - started:.0f} s."
    )


@contextmanager
def _kafka(console: Console) -> Iterator[dict[str, Any]]:
    """Settings of the Kafka to use: the embedded broker, or the one that the environment names.

    On a foreign Kafka every topic and group is the demo's own and is deleted afterwards.
    """
    if f"{PREFIX}KAFKA_BOOTSTRAP" in os.environ:
        settings = Settings()
        wait_until_ready(settings.kafka_python(), 10.0)
        run = secrets.token_hex(4)
        names = [name for name in Settings.model_fields if name.endswith("_topic")]
        overrides: dict[str, Any] = {
            name: f"{getattr(settings, name)}.demo-{run}" for name in names
        }
        overrides |= {"app_id": f"interest-demo-{run}"}
        console.print(f"Kafka at {settings.kafka_bootstrap}, topics ending in demo-{run}.")
        topics.create(Settings(**overrides))
        try:
            yield overrides
        finally:
            topics.delete(Settings(**overrides))
        return
    with EmbeddedBroker() as broker:
        console.print(f"Embedded broker at {broker.bootstrap}.")
        overrides = {"kafka_bootstrap": broker.bootstrap}
        topics.create(Settings(**overrides))
        yield overrides


def _replay(
    options: DemoOptions,
    material: _Material,
    checkpoint: Checkpoint,
    settings: Settings,
    overrides: dict[str, Any],
    home: Path,
    console: Console,
) -> dict[str, Any]:
    workers = [WorkerProcess(overrides, home, f"worker-{n}") for n in range(options.workers)]
    page: PageProcess | None = None
    producer = EventProducer(settings)
    observer = OutputObserver(settings, producer.sent_ms)
    try:
        with console.status(f"Starting {options.workers} worker(s)"):
            for worker in workers:
                worker.wait_until_ready()
            page = _page(options, overrides, home, workers)
        if page is not None:
            console.print(f"Live page at {page.address} for as long as the demo runs.")
        observer.start()
        started = time.monotonic()
        feed = _Feed(producer, material.log, options)
        interrupted = _watch(feed, observer, workers, settings, started, console)
        seconds = time.monotonic() - started
        duplicates = sum(_outcome(worker.metrics(), "duplicate") for worker in workers)
        statuses = [worker.stop(2 * END_TIMEOUT_S) for worker in workers]
    finally:
        producer.abandon()
        for worker in workers:
            worker.kill()
        if page is not None:
            page.kill()
    if any(statuses):
        raise WorkerError(f"A worker ended with status {statuses}; {workers[0].last_line()}")
    if not observer.finish(DRAIN_TIMEOUT_S) or observer.failure is not None:
        raise BrokerError(f"The output topics cannot be read to their end ({observer.failure}).")
    with console.status("Comparing all rows with the offline transition over the same log"):
        comparison, offline = verify(settings, checkpoint)
    facts = Facts(
        settings=settings,
        log=material.log.take(np.arange(feed.rows_sent())),
        planted=material.planted,
        cutoff_ms=material.cutoff_ms,
        produced=feed.produced,
        sent_rows=producer.rows,
        seconds=seconds,
        workers=options.workers,
        duplicates=duplicates,
        comparison=comparison,
        offline=offline,
        observer=observer,
        checkpoint=checkpoint,
        name=material.name,
    )
    summary = make_summary(facts)
    if interrupted:
        console.print("Interrupted; the summary covers what was produced until then.")
    console.print(render_summary(summary))
    return summary


def _page(
    options: DemoOptions,
    overrides: dict[str, Any],
    home: Path,
    workers: list[WorkerProcess],
) -> PageProcess | None:
    """The live page, once it answers."""
    if not options.with_page:
        return None
    page = PageProcess(overrides, home, [f"http://127.0.0.1:{w.port}" for w in workers])
    try:
        page.wait_until_ready()
    except BaseException:
        page.kill()
        raise
    return page


class _Feed(threading.Thread):
    """Produces the log in a thread of its own."""

    def __init__(self, producer: EventProducer, log: EventLog, options: DemoOptions) -> None:
        super().__init__(daemon=True, name="feed")
        self._producer = producer
        self._log = log
        self._told_to_end = threading.Event()
        seconds = options.seconds
        if options.data is None:
            seconds = DEFAULT_SECONDS if seconds is None else seconds
            events = len(np.unique(log.event))
            # the whole simulated time passes within the demo
            self._rate: float | None = events / max(seconds * 0.95, 1.0)
        else:
            self._rate = None
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._last_row = -1
        self.failure: Exception | None = None
        self.start()

    @property
    def produced(self) -> int:
        """Events handed to the producer so far."""
        return self._producer.sent

    def rows_sent(self) -> int:
        """Rows of the log up to the last event that was sent."""
        if self._last_row < 0:
            return 0
        event = self._log.event[self._last_row]
        return int(np.flatnonzero(self._log.event == event)[-1]) + 1

    def stop(self) -> None:
        """No more events."""
        self._told_to_end.set()

    def run(self) -> None:
        """Sends until the log or the time is over."""
        try:
            produce(self._producer, self._noted(), self._rate, self._is_over)
            self._producer.close()
        except Exception as error:  # shown by the demo, which looks at it
            self.failure = error

    def _noted(self) -> Iterator[LogRecord]:
        for record in log_records(self._log):
            yield record
            self._last_row = record.row  # it was sent: the next one is asked for

    def _is_over(self) -> bool:
        return self._told_to_end.is_set() or (
            self._deadline is not None and time.monotonic() >= self._deadline
        )


def _watch(
    feed: _Feed,
    observer: OutputObserver,
    workers: list[WorkerProcess],
    settings: Settings,
    started: float,
    console: Console,
) -> bool:
    """Shows the flow until every produced event is applied; True when Ctrl-C ended it early."""
    admin = KafkaAdminClient(**settings.kafka_python())
    flow = Flow()
    progressed, interrupted = started, False
    try:
        with Live(console=console, refresh_per_second=4, transient=True) as live:
            while True:
                try:
                    committed = _committed(admin, settings)
                    if committed > flow.applied:
                        progressed = time.monotonic()
                    _note(flow, committed, feed, workers)
                    live.update(render(flow, observer))
                    if not feed.is_alive() and committed >= feed.produced:
                        return interrupted
                    time.sleep(0.25)
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted = True
                    feed.stop()
                for worker in workers:
                    worker.check_alive()
                if feed.failure is not None:
                    raise feed.failure
                if feed.produced > flow.applied and time.monotonic() - progressed > STALL_S:
                    raise WorkerError(
                        f"No event was applied for {STALL_S:.0f} s; {workers[0].last_line()}"
                    )
    finally:
        admin.close()


def _committed(admin: KafkaAdminClient, settings: Settings) -> int:
    """Events below the committed offsets of the worker's group."""
    offsets = admin.list_group_offsets(settings.app_id).get(settings.app_id, {})
    inputs = set(settings.input_topics)
    return sum(max(0, found.offset) for place, found in offsets.items() if place.topic in inputs)


def _note(flow: Flow, committed: int, feed: _Feed, workers: list[WorkerProcess]) -> None:
    samples = [worker.metrics() for worker in workers]
    flow.produced = feed.produced
    flow.applied = committed
    flow.duplicates = sum(_outcome(sample, "duplicate") for sample in samples)
    flow.dead_letters = sum(_outcome(sample, "dead_letter") for sample in samples)
    flow.rate(time.monotonic())


def _outcome(samples: dict[tuple[str, tuple[str, ...]], float], outcome: str) -> int:
    return int(
        sum(
            value
            for (name, labels), value in samples.items()
            if name == "interest_events_total" and outcome in labels
        )
    )
