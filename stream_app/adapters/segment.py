"""Segment: track calls of the e-commerce specification, one JSON object a record.

Sources: Segment, "Spec: Common Fields", "Spec: Track" and "Spec: V2 Ecommerce Events" with the
names of V1 that it lists as aliases (segment.com/docs/connections/spec).
"""

from __future__ import annotations

from stream_app.adapters.fields import (
    Draft,
    Head,
    Item,
    Object,
    clicks,
    inner,
    json_object,
    line,
    not_mapped,
    number,
    objects,
    purchase,
    required_text,
    search,
    text,
    whole,
)

NAME = "segment"
CLICKS = {
    "Product Viewed": "view",
    "Viewed Product": "view",
    "Product Clicked": "view",
    "Clicked Product": "view",
    "Product Added": "cart",
    "Added Product": "cart",
    "Wishlist Product Added to Cart": "cart",
    "Product Added to Wishlist": "favourite",
}
SEARCHES = ("Products Searched",)
PURCHASES = ("Order Completed", "Completed Order")

_USER = ("userId", "anonymousId")
"""Fields that name the user, the first that is not empty."""


def split(value: bytes) -> list[Object]:
    """The one call of a record."""
    return [json_object(value)]


def user(unit: Object) -> str | None:
    """The user of a call."""
    return text(unit, *_USER)


def drafts(unit: Object, produced_ms: int) -> list[Draft]:
    """What a call becomes; `produced_ms` is not needed, as a call has its own time.

    Raises:
        InvalidEvent: it becomes nothing.
    """
    if text(unit, "type") not in (None, "track"):
        raise not_mapped("call", required_text(unit, "type"))
    name = required_text(unit, "event")
    if name not in CLICKS and name not in SEARCHES and name not in PURCHASES:
        raise not_mapped("event", name)
    user_id = required_text(unit, *_USER)
    context = inner(unit, "context")
    device = inner(context, "device")
    head = Head(
        event_id=required_text(unit, "messageId"),
        user_id=user_id,
        timestamp=required_text(unit, "timestamp"),
        device_id=text(device, "id") or text(unit, "anonymousId"),
        platform=text(device, "type"),
        locale=text(context, "locale"),
    )
    properties = inner(unit, "properties")
    if name in CLICKS:
        return clicks(head, CLICKS[name], [_item(properties)])
    if name in SEARCHES:
        return search(head, required_text(properties, "query"))
    items = [_item(product) for product in objects(properties, "products")]
    order_id = text(properties, "order_id", "orderId")
    return purchase(head, items, order_id, text(properties, "currency"))


def _item(product: Object) -> Item:
    item_id = required_text(product, "product_id", "sku", "id")
    category = text(product, "category")
    return line(item_id, category, whole(product, "quantity"), number(product, "price"))
