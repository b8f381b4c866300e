"""A user's row in words: interests, items, drift, last steps; pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from model import drift, ranking
from model.earlier import without_last
from model.events import Kind
from model.interests import Interests, interval
from model.state import RECENT, UNIT_FLAG, StateBatch, unpack
from stream_app.answers import DriftHistory, Inspection, KnownInterest, KnownStep
from stream_app.events import RecommendedItem
from stream_app.recommendation_messages import DIGITS, recommended_items

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint

UNKNOWN = "(unknown)"


def inspect_row(
    user: str,
    value: bytes | None,
    erased: bool,
    partition: int,
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
    without: int = 0,
) -> Inspection:
    """The stored row of a user in words, or as it was before its last ``without`` steps; pure.

    The answer says how many steps are left out, which may be fewer; model/earlier.py says what of
    it is exact. The offsets are those of the row as it stands.

    Raises:
        StateError: the value is no row of this checkpoint's size.
    """
    rows, left_out = unpack([value], checkpoint.hidden), 0
    fits = bool(rows["checkpoint"][0] == checkpoint.number) and int(rows["steps"][0]) > 0
    if fits and without:
        rows, left_out = without_last(rows, without, checkpoint)
    row = rows[0]
    statistic = None
    interests: list[KnownInterest] = []
    items: list[RecommendedItem] = []
    recent: list[KnownStep] = []
    if fits and row["steps"]:
        fields = {name: rows[name] for name in rows.dtype.names or ()}
        _, best = drift.check(fields, np.array([0]), checkpoint)
        statistic = float(best[0]) if np.isfinite(best[0]) else None
        interests, items = _ranked(rows, checkpoint)
        recent = _recent(row, checkpoint)
    drifts, threshold = int(row["drifts"]), checkpoint.drift.threshold
    last_drift = _time(int(row["drift_time_s"]) * 1000) if row["drift_time_s"] else None
    return Inspection(
        user_id=user,
        partition=partition,
        erased=erased,
        stored=value is not None,
        without=left_out,
        events=int(row["events"]),
        steps=int(row["steps"]),
        last_event=_time(int(row["last_time_ms"])) if row["events"] else None,
        interests=interests,
        items=items,
        drift_history=DriftHistory(drifts, last_drift, statistic, threshold),
        drift_statistic=statistic,
        drift_threshold=threshold,
        drifts=drifts,
        last_drift=last_drift,
        recent=recent,
        offsets={
            topic: offset if offset >= 0 else None
            for topic, offset in zip(topics, row["offset"].tolist(), strict=True)
        },
        model_version=checkpoint.version,
        row_checkpoint=fits,
    )


def _ranked(
    rows: StateBatch, checkpoint: Checkpoint
) -> tuple[list[KnownInterest], list[RecommendedItem]]:
    lists = ranking.rank(rows, rows["last_time_ms"], checkpoint, checkpoint.top_k)
    (items,) = recommended_items(lists, rows, checkpoint)
    return _interests(lists.interests, checkpoint), items


def _interests(found: Interests, checkpoint: Checkpoint) -> list[KnownInterest]:
    low, high = interval(found.probability, checkpoint)
    return [
        KnownInterest(
            _category(category, checkpoint), *(round(figure, DIGITS) for figure in figures)
        )
        for category, *figures in zip(
            found.category[0].tolist(),
            found.probability[0].tolist(),
            found.uncertainty[0].tolist(),
            low[0].tolist(),
            high[0].tolist(),
            strict=True,
        )
    ]


def _recent(row: np.void, checkpoint: Checkpoint) -> list[KnownStep]:
    names = ("recent_time_s", "recent_kind", "recent_item", "recent_category")
    ring = list(zip(*(row[name].tolist() for name in names), strict=True))
    steps = int(row["steps"])
    found = []
    for step in range(steps - 1, max(steps - RECENT, 0) - 1, -1):
        time_s, code, item, category = ring[step % RECENT]
        kind = Kind(code % UNIT_FLAG)
        if kind == Kind.NONE:  # its place was taken by a step that is left out
            continue
        found.append(
            KnownStep(
                _time(time_s * 1000),
                kind.name.lower(),
                checkpoint.vocabulary.item_name(item) or UNKNOWN,
                _category(category, checkpoint),
            )
        )
    return found


def _category(index: int, checkpoint: Checkpoint) -> str:
    return checkpoint.vocabulary.category_name(index) or UNKNOWN


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="seconds")
