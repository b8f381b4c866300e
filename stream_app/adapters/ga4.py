"""Google Analytics 4: rows of the BigQuery export, and bodies of the Measurement Protocol.

Both are JSON objects. A row (`event_name`, `event_params`, `items`, times in microseconds) is one
event; a body (`client_id`, `events`) holds up to 25. A row written by BigQuery has its 64-bit
numbers as text.

Sources: Google, "BigQuery Export schema" (support.google.com/analytics/answer/7029846);
"Measurement Protocol reference" and "Recommended events"
(developers.google.com/analytics/devguides/collection/protocol/ga4/reference).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.adapters.fields import (
    Draft,
    Head,
    Item,
    Object,
    clicks,
    fingerprint,
    inner,
    json_object,
    line,
    micros,
    missing,
    not_mapped,
    number,
    objects,
    purchase,
    search,
    text,
    whole,
)
from stream_app.errors import InvalidEvent
from stream_app.refusals import Reason

NAME = "ga4"
CLICKS = {
    "view_item": "view",
    "select_item": "view",
    "add_to_cart": "cart",
    "add_to_wishlist": "favourite",
}
SEARCHES = ("search", "view_search_results")
PURCHASES = ("purchase",)

MAX_EVENTS = 25
"""Of one body of the Measurement Protocol."""
_NOT_SET = "(not set)"
"""What the export writes for an item's field that was not sent."""
_PLACES = ("event_bundle_sequence_id", "batch_page_id", "batch_ordering_id", "batch_event_index")
"""By which the export tells events apart that one upload brought."""
_VALUES = ("string_value", "int_value", "float_value", "double_value")


@dataclass(frozen=True)
class Unit:
    """One event of either form.

    identity   what tells it from all others
    given_ms   its time, None where the record's Kafka timestamp counts
    """

    name: str | None
    user_id: str | None
    pseudo_id: str | None
    given_ms: int | None
    params: Mapping[str, Any]
    items: Sequence[Object]
    order_id: str | None
    platform: str | None
    locale: str | None
    identity: tuple[Any, ...]


def split(value: bytes) -> list[Object]:
    """The events of a record, each with what its record says of the user."""
    found = json_object(value)
    if "events" not in found:
        return [found]
    events = objects(found, "events")
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidEvent(
            Reason.WRONG_FORMAT, f"The `events` are not 1 to {MAX_EVENTS}, as the protocol has it."
        )
    shared = {name: one for name, one in found.items() if name != "events"}
    return [{**shared, "event": one, "place": place} for place, one in enumerate(events)]


def user(unit: Object) -> str | None:
    """The user of an event."""
    return text(unit, "user_id", "user_pseudo_id", "client_id", "app_instance_id")


def drafts(unit: Object, produced_ms: int) -> list[Draft]:
    """What an event becomes.

    Args:
        produced_ms: Kafka timestamp of its record, for bodies without `timestamp_micros`.

    Raises:
        InvalidEvent: it becomes nothing.
    """
    one = _of_body(unit) if "event" in unit else _of_row(unit)
    if one.name is None:
        raise missing("event_name" if "event" not in unit else "name")
    if one.name not in CLICKS and one.name not in SEARCHES and one.name not in PURCHASES:
        raise not_mapped("event", one.name)
    user_id = one.user_id or one.pseudo_id
    if user_id is None:
        raise missing("user_id", "client_id" if "event" in unit else "user_pseudo_id")
    items = [_item(item) for item in one.items]
    time_ms = produced_ms if one.given_ms is None else one.given_ms
    query = text(one.params, "search_term")
    what = [item["item_id"] for item in items], query, one.order_id
    head = Head(
        event_id=fingerprint(
            NAME, one.name, one.user_id, one.pseudo_id, time_ms, *one.identity, *what
        ),
        user_id=user_id,
        timestamp=time_ms,
        device_id=one.pseudo_id,
        platform=one.platform,
        locale=one.locale,
    )
    if one.name in CLICKS:
        return clicks(head, CLICKS[one.name], items)
    if one.name in SEARCHES:
        if query is None:
            raise missing("search_term")
        return search(head, query)
    return purchase(head, items, one.order_id, text(one.params, "currency"))


def _of_row(row: Object) -> Unit:
    params: dict[str, Any] = {}
    for param in objects(row, "event_params"):
        values = inner(param, "value")
        found = [values[name] for name in _VALUES if values.get(name) is not None]
        params[text(param, "key") or ""] = found[0] if found else None
    given_ms = micros(row, "event_timestamp")
    if given_ms is None:
        raise missing("event_timestamp")
    return Unit(
        name=text(row, "event_name"),
        user_id=text(row, "user_id"),
        pseudo_id=text(row, "user_pseudo_id"),
        given_ms=given_ms,
        params=params,
        items=objects(row, "items"),
        order_id=_set(text(inner(row, "ecommerce"), "transaction_id"))
        or text(params, "transaction_id"),
        platform=text(row, "platform"),
        locale=text(inner(row, "device"), "language"),
        identity=(
            text(row, "stream_id"),
            whole(row, "event_timestamp"),
            *(text(row, name) for name in _PLACES),
        ),
    )


def _of_body(body: Object) -> Unit:
    event = inner(body, "event")
    params = inner(event, "params")
    given_ms = micros(event, "timestamp_micros")
    return Unit(
        name=text(event, "name"),
        user_id=text(body, "user_id"),
        pseudo_id=text(body, "client_id", "app_instance_id"),
        given_ms=micros(body, "timestamp_micros") if given_ms is None else given_ms,
        params=params,
        items=objects(params, "items"),
        order_id=text(params, "transaction_id"),
        platform=None,
        locale=text(params, "language"),
        identity=(
            body["place"],
            params,
            whole(event, "timestamp_micros"),
            whole(body, "timestamp_micros"),
        ),
    )


def _item(item: Object) -> Item:
    item_id = _set(text(item, "item_id")) or _set(text(item, "item_name"))
    if item_id is None:
        raise missing("item_id", "item_name")
    category = _set(text(item, "item_category"))
    return line(item_id, category, whole(item, "quantity"), number(item, "price"))


def _set(value: str | None) -> str | None:
    return None if value == _NOT_SET else value
