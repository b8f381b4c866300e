"""Records of each vendor, made after their published field lists, and what they have to become.

Every vendor has the same shopper: a view, a click in a list, a cart, a search and a purchase, and
an event that is none of ours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from stream_app.adapters.snowplow import FIELDS

PRODUCED_MS = 1_772_360_105_000
TIME_MS = 1_772_360_100_250
TIME = "2026-03-01T10:15:00.250Z"
ECOMMERCE = "com.snowplowanalytics.snowplow.ecommerce"


@dataclass(frozen=True)
class Example:
    """A record, and its events as (type, fields without event_id); or the reason it is refused."""

    name: str
    value: bytes
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    reason: str | None = None


def click(item_id: str, category: str | None, action: str, **more: Any) -> tuple[str, dict]:
    fields = {"item_id": item_id, "category": category, "action": action, **more}
    return "click", fields


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# Google Analytics 4


def ga4_row(name: str, **more: Any) -> dict[str, Any]:
    """A row of the export, with 64-bit numbers as BigQuery's JSON has them."""
    return {
        "event_date": "20260301",
        "event_timestamp": str(TIME_MS * 1000 + 999),
        "event_name": name,
        "event_params": [
            {"key": "ga_session_id", "value": {"int_value": "1772360000"}},
            {"key": "page_location", "value": {"string_value": "https://shop.example/"}},
        ],
        "event_bundle_sequence_id": "7",
        "user_id": "u-17",
        "user_pseudo_id": "123456.7654321",
        "device": {"category": "mobile", "language": "de-de"},
        "stream_id": "98765",
        "platform": "WEB",
        "batch_event_index": "2",
        **more,
    }


def ga4_item(item_id: str, *categories: str, **more: Any) -> dict[str, Any]:
    names = ["item_category", *(f"item_category{n}" for n in range(2, 6))]
    filled = (*categories, *["(not set)"] * 5)[:5]
    return {
        "item_id": item_id,
        "item_name": "A name",
        **dict(zip(names, filled, strict=True)),
        **more,
    }


_GA4 = {"user_id": "u-17", "timestamp": TIME_MS, "device_id": "123456.7654321"}
_ROW = {**_GA4, "platform": "WEB", "locale": "de-de"}
_KETTLE = ga4_item("kettle-3", "Kitchen", "Kettles", price=39.9, quantity="1")
_SOCKS = ga4_item("socks-2", "Outdoor", price=9.5, quantity="3")
GA4 = (
    Example(
        "view_item",
        _json(ga4_row("view_item", items=[_KETTLE])),
        (click("kettle-3", "Kitchen", "view", **_ROW),),
    ),
    Example(
        "select_item",
        _json(ga4_row("select_item", items=[_KETTLE])),
        (click("kettle-3", "Kitchen", "view", **_ROW),),
    ),
    Example(
        "add_to_cart, two items, of a user who is not logged in",
        _json(ga4_row("add_to_cart", user_id=None, items=[_KETTLE, _SOCKS])),
        (
            click("kettle-3", "Kitchen", "cart", **{**_ROW, "user_id": "123456.7654321"}),
            click("socks-2", "Outdoor", "cart", **{**_ROW, "user_id": "123456.7654321"}),
        ),
    ),
    Example(
        "add_to_wishlist of an item without an id",
        _json(ga4_row("add_to_wishlist", items=[{"item_id": "(not set)", "item_name": "Kettle"}])),
        (click("Kettle", None, "favourite", **_ROW),),
    ),
    Example(
        "view_search_results",
        _json(
            ga4_row(
                "view_search_results",
                event_params=[{"key": "search_term", "value": {"string_value": "hiking boots"}}],
            )
        ),
        (("search", {**_ROW, "query": "hiking boots"}),),
    ),
    Example(
        "purchase",
        _json(
            ga4_row(
                "purchase",
                event_params=[{"key": "currency", "value": {"string_value": "EUR"}}],
                ecommerce={"transaction_id": "o-77", "purchase_revenue": 68.4},
                items=[_KETTLE, _SOCKS],
            )
        ),
        (
            (
                "purchase",
                {
                    **_GA4,
                    "platform": "WEB",
                    "order_id": "o-77",
                    "currency": "EUR",
                    "items": [
                        {
                            "item_id": "kettle-3",
                            "category": "Kitchen",
                            "quantity": 1,
                            "price": 39.9,
                        },
                        {"item_id": "socks-2", "category": "Outdoor", "quantity": 3, "price": 9.5},
                    ],
                },
            ),
        ),
    ),
    Example("page_view", _json(ga4_row("page_view")), reason="event_not_mapped"),
    Example("view_item without an item", _json(ga4_row("view_item", items=[])), reason="no_items"),
    Example("search without a term", _json(ga4_row("view_search_results")), reason="missing_field"),
    Example(
        "without any user",
        _json(ga4_row("view_item", items=[_KETTLE], user_id=None, user_pseudo_id=None)),
        reason="missing_field",
    ),
    Example(
        "purchase of a negative price",
        _json(ga4_row("purchase", items=[ga4_item("kettle-3", price=-1)])),
        reason="negative_price",
    ),
    Example(
        "seconds for microseconds",
        _json(ga4_row("view_item", items=[_KETTLE], event_timestamp=TIME_MS // 1000)),
        reason="timestamp_too_old",
    ),
    Example(
        "a body of the Measurement Protocol",
        _json(
            {
                "client_id": "123456.7654321",
                "user_id": "u-17",
                "timestamp_micros": TIME_MS * 1000,
                "events": [
                    {
                        "name": "view_item",
                        "params": {
                            "currency": "EUR",
                            "items": [{"item_id": "kettle-3", "item_category": "Kitchen"}],
                        },
                    },
                    {"name": "search", "params": {"search_term": "hiking boots"}},
                    {
                        "name": "purchase",
                        "params": {
                            "transaction_id": "o-77",
                            "currency": "EUR",
                            "items": [{"item_id": "socks-2", "price": "9.50", "quantity": "3"}],
                        },
                    },
                ],
            }
        ),
        (
            click("kettle-3", "Kitchen", "view", **_GA4),
            ("search", {**_GA4, "query": "hiking boots"}),
            (
                "purchase",
                {
                    **_GA4,
                    "order_id": "o-77",
                    "currency": "EUR",
                    "items": [{"item_id": "socks-2", "quantity": 3, "price": 9.5}],
                },
            ),
        ),
    ),
    Example(
        "a body without a time, of which one event is none of ours",
        _json(
            {
                "client_id": "123456.7654321",
                "events": [
                    {"name": "page_view", "params": {"page_title": "Start"}},
                    {"name": "view_item", "params": {"items": [{"item_id": "kettle-3"}]}},
                ],
            }
        ),
        (
            click(
                "kettle-3",
                None,
                "view",
                user_id="123456.7654321",
                device_id="123456.7654321",
                timestamp=PRODUCED_MS,
            ),
        ),
        reason="event_not_mapped",
    ),
    Example("a body without events", b'{"client_id": "1.2", "events": []}', reason="wrong_format"),
    Example("no JSON", b"event_name=view_item", reason="invalid_json"),
)


# Segment


def segment_call(event: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "anonymousId": "507f191e810c19729de860ea",
        "context": {
            "device": {"id": "d-5", "type": "ios"},
            "library": {"name": "analytics.js", "version": "2.11.1"},
            "locale": "de-DE",
        },
        "event": event,
        "integrations": {},
        "messageId": "022bb90c-bbac-11e4-8dfc-aa07a5b093db",
        "originalTimestamp": "2026-03-01T10:14:59.000Z",
        "properties": properties,
        "receivedAt": "2026-03-01T10:15:01.909Z",
        "sentAt": "2026-03-01T10:15:01.581Z",
        "timestamp": TIME,
        "type": "track",
        "userId": "u-17",
        **more,
    }


_SEGMENT = {"user_id": "u-17", "timestamp": TIME_MS, "device_id": "d-5", "platform": "ios"}
_CALL = {**_SEGMENT, "locale": "de-DE", "event_id": "022bb90c-bbac-11e4-8dfc-aa07a5b093db"}
_GAME = {"product_id": "kettle-3", "sku": "K-3", "category": "Kitchen", "price": 39.9}
SEGMENT = (
    Example(
        "Product Viewed",
        _json(segment_call("Product Viewed", _GAME)),
        (click("kettle-3", "Kitchen", "view", **_CALL),),
    ),
    Example(
        "Product Clicked of a visitor",
        _json(segment_call("Product Clicked", {"sku": "K-3"}, userId=None, context={})),
        (
            click(
                "K-3",
                None,
                "view",
                user_id="507f191e810c19729de860ea",
                device_id="507f191e810c19729de860ea",
                timestamp=TIME_MS,
                event_id="022bb90c-bbac-11e4-8dfc-aa07a5b093db",
            ),
        ),
    ),
    Example(
        "Product Added",
        _json(segment_call("Product Added", {**_GAME, "quantity": 1})),
        (click("kettle-3", "Kitchen", "cart", **_CALL),),
    ),
    Example(
        "Products Searched",
        _json(segment_call("Products Searched", {"query": "hiking boots"})),
        (("search", {**_CALL, "query": "hiking boots"}),),
    ),
    Example(
        "Order Completed",
        _json(
            segment_call(
                "Order Completed",
                {
                    "order_id": "o-77",
                    "total": 68.4,
                    "currency": "EUR",
                    "products": [
                        {**_GAME, "quantity": 1},
                        {"product_id": 9714107479, "price": "3"},
                    ],
                },
            )
        ),
        (
            (
                "purchase",
                {
                    **_SEGMENT,
                    "order_id": "o-77",
                    "currency": "EUR",
                    "items": [
                        {
                            "item_id": "kettle-3",
                            "category": "Kitchen",
                            "quantity": 1,
                            "price": 39.9,
                        },
                        {"item_id": "9714107479", "quantity": 1, "price": 3},
                    ],
                },
            ),
        ),
    ),
    Example(
        "Coupon Entered",
        _json(segment_call("Coupon Entered", {"coupon_id": "may"})),
        reason="event_not_mapped",
    ),
    Example(
        "a page call",
        _json({**segment_call("", {}), "type": "page", "name": "Start"}),
        reason="event_not_mapped",
    ),
    Example(
        "Order Completed without products",
        _json(segment_call("Order Completed", {"order_id": "o-77"})),
        reason="no_items",
    ),
    Example(
        "without messageId",
        _json(segment_call("Product Viewed", _GAME, messageId=None)),
        reason="missing_field",
    ),
    Example(
        "a time without a zone",
        _json(segment_call("Product Viewed", _GAME, timestamp="2026-03-01T10:15:00")),
        reason="timestamp_invalid",
    ),
    Example(
        "a query that is an object",
        _json(segment_call("Products Searched", {"query": {"text": "boots"}})),
        reason="wrong_type",
    ),
    Example("an array", b"[]", reason="not_an_object"),
)


# Google Retail


def retail_event(event_type: str, **more: Any) -> dict[str, Any]:
    return {
        "eventType": event_type,
        "visitorId": "visitor-5",
        "eventTime": "2026-03-01T10:15:00.250123456Z",
        "sessionId": "s-1",
        "attributionToken": "token",
        "userInfo": {"userId": "u-17", "ipAddress": "192.0.2.1"},
        "uri": "https://shop.example/",
        **more,
    }


_RETAIL = {"user_id": "u-17", "timestamp": TIME_MS, "device_id": "visitor-5"}
RETAIL = (
    Example(
        "detail-page-view",
        _json(retail_event("detail-page-view", productDetails=[{"product": {"id": "kettle-3"}}])),
        (click("kettle-3", None, "view", **_RETAIL),),
    ),
    Example(
        "add-to-cart of a visitor, without a time",
        _json(
            {
                "eventType": "add-to-cart",
                "visitorId": "visitor-5",
                "cartId": "c-1",
                "productDetails": [
                    {
                        "product": {"id": "kettle-3", "categories": ["Kitchen > Kettles", "Gifts"]},
                        "quantity": 2,
                    }
                ],
            }
        ),
        (
            click(
                "kettle-3",
                "Kitchen > Kettles",
                "cart",
                user_id="visitor-5",
                device_id="visitor-5",
                timestamp=PRODUCED_MS,
            ),
        ),
    ),
    Example(
        "search",
        _json(
            retail_event(
                "search",
                searchQuery="hiking boots",
                pageCategories=["Outdoor > Boots"],
                productDetails=[{"product": {"id": "boots-8"}}],
            )
        ),
        (("search", {**_RETAIL, "query": "hiking boots", "category": "Outdoor > Boots"}),),
    ),
    Example(
        "purchase-complete",
        _json(
            retail_event(
                "purchase-complete",
                productDetails=[
                    {"product": {"id": "kettle-3", "priceInfo": {"price": 39.9}}, "quantity": 1},
                    {"product": {"id": "socks-2"}, "quantity": 3},
                ],
                purchaseTransaction={"id": "o-77", "revenue": 68.4, "currencyCode": "EUR"},
            )
        ),
        (
            (
                "purchase",
                {
                    **_RETAIL,
                    "order_id": "o-77",
                    "currency": "EUR",
                    "items": [
                        {"item_id": "kettle-3", "quantity": 1, "price": 39.9},
                        {"item_id": "socks-2", "quantity": 3},
                    ],
                },
            ),
        ),
    ),
    Example("home-page-view", _json(retail_event("home-page-view")), reason="event_not_mapped"),
    Example(
        "a search by category alone",
        _json(retail_event("search", pageCategories=["Outdoor"])),
        reason="missing_field",
    ),
    Example(
        "a product without an id",
        _json(retail_event("detail-page-view", productDetails=[{"quantity": 1}])),
        reason="missing_field",
    ),
    Example(
        "half a piece",
        _json(
            retail_event(
                "purchase-complete", productDetails=[{"product": {"id": "a"}, "quantity": 0.5}]
            )
        ),
        reason="invalid_number",
    ),
)


# Snowplow


def snowplow_line(event: dict[str, Any] | None, entities: list[Any], **more: str) -> bytes:
    """An enriched line: 131 fields, of which `more` names some by their place, as `f12`."""
    wrapped = {"schema": "iglu:com.snowplowanalytics.snowplow/unstruct_event/jsonschema/1-0-0"}
    many = {"schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1"}
    fields = [""] * FIELDS
    fields[0], fields[1], fields[2] = "shop", "web", "2026-03-01 10:15:03.000"
    fields[3], fields[4] = "2026-03-01 10:15:01.000", "2026-03-01 10:14:59.000"
    fields[5], fields[6] = "unstruct", "c6ef3124-b53a-4b13-a233-0088f79dcbcb"
    fields[12], fields[15], fields[17] = "u-17", "visitor-5", "network-6"
    fields[52] = json.dumps({**many, "data": entities}) if entities else ""
    fields[58] = json.dumps({**wrapped, "data": event}) if event else ""
    fields[83], fields[124], fields[126] = "de-DE", "2026-03-01 10:15:00.250", "an_event"
    for name, content in more.items():
        fields[int(name[1:])] = content
    return "\t".join(fields).encode()


def described(name: str, data: dict[str, Any], vendor: str = ECOMMERCE) -> dict[str, Any]:
    return {"schema": f"iglu:{vendor}/{name}/jsonschema/1-0-0", "data": data}


def action(name: str) -> dict[str, Any]:
    return {
        "schema": f"iglu:{ECOMMERCE}/snowplow_ecommerce_action/jsonschema/1-0-2",
        "data": {"type": name},
    }


_EVENT_ID = "c6ef3124-b53a-4b13-a233-0088f79dcbcb"
_SNOWPLOW = {
    "event_id": _EVENT_ID,
    "user_id": "u-17",
    "timestamp": TIME_MS,
    "device_id": "visitor-5",
    "platform": "web",
}
_LINE = {**_SNOWPLOW, "locale": "de-DE"}
_POT = {"id": "kettle-3", "category": "Kitchen/Kettles", "price": 39.9, "currency": "EUR"}
_PAIR = {"id": "socks-2", "category": "Outdoor", "price": 9.5, "currency": "EUR", "quantity": 3}
_ORDER = {"transaction_id": "o-77", "revenue": 68.4, "currency": "EUR", "payment_method": "card"}
_PAGE = described("web_page", {"id": "a"}, "com.snowplowanalytics.snowplow")
SNOWPLOW = (
    Example(
        "product_view",
        snowplow_line(action("product_view"), [_PAGE, described("product", _POT)]),
        (click("kettle-3", "Kitchen/Kettles", "view", **_LINE),),
    ),
    Example(
        "list_click",
        snowplow_line(action("list_click"), [described("product", _POT)]),
        (click("kettle-3", "Kitchen/Kettles", "view", **_LINE),),
    ),
    Example(
        "add_to_cart, two products, of a visitor, without derived_tstamp",
        snowplow_line(
            action("add_to_cart"),
            [described("product", _POT), described("product", _PAIR)],
            f12="",
            f124="",
        ),
        (
            click(
                "kettle-3",
                "Kitchen/Kettles",
                "cart",
                **{
                    **_LINE,
                    "event_id": f"{_EVENT_ID}:0",
                    "user_id": "visitor-5",
                    "timestamp": TIME_MS + 750,
                },
            ),
            click(
                "socks-2",
                "Outdoor",
                "cart",
                **{
                    **_LINE,
                    "event_id": f"{_EVENT_ID}:1",
                    "user_id": "visitor-5",
                    "timestamp": TIME_MS + 750,
                },
            ),
        ),
    ),
    Example(
        "site_search",
        snowplow_line(
            described(
                "site_search",
                {"terms": ["hiking", "boots"], "totalResults": 48},
                "com.snowplowanalytics.snowplow",
            ),
            [],
        ),
        (("search", {**_LINE, "query": "hiking boots", "results": 48}),),
    ),
    Example(
        "transaction",
        snowplow_line(
            action("transaction"),
            [
                described("transaction", _ORDER),
                described("product", _POT),
                described("product", _PAIR),
            ],
        ),
        (
            (
                "purchase",
                {
                    **_SNOWPLOW,
                    "order_id": "o-77",
                    "currency": "EUR",
                    "items": [
                        {
                            "item_id": "kettle-3",
                            "category": "Kitchen/Kettles",
                            "quantity": 1,
                            "price": 39.9,
                        },
                        {"item_id": "socks-2", "category": "Outdoor", "quantity": 3, "price": 9.5},
                    ],
                },
            ),
        ),
    ),
    Example(
        "product_view in the JSON of the SDKs",
        _json(
            {
                "app_id": "shop",
                "platform": "web",
                "collector_tstamp": "2026-03-01T10:15:01.000Z",
                "derived_tstamp": TIME,
                "event": "unstruct",
                "event_id": _EVENT_ID,
                "user_id": "u-17",
                "domain_userid": "visitor-5",
                "br_lang": "de-DE",
                "unstruct_event_com_snowplowanalytics_snowplow_ecommerce_"
                "snowplow_ecommerce_action_1": {"type": "product_view"},
                "contexts_com_snowplowanalytics_snowplow_ecommerce_product_1": [_POT],
            }
        ),
        (click("kettle-3", "Kitchen/Kettles", "view", **_LINE),),
    ),
    Example("page_view", snowplow_line(None, [_PAGE], f5="page_view"), reason="event_not_mapped"),
    Example("checkout_step", snowplow_line(action("checkout_step"), []), reason="event_not_mapped"),
    Example(
        "product_view without a product",
        snowplow_line(action("product_view"), []),
        reason="no_items",
    ),
    Example("a line that is too short", b"shop\tweb", reason="wrong_format"),
    Example("no UTF-8", b"shop\xff\tweb", reason="invalid_utf8"),
    Example("entities that are no JSON", snowplow_line(None, [], f52="{"), reason="invalid_json"),
)

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "ga4": GA4,
    "segment": SEGMENT,
    "retail": RETAIL,
    "snowplow": SNOWPLOW,
}
