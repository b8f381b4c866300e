"""Google Retail (Vertex AI Search for commerce): user events in the JSON of their REST resource.

Source: Google, "REST Resource: projects.locations.catalogs.userEvents"
(cloud.google.com/retail/docs/reference/rest/v2/projects.locations.catalogs.userEvents).
"""

from __future__ import annotations

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

NAME = "retail"
CLICKS = {"detail-page-view": "view", "add-to-cart": "cart"}
SEARCHES = ("search",)
PURCHASES = ("purchase-complete",)


def split(value: bytes) -> list[Object]:
    """The one event of a record."""
    return [json_object(value)]


def user(unit: Object) -> str | None:
    """The user of an event."""
    return text(inner(unit, "userInfo"), "userId") or text(unit, "visitorId")


def drafts(unit: Object, produced_ms: int) -> list[Draft]:
    """What an event becomes.

    Args:
        produced_ms: Kafka timestamp of its record, for an event without `eventTime`, which only an
            import has to have.

    Raises:
        InvalidEvent: it becomes nothing.
    """
    name = required_text(unit, "eventType")
    if name not in CLICKS and name not in SEARCHES and name not in PURCHASES:
        raise not_mapped("event", name)
    user_id = user(unit)
    if user_id is None:
        raise missing("userInfo.userId", "visitorId")
    time = text(unit, "eventTime") or produced_ms
    head = Head(
        event_id=fingerprint(NAME, time, unit),
        user_id=user_id,
        timestamp=time,
        device_id=text(unit, "visitorId"),
    )
    if name in SEARCHES:
        category = _first(unit, "pageCategories")
        return search(head, required_text(unit, "searchQuery"), category=category)
    items = [_item(detail) for detail in objects(unit, "productDetails")]
    if name in CLICKS:
        return clicks(head, CLICKS[name], items)
    transaction = inner(unit, "purchaseTransaction")
    return purchase(head, items, text(transaction, "id"), text(transaction, "currencyCode"))


def _item(detail: Object) -> Item:
    product = inner(detail, "product")
    item_id = required_text(product, "id")
    price = number(inner(product, "priceInfo"), "price")
    return line(item_id, _first(product, "categories"), whole(detail, "quantity"), price)


def _first(of: Object, name: str) -> str | None:
    names = of.get(name)
    if names is None or names == []:
        return None
    if not isinstance(names, list):
        raise InvalidEvent(Reason.WRONG_TYPE, f"The `{name}` is not an array of texts.")
    return text({name: names[0]}, name)
