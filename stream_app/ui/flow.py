"""The flow in figures: what the metrics of the workers say when they are read again and again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

RATE_WINDOW_S = 10.0
LATENCY_WINDOW_S = 30.0
MAX_TREND = 120  # moments, of the small lines


@dataclass(frozen=True)
class Reading:
    """What one worker's metrics say at a moment (seconds of a monotonic clock).

    applied   events applied since the worker began
    lag       records of its partitions that are not applied yet
    buckets   of the latency: upper bound in seconds and how many are not above it
    is_ready  whether the worker says that it keeps up
    """

    at_s: float
    applied: float
    lag: float
    buckets: tuple[tuple[float, float], ...]
    is_ready: bool


def read_metrics(text: str, at_s: float) -> Reading:
    """The reading in an exposition of Prometheus; ValueError when it is none."""
    applied, lag, ready = 0.0, 0.0, 0.0
    buckets: list[tuple[float, float]] = []
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "interest_events_total" and sample.labels["outcome"] == "applied":
                applied += sample.value
            elif sample.name == "interest_consumer_lag_events":
                lag += sample.value
            elif sample.name == "interest_event_latency_seconds_bucket":
                buckets.append((float(sample.labels["le"]), sample.value))
            elif sample.name == "interest_ready":
                ready = sample.value
    return Reading(at_s, applied, lag, tuple(sorted(buckets)), ready > 0)


@dataclass(frozen=True)
class Flow:
    """The figures of one moment; None where no worker answers or nothing has happened yet.

    rate_trend  the last rates, the latest at the end
    tail_trend  the last 99th percentiles of the latency, in milliseconds
    """

    answering: int = 0
    ready: int = 0
    events_per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    lag: int | None = None
    rate_trend: tuple[float, ...] = ()
    tail_trend: tuple[float, ...] = ()


@dataclass
class FlowMeter:
    """Takes the readings of all workers, moment by moment."""

    _readings: dict[str, deque[Reading]] = field(default_factory=dict)
    _rates: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_TREND))
    _tails: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_TREND))

    def take(self, readings: dict[str, Reading]) -> Flow:
        """The flow after a moment's readings by worker; who is left out does not answer."""
        self._readings = {name: self._readings.get(name, deque()) for name in readings}
        rates: list[float] = []
        passed: list[Sequence[tuple[float, float]]] = []
        for name, reading in readings.items():
            known = self._readings[name]
            if known and reading.applied < known[-1].applied:
                known.clear()  # it has begun anew
            known.append(reading)
            while reading.at_s - known[0].at_s > LATENCY_WINDOW_S:
                known.popleft()
            if len(known) > 1:
                rates.append(_rate(known))
                passed.append(_between(known[0].buckets, reading.buckets))
        buckets = _sum(passed)
        p50, p99 = (quantile(buckets, share) for share in (0.5, 0.99))
        if rates:
            self._rates.append(sum(rates))
        if p99 is not None:
            self._tails.append(p99 * 1000)
        return Flow(
            answering=len(readings),
            ready=sum(reading.is_ready for reading in readings.values()),
            events_per_s=sum(rates) if rates else None,
            p50_ms=None if p50 is None else p50 * 1000,
            p99_ms=None if p99 is None else p99 * 1000,
            lag=int(sum(reading.lag for reading in readings.values())) if readings else None,
            rate_trend=tuple(self._rates),
            tail_trend=tuple(self._tails),
        )


def _rate(known: deque[Reading]) -> float:
    last = known[-1]
    first = next(reading for reading in known if last.at_s - reading.at_s <= RATE_WINDOW_S)
    seconds = last.at_s - first.at_s
    return (last.applied - first.applied) / seconds if seconds > 0 else 0.0


def _between(
    before: Sequence[tuple[float, float]], after: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    counts = dict(before)
    return [(bound, count - counts.get(bound, 0.0)) for bound, count in after]


def _sum(parts: Iterable[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    total: dict[float, float] = {}
    for part in parts:
        for bound, count in part:
            total[bound] = total.get(bound, 0.0) + count
    return sorted(total.items())


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """The value below which a share of the observations lies, as Prometheus reckons it.

    Args:
        buckets: upper bounds, rising to infinity, and how many observations are not above each.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / max(count - below, 1e-12)
        lower, below = bound, count
    return lower
