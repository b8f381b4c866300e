"""Reads the output topics as any other consumer does, and asks the workers how it goes.

Two threads beside the pages: `TopicFeed` fills the histories, `FlowFeed` measures the flow. Neither
joins the workers' group, commits an offset or ends on trouble: what is wrong is one sentence on
the page until it is over.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream_app.broker import wait_until_ready
from stream_app.cloud_events import data_in
from stream_app.dead_letters import read_letter
from stream_app.errors import (
    BrokerError,
    InterestStreamError,
    InvalidEvent,
    TopicError,
    WorkerError,
)
from stream_app.events import Drift, Recommendation
from stream_app.lane.reading import plain_consumer
from stream_app.settings import Settings
from stream_app.ui.flow import Flow, FlowMeter, read_metrics
from stream_app.ui.history import Histories
from stream_app.ui.workers import Workers

TAIL_RECORDS = 20_000
"""How far before the end of each partition the page begins to read."""
POLL_MS = 250
SILENCE_S = 10.0
"""Without a record for so long, the brokers are asked whether they are still there."""
RETRY_S = 2.0
FLOW_INTERVAL_S = 1.0

logger = logging.getLogger(__name__)


class TopicFeed(threading.Thread):
    """A consumer of the output topics and the dead letters in a thread of its own.

    trouble   one sentence while the topics cannot be read, or else None
    heard_at  when records came last, in seconds of the monotonic clock; None before the first
    """

    def __init__(self, settings: Settings, histories: Histories) -> None:
        super().__init__(daemon=True, name="topic-feed")
        self._settings = settings
        self._histories = histories
        self._ending = threading.Event()
        self._drift = msgspec.json.Decoder(Drift)
        self._recommendation = msgspec.json.Decoder(Recommendation)
        self.trouble: str | None = None
        self.heard_at: float | None = None

    def stop(self) -> None:
        """Reads no more; returns at once."""
        self._ending.set()

    def run(self) -> None:
        """Reads until `stop`, and begins anew where the last end was lost."""
        while not self._ending.is_set():
            try:
                self._read()
            except InterestStreamError as error:
                self.trouble = str(error)
            except (KafkaError, OSError) as error:
                self.trouble = f"The brokers cannot be read from ({type(error).__name__})."
            self._ending.wait(RETRY_S)

    def _read(self) -> None:
        servers = self._settings.kafka_python()
        wait_until_ready(servers, SILENCE_S)
        consumer = plain_consumer(self._settings, auto_offset_reset="earliest")
        try:
            self._begin(consumer)
            self.trouble = None
            asked_at = time.monotonic()
            while not self._ending.is_set():
                found = consumer.poll(timeout_ms=POLL_MS)
                now = time.monotonic()
                if found:
                    self.take(found)
                    self.heard_at = asked_at = now
                    self.trouble = None
                elif now - asked_at > SILENCE_S:
                    self._ask(servers)
                    asked_at = time.monotonic()
        finally:
            consumer.close()

    def _begin(self, consumer: KafkaConsumer) -> None:
        settings = self._settings
        wanted = (
            settings.drift_topic,
            settings.recommendations_topic,
            settings.dead_letters_topic,
        )
        there = consumer.topics()  # all of them: asking for one by name could make it
        for topic in wanted:
            if topic not in there:
                raise TopicError(f"Topic {topic} is missing; run interest-stream topics create.")
        places = [
            TopicPartition(topic, partition)
            for topic in wanted
            for partition in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        consumer.assign(places)
        first, end = consumer.beginning_offsets(places), consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, max(first[place], end[place] - TAIL_RECORDS))

    def _ask(self, servers: dict[str, Any]) -> None:
        """The consumer itself says nothing when all brokers are gone."""
        try:
            wait_until_ready(servers, RETRY_S)
            self.trouble = None
        except BrokerError as error:
            self.trouble = str(error)

    def take(self, batches: Mapping[Any, list[Any]]) -> None:
        """Note the records of a poll, by partition; what cannot be read is passed over."""
        for place, records in batches.items():
            for record in records:
                try:
                    self._note(place.topic, record)
                except (msgspec.MsgspecError, UnicodeDecodeError, InvalidEvent):
                    logger.debug("A record that is no message is passed over", exc_info=True)

    def _note(self, topic: str, record: Any) -> None:
        if topic == self._settings.dead_letters_topic:
            if record.key is not None:
                letter = read_letter(record)
                if letter is not None:
                    self._histories.add_letter(record.key, letter.reason)
                elif record.value is None:
                    self._histories.add_letter(record.key, None)
        elif record.value is None:  # the user was erased
            self._histories.forget((record.key or b"").decode())
        else:
            value = data_in(record.headers, record.value)
            if topic == self._settings.drift_topic:
                self._histories.add_drift(self._drift.decode(value))
            else:
                self._histories.add_recommendation(self._recommendation.decode(value))


class FlowFeed(threading.Thread):
    """Reads the metrics of all workers again and again.

    flow     the figures of now
    trouble  one sentence while no worker answers, or else None
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__(daemon=True, name="flow-feed")
        self._workers = workers
        self._ending = threading.Event()
        self._meter = FlowMeter()
        self.flow = Flow()
        self.trouble: str | None = None

    def stop(self) -> None:
        """Asks no more; returns at once."""
        self._ending.set()

    def run(self) -> None:
        """Asks until `stop`."""
        while not self._ending.is_set():
            readings, trouble = {}, None
            for url in self._workers.urls:
                try:
                    readings[url] = read_metrics(self._workers.metrics(url), time.monotonic())
                except WorkerError as error:
                    trouble = str(error)
                except (ValueError, KeyError):
                    trouble = f"The metrics of {url} are none of a worker; name one with --url."
            self.flow = self._meter.take(readings)
            self.trouble = None if readings else trouble
            self._ending.wait(FLOW_INTERVAL_S)
