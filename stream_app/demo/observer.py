"""Reads the output topics beside the demo: what came out, for whom, and how long it took."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from kafka import TopicPartition

from stream_app.cloud_events import data_in
from stream_app.events import Drift, Recommendation
from stream_app.lane.reading import plain_consumer
from stream_app.settings import Settings

SHOWN = 12
RECENT_LATENCIES = 5000
POLL_MS = 100


@dataclass(frozen=True)
class Given:
    """One recommendation in short: where it comes from, its items and categories, best first."""

    source: tuple[str, int, int]
    items: tuple[str, ...]
    categories: tuple[str, ...]


class OutputObserver(threading.Thread):
    """A consumer of both output topics in a thread of its own.

    latencies_ms are from the hand-over of an event to the producer until its output is read here.
    """

    def __init__(self, settings: Settings, sent_ms: Mapping[tuple[str, int], list[float]]) -> None:
        super().__init__(daemon=True, name="observer")
        self._settings = settings
        self._sent_ms = sent_ms
        self._ending = threading.Event()
        self._drift = msgspec.json.Decoder(Drift)
        self._recommendation = msgspec.json.Decoder(Recommendation)
        self.failure: Exception | None = None
        self.drifts: dict[str, Drift] = {}
        self.given: dict[str, Given] = {}
        self.triggers: Counter[str] = Counter()
        self.repeats = 0
        self.latencies_ms: list[float] = []
        self.recent_ms: deque[float] = deque(maxlen=RECENT_LATENCIES)
        self.last_drifts: deque[Drift] = deque(maxlen=SHOWN)
        self.last_recommendations: deque[Recommendation] = deque(maxlen=SHOWN)

    def run(self) -> None:
        """Reads until ``finish`` and then to the end of what is there."""
        try:
            self._read()
        except Exception as error:  # shown by the demo, which looks at it
            self.failure = error

    def _read(self) -> None:
        settings = self._settings
        consumer = plain_consumer(settings)
        try:
            topics = (settings.drift_topic, settings.recommendations_topic)
            places = [
                TopicPartition(topic, partition)
                for topic in topics
                for partition in range(settings.partitions)
            ]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            while not self._ending.is_set():
                self._take(consumer.poll(timeout_ms=POLL_MS))
            ends = consumer.end_offsets(places)
            empty_polls = 0
            # asked for the end, the embedded broker leaves out most of the last batch
            while empty_polls < 3 or any(consumer.position(p) < end for p, end in ends.items()):
                found = consumer.poll(timeout_ms=POLL_MS)
                self._take(found)
                empty_polls = 0 if found else empty_polls + 1
        finally:
            consumer.close()

    def _take(self, batches: Mapping[TopicPartition, list[Any]]) -> None:
        now_ms = time.time() * 1000
        for place, records in batches.items():
            for record in records:
                value = data_in(record.headers, record.value)
                if place.topic == self._settings.drift_topic:
                    self._note_drift(self._drift.decode(value), now_ms)
                else:
                    self._note_recommendation(self._recommendation.decode(value), now_ms)

    def _note_drift(self, drift: Drift, now_ms: float) -> None:
        if drift.id in self.drifts:
            self.repeats += 1
            return
        self.drifts[drift.id] = drift
        self.last_drifts.appendleft(drift)
        source = drift.source
        self._note_latency((source.topic, source.partition, source.offset), now_ms)

    def _note_recommendation(self, message: Recommendation, now_ms: float) -> None:
        if message.id in self.given:
            self.repeats += 1
            return
        source = (message.source.topic, message.source.partition, message.source.offset)
        self.given[message.id] = Given(
            source,
            tuple(item.item_id for item in message.items),
            tuple(interest.category for interest in message.interests),
        )
        self.triggers[message.trigger] += 1
        self.last_recommendations.appendleft(message)
        self._note_latency(source, now_ms)

    def _note_latency(self, source: tuple[str, int, int], now_ms: float) -> None:
        topic, partition, offset = source
        sent = self._sent_ms.get((topic, partition), [])
        if offset < len(sent):
            latency = max(0.0, now_ms - sent[offset])
            self.latencies_ms.append(latency)
            self.recent_ms.append(latency)

    def finish(self, timeout_s: float) -> bool:
        """Reads what is still there and stops; False when that takes longer than the timeout."""
        self._ending.set()
        self.join(timeout_s)
        return not self.is_alive()


def percentile(values: list[float], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of the values lie; None without values."""
    return float(np.percentile(np.array(values), share * 100)) if values else None
