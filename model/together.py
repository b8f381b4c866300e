"""One transition for the batches of several partitions: what it costs by itself is paid once.

Pure, as the transition is: a row's result does not depend on who stands beside it, so each batch
gets what it would have got alone.

Dimensions: P batches, N steps and U users of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventBatch, Source
from model.state import StateBatch, opaque
from model.transition import Drifts, Outputs, transition


def transition_together(
    batches: Sequence[tuple[StateBatch, EventBatch]], source: Source, checkpoint: Checkpoint
) -> list[tuple[StateBatch, Outputs]]:
    """What ``transition`` gives of each batch, (P,): its moved rows, and outputs by its own steps.

    Args:
        batches: the rows (U,) and the steps (N,) of each; rows of one batch are not those of
            another, even where they are of the same user.
        source: of all of them.
        checkpoint: the model.

    Raises:
        StateError: a row of this checkpoint names an item or category that it does not have.
    """
    if len(batches) == 1:
        return [transition(*batches[0], source, checkpoint)]
    all_states, all_steps = zip(*batches, strict=True)
    states = np.concatenate([opaque(states) for states in all_states]).view(all_states[0].dtype)
    first_user = _starts([len(states) for states in all_states])  # (P + 1,)
    first_step = _starts([len(steps) for steps in all_steps])
    moved, outputs = transition(
        states, EventBatch.joined(all_steps, first_user[:-1]), source, checkpoint
    )
    return [
        (moved[first_user[at] : first_user[at + 1]], _part(outputs, *first_step[at : at + 2]))
        for at in range(len(batches))
    ]


def _starts(lengths: list[int]) -> list[int]:
    return np.cumsum([0, *lengths]).tolist()


def _part(outputs: Outputs, start: int, stop: int) -> Outputs:
    """The outputs of the steps from ``start`` to ``stop``, which count from 0 again."""
    alarms = _between(outputs.drifts.step, start, stop)
    lists = _between(outputs.recommend_step, start, stop)
    scored = _rows(outputs.scored, _between(outputs.scored.step, start, stop))
    drifts = outputs.drifts
    return Outputs(
        duplicate=outputs.duplicate[start:stop],
        tested=outputs.tested[start:stop],
        drifts=Drifts(drifts.step[alarms] - start, drifts.rows[alarms], drifts.changes[alarms]),
        recommend_step=outputs.recommend_step[lists] - start,
        trigger=outputs.trigger[lists],
        rows=outputs.rows[lists],
        recommendations=_rows(outputs.recommendations, lists),
        scored=replace(scored, step=scored.step - start),
    )


def _between(steps: np.ndarray, start: int, stop: int) -> slice:
    """Where the steps from ``start`` to ``stop`` stand among rising ones."""
    return slice(*np.searchsorted(steps, [start, stop]).tolist())


def _rows(of: Any, part: slice) -> Any:
    """The rows ``part`` of a dataclass of arrays, and of those within it."""
    values = {field.name: getattr(of, field.name) for field in fields(of)}
    return type(of)(
        **{
            name: _rows(value, part) if is_dataclass(value) else value[part]
            for name, value in values.items()
        }
    )
