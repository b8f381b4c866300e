"""The metrics: names, labels, buckets, and what is forgotten."""

from __future__ import annotations

import math

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from model.transition import Trigger
from stream_app.events import Reason
from stream_app.health import WorkerHealth
from stream_app.metrics import EVENT_WAITS, STAGES, BatchHistogram, Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_every_name_has_the_prefix(registry: CollectorRegistry, metrics: Metrics) -> None:
    names = {family.name for family in registry.collect()}
    assert names == {
        "interest_events",
        "interest_event_latency_seconds",
        "interest_event_wait_seconds",
        "interest_stage_seconds",
        "interest_batch_events",
        "interest_consumer_lag_events",
        "interest_adapted_events",
        "interest_rows_written",
        "interest_foreign_rows",
        "interest_expired_rows",
        "interest_erased_users",
        "interest_dead_letters",
        "interest_drift_events",
        "interest_drift_tested_steps",
        "interest_drift_history_alarms_per_1000_steps",
        "interest_recommendations",
        "interest_scored_events",
        "interest_list_hits",
        "interest_prediction_log_loss",
        "interest_prediction_cases",
        "interest_prediction_probability",
        "interest_prediction_happened",
        "interest_drift_false_alarms_per_1000_users_30d",
        "interest_drift_average_run_length_steps",
        "interest_recovery_remaining_records",
        "interest_recovery_progress_ratio",
        "interest_commit_age_seconds",
        "interest_ready",
        "interest_model",
        "interest_model_trained_until_timestamp_seconds",
    }


def test_nothing_is_registered_globally(metrics: Metrics) -> None:
    assert not [f.name for f in REGISTRY.collect() if f.name.startswith("interest")]


def test_two_workers_in_one_process_count_apart() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    Metrics(first).rows_written_total.inc(3)
    Metrics(second)
    assert first.get_sample_value("interest_rows_written_total") == 3
    assert second.get_sample_value("interest_rows_written_total") == 0


def test_no_label_names_a_user_or_an_item(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.set_lag("clicks", 0, 1)
    metrics.dead_letters_total.labels("invalid_json").inc()
    metrics.recommendations_total.labels("purchase").inc()
    metrics.set_model("demo-1", 64)
    labels = {label for family in registry.collect() for s in family.samples for label in s.labels}
    assert labels == {
        "event_type",
        "outcome",
        "part",
        "stage",
        "le",
        "topic",
        "partition",
        "reason",
        "trigger",
        "version",
        "hidden_size",
        "bound",
        "model",
        "bin",
    }


def test_series_exist_before_the_first_event(registry: CollectorRegistry, metrics: Metrics) -> None:
    labels = {"event_type": "search", "outcome": "duplicate"}
    assert registry.get_sample_value("interest_events_total", labels) == 0
    for stage in STAGES:
        assert registry.get_sample_value("interest_stage_seconds_count", {"stage": stage}) == 0
    for reason in Reason:
        assert registry.get_sample_value("interest_dead_letters_total", {"reason": reason}) == 0
    for trigger in Trigger:
        label = {"trigger": trigger.name.lower()}
        assert registry.get_sample_value("interest_recommendations_total", label) == 0


def test_batch_histogram_counts_like_its_definition(registry: CollectorRegistry) -> None:
    histogram = BatchHistogram("t_seconds", "Test.", (0.001, 0.1, 1.0), registry)
    values = np.array([0.0, 0.001, 0.0011, 0.1, 0.5, 1.0, 7.0])
    histogram.observe(values[:4])
    histogram.observe(values[4:])
    histogram.observe(np.array([]))
    for bound in (0.001, 0.1, 1.0, math.inf):
        le = "+Inf" if math.isinf(bound) else str(bound)
        counted = registry.get_sample_value("t_seconds_bucket", {"le": le})
        assert counted == np.sum(values <= bound), le
    assert registry.get_sample_value("t_seconds_count") == len(values)
    assert registry.get_sample_value("t_seconds_sum") == pytest.approx(values.sum())


def test_latency_buckets_go_from_a_millisecond_to_a_minute(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    produced = np.array([100.0, 99.5, 200.0])
    metrics.observe_latency(produced, produced, began_at=100.1, acknowledged_at=100.2)
    bounds = [
        float(s.labels["le"])
        for family in registry.collect()
        if family.name == "interest_event_latency_seconds"
        for s in family.samples
        if s.name.endswith("_bucket")
    ]
    assert (bounds[0], bounds[-2], bounds[-1]) == (0.001, 60.0, math.inf)
    # A producer's clock that runs ahead counts as no latency, never as a negative one.
    assert registry.get_sample_value("interest_event_latency_seconds_sum") == pytest.approx(0.9)


def test_the_parts_of_the_latency_add_up(registry: CollectorRegistry, metrics: Metrics) -> None:
    produced, fetched = np.array([1.0, 2.0]), np.array([1.5, 2.25])
    metrics.observe_latency(produced, fetched, began_at=2.5, acknowledged_at=4.5)
    name = "interest_event_wait_seconds"
    parts = {part: registry.get_sample_value(f"{name}_sum", {"part": part}) for part in EVENT_WAITS}
    assert parts == {"fetch": 0.75, "merge": 1.25, "batch": 4.0}
    assert registry.get_sample_value("interest_event_latency_seconds_sum") == 6.0
    assert registry.get_sample_value(f"{name}_count", {"part": "merge"}) == 2
    # Clocks that disagree: nothing takes less than no time.
    metrics.observe_latency(fetched, produced, began_at=0.0, acknowledged_at=0.0)
    again = {part: registry.get_sample_value(f"{name}_sum", {"part": part}) for part in EVENT_WAITS}
    assert again == parts


def test_revoked_partitions_leave_no_lag_behind(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.set_lag("clicks", 0, 5)
    metrics.set_lag("clicks", 1, 7)
    metrics.forget_partitions([("clicks", 0), ("clicks", 9)])
    metrics.forget_partitions([("clicks", 0)])
    lag = "interest_consumer_lag_events"
    assert registry.get_sample_value(lag, {"topic": "clicks", "partition": "0"}) is None
    assert registry.get_sample_value(lag, {"topic": "clicks", "partition": "1"}) == 7


def test_gauges_follow_the_health(registry: CollectorRegistry, metrics: Metrics) -> None:
    now = 10.0
    health = WorkerHealth()
    metrics.follow(health, lambda: now)
    health.recovering(remaining=25, total=100)
    assert registry.get_sample_value("interest_ready") == 0
    assert registry.get_sample_value("interest_recovery_remaining_records") == 25
    assert registry.get_sample_value("interest_recovery_progress_ratio") == 0.75
    health.assign([])
    health.recovering(remaining=0, total=100)
    health.warm = True
    health.applied(3, now)
    now = 14.0
    assert registry.get_sample_value("interest_ready") == 1
    assert registry.get_sample_value("interest_recovery_progress_ratio") == 1
    assert registry.get_sample_value("interest_commit_age_seconds") == 4


def test_a_stage_is_measured(registry: CollectorRegistry, metrics: Metrics) -> None:
    with metrics.time_stage("decode"):
        pass
    assert registry.get_sample_value("interest_stage_seconds_count", {"stage": "decode"}) == 1
    with pytest.raises(ValueError, match="unknown stage 'decoding', use one of decode, merge"):
        metrics.time_stage("decoding")


def test_the_stated_false_alarm_rate_is_exported(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    metrics.set_model("demo-1", 64, false_alarms=41.5)
    stated = registry.get_sample_value("interest_drift_false_alarms_per_1000_users_30d")
    assert stated == 41.5
    unknown = registry.get_sample_value("interest_drift_average_run_length_steps")
    assert unknown is not None
    assert math.isnan(unknown)


def test_band_and_age_of_the_model_are_exported(
    registry: CollectorRegistry, metrics: Metrics
) -> None:
    name = "interest_drift_history_alarms_per_1000_steps"
    until = "interest_model_trained_until_timestamp_seconds"
    metrics.set_model("demo-1", 64, alarm_band=(1.5, 4.0), trained_until_s=1_700_000_000)
    assert registry.get_sample_value(name, {"bound": "low"}) == 1.5
    assert registry.get_sample_value(name, {"bound": "high"}) == 4.0
    assert registry.get_sample_value(until) == 1_700_000_000
    metrics.set_model("demo-1", 64)
    unknown = registry.get_sample_value(name, {"bound": "high"}), registry.get_sample_value(until)
    assert all(value is not None and math.isnan(value) for value in unknown)


def test_the_exposition_can_be_parsed(registry: CollectorRegistry, metrics: Metrics) -> None:
    metrics.set_model("demo-1", 64)
    metrics.observe_latency(np.array([1.0]), np.array([1.1]), began_at=1.2, acknowledged_at=1.5)
    text = generate_latest(registry).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert families["interest_event_latency_seconds"].type == "histogram"
    (info,) = families["interest_model_info"].samples
    assert info.labels == {"version": "demo-1", "hidden_size": "64"}
