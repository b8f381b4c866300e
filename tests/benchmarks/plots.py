"""Plots of the benchmarks as PNG files, drawn with matplotlib (extra ``bench``)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.benchmarks.results import Plot, Section, Series

WIDTH_INCHES = 8.0
LINES_HEIGHT_INCHES = 4.5
BAR_HEIGHT_INCHES = 0.35
DOTS_PER_INCH = 110
GROUP_SHARE = 0.8
"""Of the distance between two names that their bars take."""


def draw(section: Section, path: Path) -> None:
    """Write the plot of a section to a PNG file."""
    plot = section.plot
    height = LINES_HEIGHT_INCHES
    if plot.kind == "bars":
        bars = sum(len(series.x) for series in plot.series)
        height = 1.6 + BAR_HEIGHT_INCHES * bars
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    if plot.kind == "bars":
        _bars(axes, plot)
    else:
        _lines(axes, plot)
    axes.set_title(section.title, loc="left")
    axes.grid(axis="x" if plot.kind == "bars" else "both", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(plot.series) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})  # the version would change every file


def _bars(axes: Axes, plot: Plot) -> None:
    """Horizontal, so that long names can be read; the first name is at the top."""
    names = list(dict.fromkeys(str(name) for series in plot.series for name in series.x))
    width = GROUP_SHARE / len(plot.series)
    for number, series in enumerate(plot.series):
        rows = np.array([names.index(str(name)) for name in series.x])
        places = rows + (number - (len(plot.series) - 1) / 2) * width
        axes.barh(
            places, series.y, width, label=series.name, xerr=_reach(series), ecolor="0.3", capsize=2
        )
        for place, value in zip(places, _ends(series), strict=True):
            axes.annotate(
                f"{value[0]:,.3g}" if value[0] < 1000 else f"{value[0]:,.0f}",
                (value[1], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(plot.y_label)
    axes.set_ylabel(plot.x_label)
    axes.set_axisbelow(True)
    axes.margins(x=0.12)
    if plot.is_logarithmic:
        axes.set_xscale("log")
        smallest = min(min(series.y) for series in plot.series)
        axes.set_xlim(left=10 ** np.floor(np.log10(smallest)))  # bars have no zero to begin at


def _lines(axes: Axes, plot: Plot) -> None:
    for series in plot.series:
        axes.errorbar(
            series.x, series.y, _reach(series), label=series.name, marker="o", ms=4, capsize=2
        )
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.is_x_logarithmic:
        axes.set_xscale("log")
    ticks = sorted({float(x) for series in plot.series for x in series.x})
    axes.set_xticks(ticks, [f"{tick:,.4g}" if tick < 1 else f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()
    if plot.is_logarithmic:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _reach(series: Series) -> np.ndarray | None:
    """How far below and above the medians the rounds reach, (2, N)."""
    if not series.lowest:
        return None
    y = np.array(series.y)
    return np.array([y - np.array(series.lowest), np.array(series.highest) - y])


def _ends(series: Series) -> list[tuple[float, float]]:
    """Per bar the median, and where its error bar ends."""
    return list(zip(series.y, series.highest or series.y, strict=True))
