"""What a protocol leaves behind: tables of figures, plots, and the very predictions it scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

Cell = str | float
"""Text, or a figure that is shown with four places; NaN is shown as a dash."""


@dataclass(frozen=True)
class Figures:
    """One table: a row per predictor or setting, the first column its name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Lines over one pair of axes; ``lines`` maps a name to its (x, y) points."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Report:
    """What a protocol says of a log.

    figures      by name, for programs
    samples      paired differences, one a user, by name: a run over several logs pools them
    predictions  the lists or probabilities that were scored, None where there are none
    """

    tables: Sequence[Figures]
    figures: Mapping[str, float] = field(default_factory=dict)
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    predictions: pa.Table | None = None


def shown(cell: Cell) -> str:
    """A cell as people read it."""
    if isinstance(cell, str):
        return cell
    return "–" if math.isnan(cell) else f"{cell:.4f}"


def to_document(report: Report) -> dict[str, Any]:
    """A report without its predictions as values of JSON; what is no number becomes null."""
    document = {
        "figures": dict(report.figures),
        "tables": [
            {"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note}
            for t in report.tables
        ],
        "samples": {name: list(values) for name, values in report.samples.items()},
        "curves": [
            {"title": c.title, "x_label": c.x_label, "y_label": c.y_label, "lines": dict(c.lines)}
            for c in report.curves
        ],
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def from_document(document: Mapping[str, Any]) -> Report:
    """The report of a document of ``to_document``."""
    return Report(
        tables=[
            Figures(
                t["title"],
                t["columns"],
                [[math.nan if cell is None else cell for cell in row] for row in t["rows"]],
                t["note"],
            )
            for t in document["tables"]
        ],
        figures={k: math.nan if v is None else v for k, v in document["figures"].items()},
        samples=document["samples"],
        curves=[
            Curve(
                c["title"],
                c["x_label"],
                c["y_label"],
                {
                    name: [(x, math.nan if y is None else y) for x, y in points]
                    for name, points in c["lines"].items()
                },
            )
            for c in document["curves"]
        ],
    )


def _plain(value: Any) -> Any:
    """Sequences as lists, numbers of numpy as those of Python, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return float(value) if math.isfinite(value) else None
