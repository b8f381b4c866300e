"""Commands that work on event log files and checkpoints, without Kafka.

Each imports what it needs when it is called: torch alone takes longer than most other commands.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream_app.errors import UsageError
from stream_app.evaluate_command import evaluate_command, event_type
from stream_app.terminal import console, stages
from stream_app.times import parse_duration, parse_time

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.event_log import EventLog
    from model.learning import Progress
    from model.training import TrainingConfig

DataOption = Annotated[Path, typer.Option(help="Event log: .parquet, .csv or .jsonl.")]
OutOption = Annotated[Path, typer.Option(help="File to write: .parquet, .csv or .jsonl.")]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Checkpoint directory; trained on the log without one.")
]
CutoffOption = Annotated[str, typer.Option(help="Only earlier events are known, e.g. 2014-07-17.")]
QuickOption = Annotated[bool, typer.Option("--quick", help="A short training, as in the demo.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn at random.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for name, command in (
        ("simulate", simulate_command),
        ("train", train_command),
        ("predict", predict_command),
        ("evaluate", evaluate_command),
    ):
        app.command(name)(command)


def simulate_command(
    out: OutOption,
    users: Annotated[int, typer.Option(min=1)] = 1000,
    days: Annotated[int, typer.Option(min=2)] = 60,
    seed: SeedOption = 0,
) -> None:
    """Write the event log of a simulated shop, and its planted changes beside it."""
    from model.simulation import ShopSettings, simulate, truth_path, write_simulated

    made = simulate(ShopSettings(users=users, days=days, seed=seed))
    write_simulated(made, out)
    console.print(
        f"Wrote {made.events.num_rows:,} rows to {out} and {made.truth.num_rows:,} planted "
        f"changes to {truth_path(out)}."
    )


def train_command(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Checkpoint directory to write.")],
    cutoff: Annotated[str | None, typer.Option(help="Use only events before this time.")] = None,
    horizon: Annotated[str, typer.Option(help="Length of the predicted window.")] = "30d",
    diversity: Annotated[
        float,
        typer.Option(min=0.0, max=0.999, help="How far lists follow the mix of interests."),
    ] = 0.0,
    seed: SeedOption = 0,
    quick: QuickOption = False,
) -> None:
    """Train a checkpoint on an event log."""
    from model.checkpoint import save
    from model.event_log import read_event_log
    from model.training import train

    log = read_event_log(data)
    cutoff_ms = None if cutoff is None else parse_time(cutoff)
    with stages() as progress:
        config = replace(_config(parse_duration(horizon), seed, quick), diversity=diversity)
        trained = train(log, config, progress, cutoff_ms, data.name)
    save(trained.checkpoint, out, trained.card)
    console.print(f"Wrote model {trained.checkpoint.version} to {out}; its card is {out}/card.md.")


def predict_command(
    data: DataOption,
    cutoff: CutoffOption,
    out: OutOption,
    horizon: Annotated[str, typer.Option(help="Length of the window.")] = "30d",
    items: Annotated[
        int | None, typer.Option(min=1, help="Item lists of this length instead of categories.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Categories of each user.")] = None,
    new_only: Annotated[bool, typer.Option("--new-only", help="Only untouched ones.")] = False,
    events: Annotated[
        str | None, typer.Option(help="Predict only events of this type, e.g. purchase.")
    ] = None,
    checkpoint: CheckpointOption = None,
    seed: SeedOption = 0,
    quick: QuickOption = False,
) -> None:
    """Predict the categories of the window after a time, or the next items, for every user."""
    from model.event_log import read_event_log
    from model.prediction import move, predict_categories, predict_items
    from model.tables import write_table

    if events is not None and checkpoint is not None:
        raise UsageError("A checkpoint predicts what it was trained for; leave out --events.")
    target = event_type(events)
    log, cutoff_ms, horizon_s = read_event_log(data), parse_time(cutoff), parse_duration(horizon)
    with stages() as progress:
        config = replace(_config(horizon_s, seed, quick), target=target)
        model = _checkpoint(checkpoint, log, config, progress, cutoff_ms, data.name)
        moved = move(log, model, progress, cutoff_ms)
    if items is None:
        table = predict_categories(moved, cutoff_ms, model, horizon_s, top, new_only)
    else:
        table = predict_items(moved, log.before(cutoff_ms), cutoff_ms, model, items)
    write_table(table, out)
    console.print(f"Wrote {table.num_rows:,} rows to {out}, by model {model.version}.")


def _config(horizon_s: int, seed: int, quick: bool) -> TrainingConfig:
    from model.training import TrainingConfig

    config = TrainingConfig.quick(seed) if quick else TrainingConfig(seed=seed)
    return replace(config, horizon_s=horizon_s)


def _checkpoint(
    directory: Path | None,
    log: EventLog,
    config: TrainingConfig,
    progress: Progress,
    cutoff_ms: int | None,
    name: str,
) -> Checkpoint:
    from model.checkpoint import load
    from model.training import train

    if directory is not None:
        return load(directory)
    if cutoff_ms is not None and not (log.time_ms < cutoff_ms).any():
        raise UsageError(f"{name} has no event before the cut-off; name a later one.")
    return train(log, config, progress, cutoff_ms, name).checkpoint
