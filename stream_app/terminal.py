"""What the commands share: the console, progress bars, and times as people write them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from stream_app.errors import UsageError

console = Console(stderr=True)
"""For people: progress and sentences."""
output = Console()
"""For what a command was asked for."""


MIN_EPOCH_MS_DIGITS = 12  # fewer are a date without dashes


class Stages:
    """The stages of long work, one bar each: called with (what, done, total)."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows how far a stage is."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


@contextmanager
def stages(on: Console = console, transient: bool = False) -> Iterator[Stages]:
    """Progress bars for the body of a ``with``."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=on, transient=transient) as progress:
        yield Stages(progress)


def parse_time(text: str) -> int:
    """Milliseconds since the epoch: given as such, or as an ISO 8601 date or time (UTC without a
    zone)."""
    if text.isdecimal() and len(text) >= MIN_EPOCH_MS_DIGITS:
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


def printable(text: str) -> str:
    """The text without what could steer a terminal: other characters as Python writes them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def parse_duration(text: str) -> int:
    """Seconds of a duration like 30d, 12h, 90m or 45s."""
    units = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdigit() or int(number) == 0:
        raise UsageError(f"{text!r} is no duration; write it like 30d, 12h or 90m.")
    return int(number) * units[unit]
