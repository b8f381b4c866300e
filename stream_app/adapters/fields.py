"""What the adapters share: reading a vendor's fields, and the drafts of our events.

A draft is a JSON object of `stream_app.events` that nobody has checked yet; None stands for a field
that is left out. Vendors write numbers as text and ids as numbers, and both are taken.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import msgspec

from model.events import EventType
from stream_app.errors import InvalidEvent
from stream_app.refusals import Reason, read_json

Object = Mapping[str, Any]
Item = dict[str, Any]
"""A line of a purchase: item_id, category, quantity and price."""

MAX_NUMBER = 2**63
"""Of a vendor's field; times in microseconds are below it."""
NO_OBJECT: Object = {}

_WHOLE = re.compile(r"[0-9]{1,18}")
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True)
class Draft:
    """An event of one of the input topics, unchecked."""

    event_type: EventType
    fields: dict[str, Any]


@dataclass(frozen=True)
class Head:
    """What all events of a record share; see `stream_app.events` for the fields.

    timestamp   epoch milliseconds, or RFC 3339
    """

    event_id: str
    user_id: str
    timestamp: int | str
    device_id: str | None = None
    platform: str | None = None
    locale: str | None = None


def json_object(value: bytes) -> Object:
    """The JSON object in a value; InvalidEvent when there is none."""
    found: object = read_json(_decode, value)
    if not isinstance(found, dict):
        raise InvalidEvent(Reason.NOT_AN_OBJECT, "The value is no JSON object.")
    return found


def text(of: Object, *names: str) -> str | None:
    """The first of these fields that holds text or a whole number; None when all are empty."""
    for name in names:
        value = of.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int | None):
            raise _wrong_type(name, "text")
        if value is not None and value != "":
            return str(value)
    return None


def required_text(of: Object, *names: str) -> str:
    """As `text`, but InvalidEvent when all are empty."""
    found = text(of, *names)
    if found is None:
        raise missing(*names)
    return found


def missing(*names: str) -> InvalidEvent:
    """The error that none of these fields is there."""
    listed = " or ".join(f"`{name}`" for name in names)
    return InvalidEvent(Reason.MISSING_FIELD, f"The event has no {listed}.")


def not_mapped(what: str, name: str) -> InvalidEvent:
    """The error that events of this name become none of ours."""
    shown = name if name.isprintable() and len(name) <= 60 else "of another name"
    return InvalidEvent(
        Reason.EVENT_NOT_MAPPED,
        f"The {what} {shown} is none that becomes a click, search or purchase.",
    )


def inner(of: Object, name: str) -> Object:
    """The object in a field; an empty one when there is none."""
    value = of.get(name)
    if value is None:
        return NO_OBJECT
    if not isinstance(value, dict):
        raise _wrong_type(name, "an object")
    return value


def objects(of: Object, name: str) -> Sequence[Object]:
    """The objects in an array; empty when there is none."""
    value = of.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _wrong_type(name, "an array of objects")
    return value


def number(of: Object, name: str) -> float | int | None:
    """The number in a field, also where it is written as text; None when there is none."""
    value = of.get(name)
    if isinstance(value, str):
        if not value:
            return None
        try:
            value = int(value) if _WHOLE.fullmatch(value) else float(value)
        except ValueError:
            raise _wrong_type(name, "a number") from None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(name, "a number")
    if abs(value) > MAX_NUMBER or math.isnan(value):
        raise InvalidEvent(Reason.INVALID_NUMBER, f"The `{name}` is no number to reckon with.")
    return value


def whole(of: Object, name: str) -> int | None:
    """The whole number in a field, also where it is written as text or as 2.0."""
    value = number(of, name)
    if value is not None and int(value) != value:
        raise InvalidEvent(Reason.INVALID_NUMBER, f"The `{name}` is no whole number.")
    return None if value is None else int(value)


def micros(of: Object, name: str) -> int | None:
    """The microseconds since 1970 in a field, as milliseconds."""
    value = whole(of, name)
    return None if value is None else value // 1000


def fingerprint(vendor: str, *parts: Any) -> str:
    """An event id made of what identifies an event whose vendor gives it none."""
    encoded = msgspec.json.encode(parts, order="deterministic")
    return f"{vendor}:{sha256(encoded).hexdigest()[:32]}"


def line(item_id: str, category: str | None, quantity: int | None, price: float | None) -> Item:
    """A line of a purchase, or the item of a click."""
    return {"item_id": item_id, "category": category, "quantity": quantity, "price": price}


def clicks(head: Head, action: str, items: Sequence[Item]) -> list[Draft]:
    """A click for each item; of several, each has an id of its own, `ID:0`, `ID:1` and so on."""
    if not items:
        raise InvalidEvent(Reason.NO_ITEMS, "The event has no item.")
    made = []
    for place, item in enumerate(items):
        event_id = head.event_id if len(items) == 1 else f"{head.event_id}:{place}"
        what = {"item_id": item["item_id"], "category": item["category"], "action": action}
        made.append(_draft(EventType.CLICK, head, {**what, "event_id": event_id}))
    return made


def search(
    head: Head, query: str, results: int | None = None, category: str | None = None
) -> list[Draft]:
    """A search."""
    what = {"query": query, "results": results, "category": category}
    return [_draft(EventType.SEARCH, head, what)]


def purchase(
    head: Head, items: Sequence[Item], order_id: str | None, currency: str | None
) -> list[Draft]:
    """A purchase of all items together."""
    lines = [_given(item) for item in items]
    what = {"items": lines, "order_id": order_id, "currency": currency}
    return [_draft(EventType.PURCHASE, head, what)]


def _draft(event_type: EventType, head: Head, what: dict[str, Any]) -> Draft:
    shared = {name: getattr(head, name) for name in Head.__dataclass_fields__}
    return Draft(event_type, _given({**shared, **what}))


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _wrong_type(name: str, wanted: str) -> InvalidEvent:
    return InvalidEvent(Reason.WRONG_TYPE, f"The `{name}` is not {wanted}.")
