"""Where events stay in the worker, from what its /metrics say before and after."""

from __future__ import annotations

from dataclasses import dataclass

from stream_app.metrics import EVENT_WAITS, STAGES
from tests.benchmarks.contenders import Metrics


@dataclass(frozen=True)
class Stay:
    """Means over a time.

    event_ms       per event: until it is fetched, until its batch begins, until its outputs stand
    batch_ms       per batch: its stages
    batch_events   events of a batch
    batches_per_s  of all partitions
    event_rows     rows that an event writes: fewer than one where a batch has several of a user
    """

    event_ms: dict[str, float]
    batch_ms: dict[str, float]
    batch_events: float
    batches_per_s: float
    event_rows: float


def stay_between(before: Metrics, after: Metrics, seconds: float) -> Stay:
    """What happened between two looks at the metrics."""

    def grown(name: str, *labels: str) -> float:
        return after.get((name, labels), 0.0) - before.get((name, labels), 0.0)

    def mean_ms(name: str, *labels: str) -> float:
        return 1000 * grown(f"{name}_sum", *labels) / max(grown(f"{name}_count", *labels), 1.0)

    batches = grown("interest_batch_events_count")
    events = grown("interest_batch_events_sum")
    return Stay(
        event_ms={wait: mean_ms("interest_event_wait_seconds", wait) for wait in EVENT_WAITS},
        batch_ms={
            stage: 1000 * grown("interest_stage_seconds_sum", stage) / max(batches, 1.0)
            for stage in STAGES
        },
        batch_events=events / max(batches, 1.0),
        batches_per_s=batches / seconds,
        event_rows=grown("interest_rows_written_total") / max(events, 1.0),
    )
