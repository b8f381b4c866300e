"""The rows of an event log file as records of the three input topics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from model.event_log import EventLog
from model.events import EventType, Kind
from stream_app.events import Click, Event, Purchase, PurchaseItem, Search

_ACTIONS = {Kind.FAVOURITE: "favourite", Kind.CART: "cart"}
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class LogRecord:
    """One event as it goes into its input topic; row is its first row in the file."""

    event_type: EventType
    key: bytes
    value: bytes
    time_ms: int
    row: int


def log_records(log: EventLog) -> Iterator[LogRecord]:
    """The events of a log in replay order; the rows of one purchase become its line items."""
    users = [name.encode() for name in log.users]
    first = np.ones(len(log), dtype=bool)
    first[1:] = log.event[1:] != log.event[:-1]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(log)) if len(log) else starts
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        event = _event(log, start, end)
        yield LogRecord(
            EventType(int(log.event_type[start])),
            users[log.user[start]],
            _encode(event),
            int(log.time_ms[start]),
            start,
        )


def _event(log: EventLog, start: int, end: int) -> Event:
    event_id, user_id = log.event_ids[log.event[start]], log.users[log.user[start]]
    timestamp_ms, event_type = int(log.time_ms[start]), int(log.event_type[start])
    if event_type == EventType.CLICK:
        return Click(
            event_id=event_id,
            user_id=user_id,
            timestamp_ms=timestamp_ms,
            item_id=_name(log.items, log.item[start]) or "",
            category=_name(log.categories, log.category[start]),
            action=_ACTIONS.get(Kind(int(log.kind[start])), "view"),  # type: ignore[arg-type]
        )
    if event_type == EventType.SEARCH:
        return Search(
            event_id=event_id,
            user_id=user_id,
            timestamp_ms=timestamp_ms,
            query=_name(log.queries, log.query[start]) or "",
            category=_name(log.categories, log.category[start]),
        )
    return Purchase(
        event_id=event_id,
        user_id=user_id,
        timestamp_ms=timestamp_ms,
        items=tuple(
            PurchaseItem(
                item_id=_name(log.items, log.item[row]) or "",
                category=_name(log.categories, log.category[row]),
            )
            for row in range(start, end)
        ),
    )


def _name(names: list[str], code: int) -> str | None:
    return names[code] if code >= 0 else None
