"""What a protocol is, and what it is asked for; `registry.py` lists them by name.

A protocol is a function of a log file: it trains on what it may see, unless a checkpoint is given,
predicts with the rows that the transition makes, and scores beside its baselines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint import Checkpoint
from model.evaluation.report import Report
from model.learning import Progress
from model.training import TrainingConfig


@dataclass(frozen=True)
class Options:
    """What a protocol is asked for; each takes what means something to it.

    data        the log file
    config      how models are trained where ``checkpoint`` gives none
    cutoff_ms   instead of the protocol's own cut-offs
    horizon_s   length of the predicted window, None for the protocol's own
    new_only    scores only categories that the user has not touched
    event_type  scores only events of this type, None for all
    quick       a short form, to see that it runs
    """

    data: Path
    config: TrainingConfig
    checkpoint: Checkpoint | None = None
    cutoff_ms: int | None = None
    horizon_s: int | None = None
    new_only: bool = False
    event_type: str | None = None
    quick: bool = False
    seed: int = 0


Protocol = Callable[[Options, Progress], Report]
