"""The worker's metrics, in seconds and events, under the prefix `interest_`.

Nothing is registered globally: `Metrics` takes the registry it writes to. No label names a user or
an item, so the number of series is bounded by topics, partitions and reason codes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from model.events import EventType
from stream_app.events import Reason, TriggerName
from stream_app.health import TopicPartition, WorkerHealth

EVENT_TYPES = tuple(kind.name.lower() for kind in EventType)
OUTCOMES = ("applied", "duplicate", "dead_letter")
TRIGGERS: tuple[str, ...] = get_args(TriggerName)
STAGES = (
    "decode",
    "merge",
    "journal",
    "read",
    "transition",
    "encode",
    "outputs",
    "changelog",
    "store",
    "commit",
)
EVENT_WAITS = ("fetch", "merge", "batch")
BOUNDS = ("low", "high")
WORKER, POPULARITY = "worker", "popularity"
MODELS = (WORKER, POPULARITY)
BINS = tuple(f"{low / 10}-{(low + 1) / 10}" for low in range(10))
"""Of probabilities, for calibration."""
SURE = 2.0**-11
"""Kept from 0 and 1 in a log-loss: what a float16 below 1 is away from it."""

# From 1 ms to 60 s: below lies the clock of the producers, above the patience of a caller.
LATENCY_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
BATCH_BUCKETS_EVENTS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class BatchHistogram(Collector):
    """A histogram that takes a whole array at once.

    One call of `Histogram.observe` an event costs as much as the decoder; counting an array into
    buckets costs some nanoseconds an event.

    Args:
        name, documentation, buckets, registry: as of a `Histogram`.
        label: name of its one label, and the values of it; None for a histogram without labels.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        buckets: Sequence[float],
        registry: CollectorRegistry,
        label: tuple[str, Sequence[str]] | None = None,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array([*buckets, math.inf])
        label_name, values = label or (None, [""])
        self._label = label_name
        # one a bucket, not cumulative
        self._counts = {value: np.zeros(len(self._bounds), np.int64) for value in values}
        self._sums = dict.fromkeys(values, 0.0)
        registry.register(self)

    def observe(self, values: NDArray[np.floating], label: str = "") -> None:
        """Count an array of any shape; a bucket holds what is not above its bound."""
        places = np.searchsorted(self._bounds, np.ravel(values), side="left")
        self._counts[label] += np.bincount(places, minlength=len(self._bounds))
        self._sums[label] += float(np.sum(values))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram in the form that the exposition writes."""
        names = [*(str(float(bound)) for bound in self._bounds[:-1]), "+Inf"]
        labels = [] if self._label is None else [self._label]
        family = HistogramMetricFamily(self._name, self._documentation, labels=labels)
        for value, counts in self._counts.items():
            totals = np.cumsum(counts).tolist()
            buckets = [(name, float(total)) for name, total in zip(names, totals, strict=True)]
            family.add_metric([value] if labels else [], buckets, self._sums[value])
        yield family


class Metrics:
    """Every metric of one worker. Attributes are prometheus_client objects, named as exported."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events_total = Counter(
            "interest_events_total",
            "Events read, by type and by what became of them.",
            ["event_type", "outcome"],
            registry=registry,
        )
        self.event_latency_seconds = BatchHistogram(
            "interest_event_latency_seconds",
            "From the production timestamp of an event to the acknowledgement of its outputs.",
            LATENCY_BUCKETS_SECONDS,
            registry,
        )
        self.event_wait_seconds = BatchHistogram(
            "interest_event_wait_seconds",
            "Parts of the latency: from production until the record is fetched, from there until "
            "its batch begins to be computed, from there until its outputs are acknowledged.",
            LATENCY_BUCKETS_SECONDS,
            registry,
            ("part", EVENT_WAITS),
        )
        self.stage_seconds = Histogram(
            "interest_stage_seconds",
            "Time that one batch spends in a stage of the lane.",
            ["stage"],
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.batch_events = Histogram(
            "interest_batch_events",
            "Events in a batch.",
            buckets=BATCH_BUCKETS_EVENTS,
            registry=registry,
        )
        self.consumer_lag_events = Gauge(
            "interest_consumer_lag_events",
            "Records of a source partition that are not applied, or not mapped, yet.",
            ["topic", "partition"],
            registry=registry,
        )
        self.adapted_events_total = Counter(
            "interest_adapted_events_total",
            "Events of a mixed topic that were sent to the input topics.",
            ["topic"],
            registry=registry,
        )
        self.rows_written_total = Counter(
            "interest_rows_written_total", "Rows written to the store.", registry=registry
        )
        self.expired_rows_total = Counter(
            "interest_expired_rows_total",
            "Rows deleted because their users were away for longer than the time to live.",
            registry=registry,
        )
        self.erased_users_total = Counter(
            "interest_erased_users_total", "Users erased on request.", registry=registry
        )
        self.foreign_rows_total = Counter(
            "interest_foreign_rows_total",
            "Rows of another worker in the changelog that were put right.",
            registry=registry,
        )
        self.dead_letters_total = Counter(
            "interest_dead_letters_total",
            "Records sent to the dead-letter topic, by reason code.",
            ["reason"],
            registry=registry,
        )
        self.drift_events_total = Counter(
            "interest_drift_events_total", "Drift events published.", registry=registry
        )
        self.drift_tested_steps_total = Counter(
            "interest_drift_tested_steps_total",
            "Applied steps of users past the warm-up of the drift test: what its rate is over.",
            registry=registry,
        )
        self.recommendations_total = Counter(
            "interest_recommendations_total",
            "Recommendations published, by what triggered them.",
            ["trigger"],
            registry=registry,
        )
        self.scored_events_total = Counter(
            "interest_scored_events_total",
            "Events with an item, of a sample of users, that came after a list of their user.",
            registry=registry,
        )
        self.list_hits_total = Counter(
            "interest_list_hits_total",
            "Scored events whose item was among the first ten of the user's last list, or of the "
            "popular items.",
            ["model"],
            registry=registry,
        )
        self.prediction_log_loss_total = Counter(
            "interest_prediction_log_loss_total",
            "Sum of the log-loss, in nats, of category probabilities whose window has passed.",
            ["model"],
            registry=registry,
        )
        self.prediction_cases_total = Counter(
            "interest_prediction_cases_total",
            "Category probabilities whose window has passed, by bin.",
            ["model", "bin"],
            registry=registry,
        )
        self.prediction_probability_total = Counter(
            "interest_prediction_probability_total",
            "Sum of these probabilities.",
            ["model", "bin"],
            registry=registry,
        )
        self.prediction_happened_total = Counter(
            "interest_prediction_happened_total",
            "Those among them whose category the user touched within the window.",
            ["model", "bin"],
            registry=registry,
        )
        self.drift_false_alarms_per_1000_users_30d = Gauge(
            "interest_drift_false_alarms_per_1000_users_30d",
            "Stated false alarms of the drift test per 1,000 users and 30 days, as calibrated.",
            registry=registry,
        )
        self.drift_average_run_length_steps = Gauge(
            "interest_drift_average_run_length_steps",
            "Stated mean number of steps between false alarms of the drift test, as calibrated.",
            registry=registry,
        )
        self.drift_history_alarms_per_1000_steps = Gauge(
            "interest_drift_history_alarms_per_1000_steps",
            "Band of the alarms per 1,000 tested steps on real history, as calibrated.",
            ["bound"],
            registry=registry,
        )
        self.recovery_remaining_records = Gauge(
            "interest_recovery_remaining_records",
            "Changelog records that recovery has still to read.",
            registry=registry,
        )
        self.recovery_progress_ratio = Gauge(
            "interest_recovery_progress_ratio",
            "Share of the changelog that recovery has read; 1 when it is done.",
            registry=registry,
        )
        self.commit_age_seconds = Gauge(
            "interest_commit_age_seconds",
            "How long applied events have waited for a commit; 0 when none waits.",
            registry=registry,
        )
        self.ready = Gauge(
            "interest_ready", "1 while /readyz answers 200, else 0.", registry=registry
        )
        self.model = Info("interest_model", "The checkpoint that is loaded.", registry=registry)
        self.model_trained_until_timestamp_seconds = Gauge(
            "interest_model_trained_until_timestamp_seconds",
            "End of the log that the checkpoint was trained on, in seconds since 1970.",
            registry=registry,
        )
        self._lags: set[TopicPartition] = set()
        # A series that exists from the start lets a rate see its first increment.
        for event_type in EVENT_TYPES:
            for outcome in OUTCOMES:
                self.events_total.labels(event_type, outcome)
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for reason in Reason:
            self.dead_letters_total.labels(str(reason))
        for trigger in TRIGGERS:
            self.recommendations_total.labels(trigger)
        for model in MODELS:
            self.list_hits_total.labels(model)
            self.prediction_log_loss_total.labels(model)
            for name in BINS:
                self.prediction_cases_total.labels(model, name)
                self.prediction_probability_total.labels(model, name)
                self.prediction_happened_total.labels(model, name)

    def follow(self, health: WorkerHealth, clock: Callable[[], float]) -> None:
        """Read readiness, commit age and recovery from `health` whenever they are scraped."""
        self.ready.set_function(lambda: 0.0 if health.readiness(clock()) else 1.0)
        self.commit_age_seconds.set_function(lambda: health.commit_age(clock()))
        self.recovery_remaining_records.set_function(lambda: float(health.recovery_remaining))
        self.recovery_progress_ratio.set_function(health.recovery_progress)

    def time_stage(self, stage: str) -> AbstractContextManager[object]:
        """Measure the body of a `with` as one batch's time in a stage of `STAGES`."""
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}, use one of {', '.join(STAGES)}")
        return self.stage_seconds.labels(stage).time()

    def observe_latency(
        self,
        produced_at: NDArray[np.floating],
        fetched_at: NDArray[np.floating],
        began_at: float,
        acknowledged_at: float,
    ) -> None:
        """Count the latency of a batch whose outputs are acknowledged, and its parts.

        All times are in seconds of the wall clock; `produced_at` and `fetched_at` have one entry an
        event (N,). What lies before the time before it, as of a producer whose clock runs ahead,
        counts as zero.
        """

        def between(
            start: NDArray[np.floating], end: NDArray[np.floating] | float
        ) -> NDArray[np.floating]:
            return np.maximum(end - start, 0.0)

        whole = np.full(len(produced_at), max(acknowledged_at - began_at, 0.0))
        self.event_latency_seconds.observe(between(produced_at, acknowledged_at))
        self.event_wait_seconds.observe(between(produced_at, fetched_at), "fetch")
        self.event_wait_seconds.observe(between(fetched_at, began_at), "merge")
        self.event_wait_seconds.observe(whole, "batch")

    def count_predictions(
        self, model: str, probability: NDArray[np.floating], happened: NDArray[np.bool_]
    ) -> None:
        """Count probabilities whose window has passed.

        Args:
            model: of `MODELS`, whose probabilities they are.
            probability: that a user touches a category within the window, (C,).
            happened: whether the user did, (C,).
        """
        sure = np.clip(probability, SURE, 1 - SURE)
        loss = -np.log(np.where(happened, sure, 1 - sure))
        self.prediction_log_loss_total.labels(model).inc(float(loss.sum()))
        place = np.clip((probability * len(BINS)).astype(np.int64), 0, len(BINS) - 1)
        cases = np.bincount(place, minlength=len(BINS))
        sums = np.bincount(place, probability, minlength=len(BINS))
        true = np.bincount(place, happened, minlength=len(BINS))
        for at in np.flatnonzero(cases).tolist():
            self.prediction_cases_total.labels(model, BINS[at]).inc(int(cases[at]))
            self.prediction_probability_total.labels(model, BINS[at]).inc(float(sums[at]))
            self.prediction_happened_total.labels(model, BINS[at]).inc(int(true[at]))

    def set_lag(self, topic: str, partition: int, events: int) -> None:
        """Set the lag of a source partition."""
        self._lags.add((topic, partition))
        self.consumer_lag_events.labels(topic, str(partition)).set(events)

    def forget_partitions(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop the series of revoked partitions, so that no stale lag stays behind."""
        for topic, partition in self._lags.intersection(partitions):
            self.consumer_lag_events.remove(topic, str(partition))
            self._lags.discard((topic, partition))

    def set_model(
        self,
        version: str,
        hidden_size: int,
        false_alarms: float | None = None,
        average_run_length: float | None = None,
        alarm_band: tuple[float | None, float | None] = (None, None),
        trained_until_s: int | None = None,
    ) -> None:
        """State the loaded checkpoint and what its drift test was calibrated to.

        What the checkpoint does not know is exported as NaN.

        Args:
            version, hidden_size: of the checkpoint.
            false_alarms: per 1,000 users and 30 days.
            average_run_length: in steps.
            alarm_band: lowest and highest alarms per 1,000 tested steps on real history.
            trained_until_s: end of the training's log, in seconds since 1970.
        """
        self.model.info({"version": version, "hidden_size": str(hidden_size)})
        self.drift_false_alarms_per_1000_users_30d.set(_or_nan(false_alarms))
        self.drift_average_run_length_steps.set(_or_nan(average_run_length))
        for bound, rate in zip(BOUNDS, alarm_band, strict=True):
            self.drift_history_alarms_per_1000_steps.labels(bound).set(_or_nan(rate))
        self.model_trained_until_timestamp_seconds.set(_or_nan(trained_until_s))


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
