"""Numbers, times and drifts as the page words them; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from stream_app.events import Drift, Share

NONE = "–"


def moment(time_ms: int) -> str:
    """An event time, in UTC."""
    return f"{datetime.fromtimestamp(time_ms / 1000, timezone.utc):%-d %b %Y %H:%M}"


def time_ms_of(text: str | None) -> int | None:
    """Milliseconds of an RFC 3339 time; None when it is none."""
    try:
        found = datetime.fromisoformat((text or "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return int(found.timestamp() * 1000)


def moment_of(text: str | None) -> str:
    """An RFC 3339 time in the form of `moment`; as it is when it is none."""
    time_ms = time_ms_of(text)
    return text or NONE if time_ms is None else moment(time_ms)


def percent(share: float) -> str:
    """A share of 0 to 1."""
    return f"{share:.0%}"


def count(number: float | None) -> str:
    """A whole number with separators."""
    return NONE if number is None else f"{number:,.0f}"


def milliseconds(value: float | None) -> str:
    """A latency, in the unit that suits it."""
    if value is None:
        return NONE
    return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"


def shares(found: Sequence[Share], shown: int = 2) -> str:
    """The largest shares of a distribution."""
    return ", ".join(f"{share.category} {percent(share.share)}" for share in found[:shown]) or NONE


def drift_strength(drift: Drift) -> str:
    """How strong the test found it."""
    return (
        f"statistic {drift.statistic:.2f}, alarm at {drift.threshold:.2f}; "
        f"since {moment(drift.since)}"
    )


def evidence(drift: Drift, shown: int = 6) -> list[str]:
    """The events that speak for a drift, one text each, and how many more there are."""
    found = [
        f"{one.category}, {moment(one.timestamp)}, {one.topic}:{one.partition}:{one.offset}"
        for one in drift.evidence[:shown]
    ]
    more = len(drift.evidence) - shown
    return [*found, f"and {more} more"] if more > 0 else found
