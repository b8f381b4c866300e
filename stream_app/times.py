"""Times and durations as people write them."""

from __future__ import annotations

from datetime import datetime, timezone

from stream_app.errors import UsageError

MIN_EPOCH_MS_DIGITS = 12  # fewer are a date without dashes
MAX_EPOCH_MS_DIGITS = 14  # more are beyond the year 5138, such as microseconds


def parse_time(text: str) -> int:
    """Milliseconds since the epoch: given as such, or as an ISO 8601 date or time (UTC without a
    zone)."""
    if text.isdecimal() and MAX_EPOCH_MS_DIGITS >= len(text) >= MIN_EPOCH_MS_DIGITS:
        return int(text)
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{text!r} is no time; write it like 2014-07-17T00:00:00Z.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return int(moment.timestamp() * 1000)


def format_time(time_ms: int) -> str:
    """RFC 3339 with milliseconds, in UTC."""
    moment = datetime.fromtimestamp(time_ms / 1000, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_duration(text: str) -> int:
    """Seconds of a duration like 30d, 12h, 90m or 45s."""
    units = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal() or int(number) == 0:
        raise UsageError(f"{text!r} is no duration; write it like 30d, 12h or 90m.")
    return int(number) * units[unit]
