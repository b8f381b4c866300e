"""Whether the intervals of the stated interests hold after the cut-off.

Each user's ten highest probabilities are sorted and cut into groups of equal size; a group counts
as inside when its observed share lies in the interval of its mean probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np

from model.checkpoint import Checkpoint
from model.evaluation.report import Cell, Figures
from model.interests import interval
from model.metrics import CALIBRATION_BINS
from model.reliability import GROUP_PAIRS, SHARE, Cases, grouped


@dataclass(frozen=True)
class Coverage:
    """Groups of one cut-off.

    pairs   in each group
    inside  (G,) bool: the observed share lies in the interval
    width   (G,) of the intervals
    """

    pairs: int
    inside: np.ndarray
    width: np.ndarray


def coverages(cases: Cases, checkpoint: Checkpoint) -> list[Coverage]:
    """Groups of a hundred pairs, and as many groups as the calibration has bins."""
    sizes = {GROUP_PAIRS, max(len(cases[0]) // CALIBRATION_BINS, 1)}
    return [_coverage(cases, checkpoint, pairs) for pairs in sorted(sizes)]


def _coverage(cases: Cases, checkpoint: Checkpoint, pairs: int) -> Coverage:
    mean, share = grouped(cases, pairs)
    low, high = interval(mean, checkpoint, pairs)
    near = 1e-9  # a share is a count over ``pairs`` here and there, but for rounding
    return Coverage(pairs, (share >= low - near) & (share <= high + near), high - low)


def coverage_table(
    cuts: Sequence[tuple[int, Sequence[Coverage]]],
) -> tuple[Figures, Mapping[str, float]]:
    """Rows by cut-off and size of group, and of all cut-offs; figures of the latter."""
    rows: list[list[Cell]] = []
    kinds: dict[str, list[Coverage]] = {}
    for cutoff_ms, found in cuts:
        day = datetime.fromtimestamp(cutoff_ms / 1000, timezone.utc).strftime("%Y-%m-%d")
        for each in found:
            rows.append([day, f"{each.pairs:,}", *_cells([each])])
            kind = f"groups of {GROUP_PAIRS}"
            if each.pairs != GROUP_PAIRS:
                kind = f"{CALIBRATION_BINS} bins"
            kinds.setdefault(kind, []).append(each)
    figures = {}
    for kind, parts in kinds.items():
        cells = _cells(parts)
        rows.append(["all", kind, *cells])
        figures[f"intervals: {kind}"] = float(cells[2])
    columns = ["cut-off", "pairs in a group", "groups", "inside", "share inside", "mean width"]
    note = (
        f"Stated: {SHARE:.0%} of the groups. The pairs are each user's ten highest probabilities, "
        "grouped by them; the groups of one cut-off share a season, and fail together."
    )
    return Figures("Intervals of the interests", columns, rows, note), figures


def _cells(parts: Sequence[Coverage]) -> list[Cell]:
    inside = np.concatenate([part.inside for part in parts])
    width = np.concatenate([part.width for part in parts])
    if len(inside) == 0:
        return ["0", "0", float("nan"), float("nan")]
    return [f"{len(inside):,}", f"{inside.sum():,}", float(inside.mean()), float(width.mean())]
