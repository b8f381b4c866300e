"""What the commands share: the console, progress bars, and text that steers no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
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


class Stages:
    """The stages of long work, one bar each: called with (what, done, total)."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Shows how far a stage is."""
        if what not in self._tasks:
            self._progress.start()
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


@contextmanager
def stages(on: Console = console, transient: bool = False) -> Iterator[Stages]:
    """Progress bars for the body of a ``with``; nothing is written before the first one."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(*columns, TimeElapsedColumn(), console=on, transient=transient)
    try:
        yield Stages(progress)
    finally:
        if progress.tasks:
            progress.stop()


def printable(text: str) -> str:
    """The text without what could steer a terminal: other characters as Python writes them."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain(value: object) -> str:
    """Any text for the console: neither markup of its own nor what could steer a terminal."""
    return escape(printable(str(value)))


def check_folder_of(file: Path) -> None:
    """UsageError when the file could not be written, before the work that it is to hold."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file to write.")
    if not file.absolute().parent.is_dir():
        raise UsageError(f"There is no folder to write {file} into; make it first.")
