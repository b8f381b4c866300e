"""Turns the arrays that a transition gives into the messages of the output topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from model.checkpoint import Checkpoint
from model.drift import OFFSET_BITS, evidence_units
from model.events import EventBatch
from model.transition import Drifts, Outputs
from stream_app.events import (
    Drift,
    Evidence,
    Share,
)
from stream_app.recommendation_messages import DIGITS, Message, Place, recommendation_messages

UNKNOWN_CATEGORY = "(unknown)"

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class EncodedOutputs:
    """Messages as (key, value), and for each the index of the step that it follows."""

    drift: list[Message]
    drift_step: np.ndarray
    recommendations: list[Message]
    recommendation_step: np.ndarray


def encode(
    outputs: Outputs,
    events: EventBatch,
    users: list[str],
    item_id: Callable[[int], str],
    partition: int | Sequence[int],
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
    epochs: tuple[int, int, int] = (0, 0, 0),
) -> EncodedOutputs:
    """The messages of a batch: a pure function, equal for equal rows and events.

    users are the names behind ``events.user``, item_id the name of a step's item; partition that of
    all users, or of each; topics the input topics by EventType, epochs theirs.
    """
    partitions = [partition] * len(users) if isinstance(partition, int) else partition
    place = Place(events, users, item_id, partitions, topics, epochs)
    return EncodedOutputs(
        drift=_drift_messages(outputs.drifts, place, checkpoint),
        drift_step=outputs.drifts.step,
        recommendations=recommendation_messages(outputs, place, checkpoint),
        recommendation_step=outputs.recommend_step,
    )


def _drift_messages(drifts: Drifts, place: Place, checkpoint: Checkpoint) -> list[Message]:
    vocabulary, settings = checkpoint.vocabulary, checkpoint.drift

    def category(index: int) -> str:
        return vocabulary.category_name(index) or UNKNOWN_CATEGORY

    messages = []
    for step, row, change in zip(drifts.step.tolist(), drifts.rows, drifts.changes, strict=True):
        user, source, time_ms = place.of(step)
        message = Drift(
            id=place.output_id("drift", step),
            user_id=user,
            timestamp=time_ms,
            source=source,
            from_=[Share(category(c), round(share, DIGITS)) for c, share in change.before],
            to=[Share(category(c), round(share, DIGITS)) for c, share in change.after],
            since=change.since_s * 1000,
            strength=round(change.strength, DIGITS),
            confidence=round(change.confidence, DIGITS),
            statistic=round(change.statistic, DIGITS),
            threshold=settings.threshold,
            window_units=change.window,
            false_alarms_per_1000_users_per_30d=settings.false_alarms,
            average_run_length=settings.average_run_length,
            evidence=[
                Evidence(
                    topic=place.topics[kind],
                    partition=source.partition,
                    offset=full_offset(low, int(row["offset"][kind])),
                    timestamp=time_s * 1000,
                    category=category(index),
                )
                for kind, low, time_s, index in evidence_units(row, change.evidence)
                if low != OFFSET_BITS  # nobody could look up an event of a file
            ],
            model_version=checkpoint.version,
        )
        messages.append((user.encode(), _encode(message)))
    return messages


def full_offset(low: int, latest: int) -> int:
    """The offset at or below ``latest`` whose low 32 bits are ``low``."""
    offset = (latest & ~OFFSET_BITS) | low
    return offset if offset <= latest else offset - (1 << 32)
