"""EVALUATION.md and its plots, from the documents of the tasks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.evaluation import wanted
from model.evaluation.report import Cell, Curve, Figures, Report, from_document, shown
from model.evaluation.tasks import Task
from model.metrics import bootstrap

NAME = "EVALUATION.md"
PLOTS = "plots"
POOLED = "Pooled over the logs"


def write(
    documents: Mapping[Task, Mapping[str, Any]],
    head: Sequence[str],
    quick: bool,
    folder: Path,
) -> Path:
    """Writes the report of some tasks into a folder and returns its file.

    documents  what ``report.to_document`` gave, with the ``seconds`` it took and its ``commit``
    head       lines below the title: commit, command, machine
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = folder / PLOTS
    lines = ["# Figures of the predictions", "", *head, ""]
    reports = {task: from_document(document) for task, document in documents.items()}
    pooled = pool([(task.log, report) for task, report in reports.items()])
    measured = {task.name: report.figures for task, report in reports.items()}
    if pooled is not None:
        measured[wanted.POOLED] = {f"{row[0]}: from": float(row[2]) for row in pooled.rows}
    goals = wanted.goals_table(measured)
    if goals is not None:
        lines += [f"## {goals.title}", "", *table_lines(goals), ""]
    if pooled is not None:
        lines += [f"## {POOLED}", "", *table_lines(pooled), ""]
    for task, report in reports.items():
        seconds = float(documents[task]["seconds"])
        command = shlex.join(["interest-stream", *task.words(quick)])
        lines += [f"## {task.protocol}: {' '.join([task.log, *task.arguments])}", ""]
        lines += [f"`{command}` took {seconds:,.0f} s.", ""]
        for figures in report.tables:
            lines += [f"### {figures.title}", "", *table_lines(figures), ""]
        for curve in report.curves:
            file = f"{task.name}-{_file_name(curve.title)}.png"
            plots.mkdir(exist_ok=True)
            draw(curve, f"{task.log}: {curve.title}", plots / file)
            lines += [f"![{curve.title}]({PLOTS}/{file})", ""]
    path = folder / NAME
    path.write_text("\n".join(lines).rstrip() + "\n", "utf-8")
    return path


def pool(reports: Sequence[tuple[str, Report]]) -> Figures | None:
    """The paired differences of users of all logs together, with their bootstrap intervals.

    reports  with the name of each one's log; of several of a log the first counts, as their users
             are the same
    """
    together: dict[str, dict[str, np.ndarray]] = {}
    for log, report in reports:
        for name, values in report.samples.items():
            together.setdefault(name, {}).setdefault(log, np.array(values, dtype=float))
    rows: list[list[Cell]] = []
    for name, by_log in together.items():
        array = np.concatenate(list(by_log.values()))
        low, high = bootstrap(array)
        rows.append([name, float(np.nanmean(array)), low, high, f"{np.isfinite(array).sum():,}"])
    if not rows:
        return None
    columns = ["difference", "mean", "95 % from", "to", "users"]
    note = "Paired by user, users resampled 1,000 times; each log once."
    return Figures(POOLED, columns, rows, note)


def table_lines(figures: Figures) -> list[str]:
    """A table in Markdown, its note below."""
    cells = [list(figures.columns), ["---"] * len(figures.columns)]
    cells += [[shown(cell).replace("|", "\\|") for cell in row] for row in figures.rows]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    return [*lines, "", figures.note] if figures.note else lines


def draw(curve: Curve, title: str, path: Path) -> None:
    """One plot as a PNG file (matplotlib, extra ``bench``)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name, points in curve.lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", ms=4, label=name)
    axes.set_title(title, loc="left")
    axes.set_xlabel(curve.x_label)
    axes.set_ylabel(curve.y_label)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curve.lines) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})  # the version would change every file


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
