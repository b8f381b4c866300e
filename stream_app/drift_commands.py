"""``interest-stream drift`` and ``drift calibrate``: changes of interest in a log file.

They import what they need when they are called: torch alone takes longer than other commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stream_app.errors import UsageError
from stream_app.terminal import console, stages

drift_app = typer.Typer(invoke_without_command=True)

DataOption = Annotated[Path | None, typer.Option(help="Event log: .parquet, .csv or .jsonl.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of the shuffles.")]


@drift_app.callback()
def drift_command(
    context: typer.Context,
    data: DataOption = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .parquet, .csv or .jsonl.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint directory; calibrated on the log without one.")
    ] = None,
    seed: SeedOption = 0,
    quick: Annotated[bool, typer.Option("--quick", help="A rough calibration.")] = False,
) -> None:
    """Find the changes of interest in an event log, with their evidence."""
    if context.invoked_subcommand is not None:
        return
    if data is None or out is None:
        raise UsageError("Name the event log with --data and the file to write with --out.")
    from model.calibration import calibrate
    from model.checkpoint import load, with_drift
    from model.event_log import read_event_log
    from model.prediction import drift_table, move
    from model.tables import write_table
    from model.training import TrainingConfig, untrained_checkpoint

    log = read_event_log(data)
    with stages() as progress:
        if checkpoint is not None:
            model = load(checkpoint)
        else:
            config = TrainingConfig.quick(seed) if quick else TrainingConfig(seed=seed)
            model = untrained_checkpoint(log, config)
            steps, _ = log.batch(model.vocabulary)
            wanted, most = config.average_run_length, config.calibration_steps
            settings = calibrate(steps, model, wanted, seed, progress=progress, max_steps=most)
            model = with_drift(model, settings)
        moved = move(log, model, progress)
    table = drift_table(moved, log, model)
    write_table(table, out)
    stated = model.drift.average_run_length
    console.print(
        f"Wrote {table.num_rows:,} changes to {out}; threshold {model.drift.threshold:g}, "
        + ("not calibrated." if stated is None else f"{stated:,.0f} steps between false alarms.")
    )


@drift_app.command("calibrate")
def calibrate_command(
    data: DataOption = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Checkpoint directory whose threshold is set.")
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option("--false-alarms-per-1000-users-per-30d", min=0, help="At most so many."),
    ] = None,
    average_run_length: Annotated[
        float | None,
        typer.Option("--average-run-length", min=1, help="At least so many steps between two."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Set a checkpoint's drift threshold on users whose whole sessions are shuffled."""
    if data is None or checkpoint is None:
        raise UsageError("Name the event log with --data and the model with --checkpoint.")
    if (false_alarms is None) == (average_run_length is None):
        raise UsageError(
            "Give either --false-alarms-per-1000-users-per-30d or --average-run-length."
        )
    from model.calibration import calibrate
    from model.card import read_card, with_drift_line
    from model.checkpoint import load, save, with_drift
    from model.event_log import read_event_log

    log, model = read_event_log(data), load(checkpoint)
    steps, _ = log.batch(model.vocabulary)
    with stages() as progress:
        settings = calibrate(
            steps, model, average_run_length, seed, false_alarms, progress=progress
        )
    if settings.average_run_length is None or settings is model.drift:
        raise UsageError(f"{data} is too short to measure so rare an alarm; give a longer log.")
    model = with_drift(model, settings)
    source = f"{data.name} (sha256 {log.digest()})"
    save(model, checkpoint, with_drift_line(read_card(checkpoint), model, source))
    console.print(
        f"Model {model.version} in {checkpoint}: threshold {settings.threshold:g}; on shuffled "
        f"sessions {settings.average_run_length:,.0f} steps between alarms (95 % "
        f"{settings.run_length_low:,.0f} to {settings.run_length_high:,.0f}), "
        f"{settings.false_alarms:,.2f} alarms per 1,000 users and 30 days; on real users "
        f"{settings.history_low:,.2f} to {settings.history_high:,.2f} per 1,000 tested steps."
    )
