"""Turns the arrays that a transition gives into the messages of the output topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from model.checkpoint import Checkpoint
from model.drift import evidence_units
from model.events import EventBatch
from model.ranking import Reason, Recommendations
from model.state import StateBatch
from model.transition import Drifts, Outputs, Trigger
from stream_app.events import (
    Drift,
    Evidence,
    Interest,
    ReasonEvent,
    RecommendationReason,
    RecommendedItem,
    Share,
    Source,
    output_id,
)
from stream_app.events import Recommendation as RecommendationMessage

DIGITS = 4
"""Digits of scores and probabilities behind the point."""
UNKNOWN_CATEGORY = "(unknown)"

_TRIGGERS: dict[int, Literal["first_event", "purchase", "drift", "interval"]] = {
    Trigger.FIRST_EVENT: "first_event",
    Trigger.PURCHASE: "purchase",
    Trigger.DRIFT: "drift",
    Trigger.INTERVAL: "interval",
}
_encode = msgspec.json.Encoder().encode
_Message = tuple[bytes, bytes]


@dataclass(frozen=True)
class EncodedOutputs:
    """Messages as (key, value), and for each the index of the step that it follows."""

    drift: list[_Message]
    drift_step: np.ndarray
    recommendations: list[_Message]
    recommendation_step: np.ndarray


def encode(
    outputs: Outputs,
    events: EventBatch,
    users: list[str],
    partition: int,
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
) -> EncodedOutputs:
    """The messages of a batch: a pure function, equal for equal rows and events.

    users are the names behind ``events.user``; topics the input topics by EventType.
    """
    place = _Place(events, users, partition, topics)
    return EncodedOutputs(
        drift=_drift_messages(outputs.drifts, place, checkpoint),
        drift_step=outputs.drifts.step,
        recommendations=_recommendation_messages(outputs, place, checkpoint),
        recommendation_step=outputs.recommend_step,
    )


@dataclass(frozen=True)
class _Place:
    events: EventBatch
    users: list[str]
    partition: int
    topics: tuple[str, str, str]

    def of(self, step: int) -> tuple[str, Source, int]:
        """User, source and event time of a step."""
        events = self.events
        source = Source(
            self.topics[int(events.event_type[step])], self.partition, int(events.offset[step])
        )
        return self.users[int(events.user[step])], source, int(events.time_ms[step])


def _drift_messages(drifts: Drifts, place: _Place, checkpoint: Checkpoint) -> list[_Message]:
    vocabulary, settings = checkpoint.vocabulary, checkpoint.drift

    def category(index: int) -> str:
        return vocabulary.category_name(index) or UNKNOWN_CATEGORY

    messages = []
    for step, row, change in zip(drifts.step.tolist(), drifts.rows, drifts.changes, strict=True):
        user, source, time_ms = place.of(step)
        message = Drift(
            id=output_id("drift", source.topic, source.partition, source.offset),
            user_id=user,
            timestamp=time_ms,
            source=source,
            from_=[Share(category(c), round(share, DIGITS)) for c, share in change.before],
            to=[Share(category(c), round(share, DIGITS)) for c, share in change.after],
            since=change.since_s * 1000,
            strength=round(change.strength, DIGITS),
            statistic=round(change.statistic, DIGITS),
            threshold=settings.threshold,
            window_units=change.window,
            false_alarms_per_1000_users_per_30d=settings.false_alarms,
            average_run_length=settings.average_run_length,
            evidence=[
                Evidence(
                    topic=place.topics[kind],
                    partition=place.partition,
                    offset=full_offset(low, int(row["offset"][kind])),
                    timestamp=time_s * 1000,
                    category=category(index),
                )
                for kind, low, time_s, index in evidence_units(row, change.evidence)
            ],
            model_version=checkpoint.version,
        )
        messages.append((user.encode(), _encode(message)))
    return messages


def full_offset(low: int, latest: int) -> int:
    """The offset at or below ``latest`` whose low 32 bits are ``low``."""
    offset = (latest & ~0xFFFFFFFF) | low
    return offset if offset <= latest else offset - (1 << 32)


def _recommendation_messages(
    outputs: Outputs, place: _Place, checkpoint: Checkpoint
) -> list[_Message]:
    lists = outputs.recommendations
    liked = lists.interests
    names = checkpoint.vocabulary.category_names
    trigger = outputs.trigger.tolist()
    probability = liked.probability.round(DIGITS).tolist()
    uncertainty = liked.uncertainty.round(DIGITS).tolist()
    category = liked.category.tolist()
    diversity = lists.diversity.round(DIGITS).tolist()
    items = _listed_items(lists, outputs.rows, checkpoint)
    messages = []
    for i, step in enumerate(outputs.recommend_step.tolist()):
        user, source, time_ms = place.of(step)
        message = RecommendationMessage(
            id=output_id("recommendation", source.topic, source.partition, source.offset),
            user_id=user,
            timestamp=time_ms,
            source=source,
            trigger=_TRIGGERS[trigger[i]],
            items=items[i],
            interests=[
                Interest(names[c - 1], p, u)
                for c, p, u in zip(category[i], probability[i], uncertainty[i], strict=True)
            ],
            diversity=diversity[i],
            model_version=checkpoint.version,
        )
        messages.append((user.encode(), _encode(message)))
    return messages


def _listed_items(
    lists: Recommendations, rows: StateBatch, checkpoint: Checkpoint
) -> list[list[RecommendedItem]]:
    vocabulary, statistics = checkpoint.vocabulary, checkpoint.statistics
    names = vocabulary.item_names
    row = np.arange(len(rows))[:, None]
    because_item = rows["recent_item"][row, lists.because].tolist()
    because_time = rows["recent_time_s"][row, lists.because].tolist()
    item_category = statistics.item_category[lists.item].tolist()
    reason, score = lists.reason.tolist(), lists.score.astype(np.float64).round(DIGITS).tolist()
    trending = RecommendationReason("trending", "popular with everybody lately", None)
    sequence = RecommendationReason("sequence", "fits the order of the last steps", None)
    by_category = {
        index: RecommendationReason("category", f"of the likely category {name}", None)
        for index, name in (
            (index, vocabulary.category_name(index))
            for index in np.unique(statistics.item_category[lists.item]).tolist()
        )
    }
    listed = []
    for r, items in enumerate(lists.item.tolist()):
        entries = []
        for k, item in enumerate(items):
            if item == 0:
                continue
            kind = reason[r][k]
            if kind in (Reason.REPEATED, Reason.VIEWED_TOGETHER):
                own = vocabulary.item_name(because_item[r][k])
                event = ReasonEvent(own, because_time[r][k] * 1000) if own else None
                why = (
                    RecommendationReason("repeated", "came to it lately", event)
                    if kind == Reason.REPEATED
                    else RecommendationReason(
                        "viewed_together", f"often follows {own or 'the last items'}", event
                    )
                )
            elif kind == Reason.CATEGORY:
                why = by_category[item_category[r][k]]
            else:
                why = trending if kind == Reason.TRENDING else sequence
            entries.append(RecommendedItem(names[item - 1], score[r][k], why))
        listed.append(entries)
    return listed
