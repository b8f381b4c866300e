"""The wire decoder with any JSON, and with bytes that are none: an event, or a reason."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from model.events import EventType
from tests.event_batches import START_MS
from tests.fuzz_targets import feed_event

GOOD: dict[EventType, dict[str, Any]] = {
    EventType.CLICK: {"item_id": "item-1", "category": "category-1", "action": "cart"},
    EventType.SEARCH: {"query": "blue shoes", "results": 3, "locale": "de-DE"},
    EventType.PURCHASE: {"items": [{"item_id": "item-1", "quantity": 2, "price": 9.5}] * 2},
}
COMMON = {"event_id": "e-1", "user_id": "ann", "timestamp": START_MS}

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "\x00", "a" * 257, "b" * 1001, "2026-03-01T10:15:00Z", "-1"])
    | st.sampled_from([2**31, 2**63, -(2**63), 2**64, 10**400, START_MS, 1e308, 5e-324]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed_events(draw: st.DrawFn) -> tuple[EventType, bytes]:
    """A good event of which some fields hold anything at all, are gone, or are new."""
    event_type = draw(st.sampled_from(EventType))
    event: dict[str, Any] = {**COMMON, **GOOD[event_type]}
    for name in draw(st.lists(st.sampled_from([*event, "device_id", "new"]), max_size=2)):
        if draw(st.booleans()):
            event[name] = draw(anything)
        else:
            event.pop(name, None)
    if event_type == EventType.PURCHASE and draw(st.booleans()):
        name = draw(st.sampled_from(["item_id", "category", "quantity", "price"]))
        event["items"] = (
            [*event.get("items", []), {"item_id": "item-2", name: draw(anything)}]
            if isinstance(event.get("items", []), list)
            else event["items"]
        )
    return event_type, json.dumps(event).encode()


@given(changed_events())
@settings(max_examples=200, deadline=None)
def test_any_json_is_an_event_or_has_a_reason(made: tuple[EventType, bytes]) -> None:
    feed_event(*made)


@given(changed_events(), st.integers(0, 200), st.binary(max_size=8))
@settings(max_examples=150, deadline=None)
def test_broken_json_has_a_reason(made: tuple[EventType, bytes], start: int, new: bytes) -> None:
    event_type, value = made
    feed_event(event_type, value[:start] + new + value[start + len(new) :])


@given(st.sampled_from(EventType), st.binary(max_size=60), st.binary(max_size=10))
@settings(max_examples=100, deadline=None)
def test_any_bytes_have_a_reason(event_type: EventType, value: bytes, key: bytes) -> None:
    feed_event(event_type, value, key)


def test_good_events_pass() -> None:
    for event_type, fields in GOOD.items():
        feed_event(event_type, json.dumps({**COMMON, **fields}).encode())
