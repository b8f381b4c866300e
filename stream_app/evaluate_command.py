"""``interest-stream evaluate``: a protocol over a log file, shown and written.

It imports what it needs when it is called: torch alone takes longer than most other commands.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from stream_app.errors import UsageError
from stream_app.terminal import check_folder_of, console, output, stages
from stream_app.times import parse_duration, parse_time

if TYPE_CHECKING:
    from model.evaluation.report import Figures


def evaluate_command(
    data: Annotated[Path, typer.Option(help="Event log: .parquet, .csv or .jsonl.")],
    protocol: Annotated[str, typer.Option(help="What is predicted, and how it is scored.")] = (
        "window"
    ),
    cutoff: Annotated[
        str | None, typer.Option(help="One cut-off instead of the protocol's own.")
    ] = None,
    horizon: Annotated[
        str | None, typer.Option(help="Length of the predicted window, e.g. 30d.")
    ] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Only untouched ones.")] = False,
    events: Annotated[
        str | None, typer.Option(help="Predict only events of this type, e.g. purchase.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint directory; trained on the log without one.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Write what was scored: .parquet, .csv or .jsonl.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures as JSON.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A short form, with quick trainings.")] = (
        False
    ),
) -> None:
    """Measure predictions against what happened, beside the baselines."""
    from model.checkpoint import load
    from model.evaluation.protocols import Options
    from model.evaluation.registry import named
    from model.evaluation.report import to_document
    from model.tables import SUFFIXES, write_table
    from model.training import TrainingConfig

    event_type(events)
    if predictions is not None and predictions.suffix not in SUFFIXES:
        raise UsageError(f"{predictions} is no {', '.join(SUFFIXES)} file; name one to write.")
    for file in (predictions, json_file):
        if file is not None:
            check_folder_of(file)
    evaluated = named(protocol)
    horizon_s = None if horizon is None else parse_duration(horizon)
    config = TrainingConfig.quick(seed) if quick else TrainingConfig(seed=seed)
    if horizon_s is not None:
        config = replace(config, horizon_s=horizon_s)
    options = Options(
        data=data,
        config=config,
        checkpoint=None if checkpoint is None else load(checkpoint),
        cutoff_ms=None if cutoff is None else parse_time(cutoff),
        horizon_s=horizon_s,
        new_only=new_only,
        event_type=events,
        quick=quick,
        seed=seed,
    )
    with stages() as progress:
        report = evaluated(options, progress)
    for figures in report.tables:
        output.print(_table(figures))
    if json_file is not None:
        json_file.write_text(json.dumps(to_document(report), indent=1) + "\n", "utf-8")
    if predictions is not None:
        if report.predictions is None:
            raise UsageError(f"The protocol {protocol} makes no predictions that a file can hold.")
        write_table(report.predictions, predictions)
        console.print(f"Wrote {report.predictions.num_rows:,} rows to {predictions}.")


def event_type(name: str | None) -> int | None:
    """The number of an event type, None for all; UsageError when there is none of the name."""
    from model.events import EventType

    if name is None:
        return None
    numbers = {kind.name.lower(): int(kind) for kind in EventType}
    if name not in numbers:
        raise UsageError(f"{name!r} is no type of event; name one of {', '.join(numbers)}.")
    return numbers[name]


def _table(figures: Figures) -> Table:
    from model.evaluation.report import shown

    table = Table(
        *figures.columns,
        title=figures.title,
        title_justify="left",
        caption=figures.note or None,
        caption_justify="left",
    )
    for row in figures.rows:
        table.add_row(*[shown(cell) for cell in row])
    return table
