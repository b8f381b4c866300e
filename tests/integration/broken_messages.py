"""Records that are no events, at least one of each kind, with the reason that each has to get."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

from model.events import EventType
from stream_app.events import (
    MAX_CATEGORY_LENGTH,
    MAX_ID_LENGTH,
    MAX_ITEMS,
    MAX_PRICE,
    MAX_QUERY_LENGTH,
    Reason,
)
from stream_app.partitioner import partition_for

TIMESTAMP_MS = 1_735_689_600_000  # 2025-01-01
FAR_FUTURE_MS = 4_102_444_800_000  # 2100-01-01
MAX_EVENT_BYTES = 1_000_000  # of the default settings

CLICK, SEARCH, PURCHASE = EventType.CLICK, EventType.SEARCH, EventType.PURCHASE


class BrokenMessage(NamedTuple):
    """A record for the input topic of `event_type`, and why it is refused."""

    event_type: EventType
    key: bytes | None
    value: bytes | None
    reason: Reason

    def partition(self, partitions: int) -> int:
        """The partition to send it to, so that no other reason comes first."""
        if not self.key:
            return 0
        right = partition_for(self.key, partitions)
        # With one partition there is no wrong one, and such a record is an event.
        return (right + 1) % partitions if self.reason is Reason.WRONG_PARTITION else right


def good_event(event_type: EventType, user_id: str, number: int, **changes: Any) -> dict[str, Any]:
    """The JSON object of an event without fault; `changes` replace fields, None takes one away."""
    event: dict[str, Any] = {
        "event_id": f"{event_type.name.lower()}-{number}",
        "user_id": user_id,
        "timestamp": TIMESTAMP_MS + number,
    }
    if event_type is CLICK:
        event |= {"item_id": f"item-{number % 100}", "category": "shoes", "action": "view"}
    elif event_type is SEARCH:
        event |= {"query": "red shoes", "results": 3}
    else:
        event |= {"items": [{"item_id": f"item-{number % 100}", "quantity": 2, "price": 9.5}]}
    event |= changes
    return {name: value for name, value in event.items() if value is not None}


def broken_messages(seed: int) -> list[BrokenMessage]:
    """About fifty records of every `Reason`, in an order and with users that follow `seed`."""
    rng = random.Random(seed)
    messages: list[BrokenMessage] = []

    def user() -> str:
        return f"broken-{seed}-{rng.randrange(1_000_000)}"

    def raw(kind: EventType, value: bytes | None, reason: Reason) -> None:
        messages.append(BrokenMessage(kind, user().encode(), value, reason))

    def event(kind: EventType, reason: Reason, **changes: Any) -> None:
        user_id = changes.pop("user_id", user())
        fields = good_event(kind, user_id, rng.randrange(1_000_000), **changes)
        messages.append(BrokenMessage(kind, user_id.encode(), json.dumps(fields).encode(), reason))

    def replaced(kind: EventType, old: str, new: bytes, reason: Reason) -> None:
        user_id = user()
        value = json.dumps(good_event(kind, user_id, rng.randrange(1_000_000))).encode()
        assert old.encode() in value
        value = value.replace(old.encode(), new)
        messages.append(BrokenMessage(kind, user_id.encode(), value, reason))

    def line(reason: Reason, **item: Any) -> None:
        event(PURCHASE, reason, items=[{"item_id": "a"}, {"item_id": "b", **item}])

    # The record itself.
    for kind in EventType:
        raw(kind, None, Reason.NULL_VALUE)
        event_without_key = json.dumps(good_event(kind, user(), 1)).encode()
        messages.append(BrokenMessage(kind, None, event_without_key, Reason.KEY_MISSING))
        other = json.dumps(good_event(kind, user(), 1)).encode()
        raw(kind, other, Reason.KEY_MISMATCH)
        event(kind, Reason.WRONG_PARTITION)
        event(kind, Reason.RESERVED_USER_ID, user_id="__faust\0offset__")
    event(CLICK, Reason.TOO_LARGE, padding="x" * MAX_EVENT_BYTES)
    messages.append(BrokenMessage(CLICK, b"", event_without_key, Reason.KEY_MISSING))

    # Not JSON, or not an object.
    raw(CLICK, b"\xff\xfe\x00\x01", Reason.INVALID_UTF8)
    raw(SEARCH, rng.randbytes(30) + b"\xff", Reason.INVALID_UTF8)
    replaced(SEARCH, "red shoes", b"red \xc3\x28", Reason.INVALID_UTF8)
    replaced(SEARCH, '"results": 3', b'"unknown": "\xe2\x82"', Reason.INVALID_UTF8)
    raw(CLICK, b"", Reason.INVALID_JSON)
    raw(CLICK, b"view", Reason.INVALID_JSON)
    raw(SEARCH, b'{"event_id": "cut', Reason.INVALID_JSON)
    replaced(CLICK, '"view"', b'"view",', Reason.INVALID_JSON)
    replaced(CLICK, "shoes", b"\\ud800", Reason.INVALID_JSON)
    replaced(SEARCH, '"results": 3', b'"n": ' + b"[" * 50_000, Reason.NESTED_TOO_DEEP)
    raw(CLICK, b"[]", Reason.NOT_AN_OBJECT)
    raw(PURCHASE, b"null", Reason.NOT_AN_OBJECT)
    raw(SEARCH, b'"{}"', Reason.NOT_AN_OBJECT)

    # Fields.
    raw(CLICK, b"{}", Reason.MISSING_FIELD)
    event(CLICK, Reason.MISSING_FIELD, item_id=None)
    event(SEARCH, Reason.MISSING_FIELD, query=None)
    event(PURCHASE, Reason.MISSING_FIELD, items=[{}])
    event(CLICK, Reason.WRONG_TYPE, item_id=17)
    event(PURCHASE, Reason.WRONG_TYPE, items={"item_id": "a"})
    event(SEARCH, Reason.WRONG_TYPE, results="3")
    line(Reason.WRONG_TYPE, price="9.50")
    event(CLICK, Reason.EMPTY_FIELD, event_id="")
    event(SEARCH, Reason.EMPTY_FIELD, query="")
    event(CLICK, Reason.FIELD_TOO_LONG, user_id="u" * (MAX_ID_LENGTH + 1))
    event(CLICK, Reason.FIELD_TOO_LONG, category="c" * (MAX_CATEGORY_LENGTH + 1))
    event(SEARCH, Reason.FIELD_TOO_LONG, query="q" * (MAX_QUERY_LENGTH + 1))
    event(CLICK, Reason.UNKNOWN_ACTION, action="buy")
    event(PURCHASE, Reason.NO_ITEMS, items=[])
    event(PURCHASE, Reason.TOO_MANY_ITEMS, items=[{"item_id": "a"}] * (MAX_ITEMS + 1))
    event(PURCHASE, Reason.TOO_MANY_ITEMS, items=[{"item_id": "a"}] * 10_000)
    line(Reason.NEGATIVE_PRICE, price=-0.01)
    line(Reason.INVALID_NUMBER, price=MAX_PRICE * 2)
    line(Reason.INVALID_NUMBER, quantity=0)
    line(Reason.INVALID_NUMBER, quantity=-1)
    line(Reason.INVALID_NUMBER, price=float("nan"))  # json.dumps writes NaN and Infinity
    line(Reason.INVALID_NUMBER, price=float("inf"))
    line(Reason.INVALID_NUMBER, price=float("-inf"))
    replaced(PURCHASE, "9.5", b"1e400", Reason.INVALID_NUMBER)
    event(SEARCH, Reason.INVALID_NUMBER, results=-1)

    # Time.
    event(CLICK, Reason.TIMESTAMP_INVALID, timestamp="yesterday")
    event(CLICK, Reason.TIMESTAMP_INVALID, timestamp="2025-01-01T00:00:00")  # no zone
    event(SEARCH, Reason.TIMESTAMP_INVALID, timestamp="2025-02-30T00:00:00Z")
    event(CLICK, Reason.WRONG_TYPE, timestamp=True)
    event(CLICK, Reason.TIMESTAMP_IN_FUTURE, timestamp=FAR_FUTURE_MS)
    event(SEARCH, Reason.TIMESTAMP_IN_FUTURE, timestamp="9999-12-31T23:59:59.999999-23:59")
    event(PURCHASE, Reason.TIMESTAMP_IN_FUTURE, timestamp=10**30)
    event(CLICK, Reason.TIMESTAMP_TOO_OLD, timestamp=TIMESTAMP_MS // 1000)  # seconds
    event(SEARCH, Reason.TIMESTAMP_TOO_OLD, timestamp="0001-01-01T00:00:00+23:59")
    event(PURCHASE, Reason.TIMESTAMP_TOO_OLD, timestamp=-1)

    rng.shuffle(messages)
    return messages
