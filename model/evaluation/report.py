"""What a protocol leaves behind: tables of figures, plots, and the very predictions it scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
    predictions  the lists or probabilities that were scored, None where there are none
    """

    tables: Sequence[Figures]
    figures: Mapping[str, float] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    predictions: pa.Table | None = None
