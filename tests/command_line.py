"""What the programs of the tests, benchmarks and chaos kit, share on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import typer
from rich.console import Console

from stream_app.errors import UsageError
from stream_app.terminal import check_folder_of

FILE_WIDTH = 120
"""Columns of what is printed to a file or a pipe."""


def make_console() -> Console:
    """The console of such a program."""
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH)


def check_json_file(file: Path | None, console: Console) -> None:
    """Ends the program with 2 and a sentence when its figures could not be written at its end."""
    if file is None:
        return
    try:
        check_folder_of(file)
    except UsageError as error:
        console.print(str(error), highlight=False)
        raise typer.Exit(2) from None
