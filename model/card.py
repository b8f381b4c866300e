"""The part of a checkpoint's card that a calibration rewrites."""

from __future__ import annotations

from pathlib import Path

from model.checkpoint import Checkpoint, DriftSettings
from model.errors import CheckpointError

_DRIFT = "Drift: "
_TITLE = "# Checkpoint "


def drift_line(drift: DriftSettings, source: str = "the training's log") -> str:
    """What the threshold is, and what was measured where it was set."""
    if drift.average_run_length is None:
        return f"{_DRIFT}threshold {drift.threshold}, the default: the log is too short to set it."
    return (
        f"{_DRIFT}threshold {drift.threshold}, set on {source} with whole sessions shuffled: there "
        f"{drift.average_run_length} steps between alarms (95 % {drift.run_length_low} to "
        f"{drift.run_length_high}), {drift.false_alarms} alarms per 1,000 users and 30 days; on "
        f"real users {drift.history_low} to {drift.history_high} alarms per 1,000 tested steps."
    )


def read_card(directory: Path | str) -> str:
    """The card of a checkpoint directory."""
    path = Path(directory) / "card.md"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The card {path} cannot be read; train the model again.") from error


def with_drift_line(card: str, checkpoint: Checkpoint, source: str) -> str:
    """The card of the checkpoint after a calibration on ``source``."""
    line = drift_line(checkpoint.drift, source)
    lines = [
        f"{_TITLE}{checkpoint.version}" if text.startswith(_TITLE) else text
        for text in card.splitlines()
        if not text.startswith(_DRIFT)
    ]
    return "\n".join([*lines, line]) + "\n"
