"""Snowplow: enriched events, as the pipeline writes them (TSV) and as its analytics SDKs do (JSON).

An enriched record is a line of 131 fields between tabs, in which events and entities are
self-describing JSON; the SDKs make one JSON object of it, with a name of its own for each schema.
Mapped are the e-commerce actions with their product and transaction entities, and site searches.

Sources: Snowplow, "Enriched stream TSV file format"
(docs.snowplow.io/docs/fundamentals/canonical-event); the schemas product/1-0-0,
snowplow_ecommerce_action/1-0-2 and transaction/1-0-0 of com.snowplowanalytics.snowplow.ecommerce,
and site_search/1-0-0 of com.snowplowanalytics.snowplow (github.com/snowplow/iglu-central).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stream_app.adapters.fields import (
    NO_OBJECT,
    Draft,
    Head,
    Item,
    Object,
    clicks,
    inner,
    json_object,
    line,
    missing,
    not_mapped,
    number,
    objects,
    purchase,
    required_text,
    search,
    text,
    whole,
)
from stream_app.errors import InvalidEvent
from stream_app.refusals import Reason

NAME = "snowplow"
CLICKS = {"product_view": "view", "list_click": "view", "add_to_cart": "cart"}
SEARCHES = ("site_search",)
PURCHASES = ("transaction",)

FIELDS = 131
_PLACES = {
    "platform": 1,
    "collector_tstamp": 3,
    "event": 5,
    "event_id": 6,
    "user_id": 12,
    "domain_userid": 15,
    "network_userid": 17,
    "contexts": 52,
    "unstruct_event": 58,
    "br_lang": 83,
    "derived_tstamp": 124,
}
"""0-based places in the line of the fields that are read."""
_ACTION = "com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1"
_SEARCH = "com_snowplowanalytics_snowplow_site_search_1"
_PRODUCT = "com_snowplowanalytics_snowplow_ecommerce_product_1"
_TRANSACTION = "com_snowplowanalytics_snowplow_ecommerce_transaction_1"
_SCHEMA = re.compile(r"iglu:([^/]+)/([^/]+)/jsonschema/([0-9]+)-[0-9]+-[0-9]+")
_ZONE = re.compile(r"(?:[Zz]|[+-][0-9]{2}:?[0-9]{2})$")

_USER = ("user_id", "domain_userid", "network_userid")
"""Fields that name the user, the first that is not empty."""


def split(value: bytes) -> list[Object]:
    """The one event of a record, in the form that the SDKs give it."""
    if value.lstrip()[:1] == b"{":
        return [json_object(value)]
    try:
        parts = value.decode().rstrip("\r\n").split("\t")
    except UnicodeDecodeError:
        raise InvalidEvent(Reason.INVALID_UTF8, "The value is not UTF-8.") from None
    if len(parts) != FIELDS:
        raise InvalidEvent(
            Reason.WRONG_FORMAT,
            f"The value is neither JSON nor {FIELDS} fields between tabs: it has {len(parts)}.",
        )
    found: dict[str, Any] = {name: parts[place] for name, place in _PLACES.items()}
    found.update(_event(found.pop("unstruct_event")))
    found.update(_entities(found.pop("contexts")))
    return [found]


def user(unit: Object) -> str | None:
    """The user of an event."""
    return text(unit, *_USER)


def drafts(unit: Object, produced_ms: int) -> list[Draft]:
    """What an event becomes; `produced_ms` is not needed, as an event has its own time.

    Raises:
        InvalidEvent: it becomes nothing.
    """
    action, searched = _given(unit, _ACTION), _given(unit, _SEARCH)
    name = SEARCHES[0] if searched is not None else text(action or NO_OBJECT, "type")
    if name is None:
        raise not_mapped("event", text(unit, "event_name", "event") or "without a name")
    if name not in CLICKS and name not in SEARCHES and name not in PURCHASES:
        raise not_mapped("action", name)
    user_id = required_text(unit, *_USER)
    head = Head(
        event_id=required_text(unit, "event_id"),
        user_id=user_id,
        timestamp=_time(required_text(unit, "derived_tstamp", "collector_tstamp")),
        device_id=text(unit, "domain_userid", "network_userid"),
        platform=text(unit, "platform"),
        locale=text(unit, "br_lang"),
    )
    if searched is not None:
        return search(head, _query(searched), whole(searched, "totalResults"))
    products = objects(unit, f"contexts_{_PRODUCT}")
    items = [_item(product) for product in products]
    if name in CLICKS:
        return clicks(head, CLICKS[name], items)
    found = objects(unit, f"contexts_{_TRANSACTION}")
    transaction = found[0] if found else NO_OBJECT
    currency = text(transaction, "currency") or (
        text(products[0], "currency") if products else None
    )
    return purchase(head, items, text(transaction, "transaction_id"), currency)


def _given(unit: Object, name: str) -> Object | None:
    field = f"unstruct_event_{name}"
    return None if unit.get(field) is None else inner(unit, field)


def _query(searched: Object) -> str:
    terms = searched.get("terms")
    if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
        raise InvalidEvent(Reason.WRONG_TYPE, "The `terms` are not an array of texts.")
    query = " ".join(terms).strip()
    if not query:
        raise missing("terms")
    return query


def _item(product: Object) -> Item:
    item_id = required_text(product, "id")
    category = text(product, "category")
    return line(item_id, category, whole(product, "quantity"), number(product, "price"))


def _time(moment: str) -> str:
    """RFC 3339; a line has UTC without a zone and a space before the time."""
    moment = moment.replace(" ", "T")
    return moment if _ZONE.search(moment) else f"{moment}Z"


def _event(field: str) -> Iterator[tuple[str, Any]]:
    if field:
        for name, data in _described(inner(json_object(field.encode()), "data")):
            yield f"unstruct_event_{name}", data


def _entities(field: str) -> Iterator[tuple[str, Any]]:
    found: dict[str, list[Any]] = {}
    if field:
        for entity in objects(json_object(field.encode()), "data"):
            for name, data in _described(entity):
                found.setdefault(f"contexts_{name}", []).append(data)
    yield from found.items()


def _described(of: Object) -> Iterator[tuple[str, Any]]:
    """Name and data of self-describing JSON: `iglu:com.acme/an_event/jsonschema/1-0-0`."""
    schema = _SCHEMA.fullmatch(text(of, "schema") or "")
    if schema is not None:
        vendor, name, model = schema.groups()
        yield f"{vendor.replace('.', '_')}_{name}_{model}", of.get("data")
