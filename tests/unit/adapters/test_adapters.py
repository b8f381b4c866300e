"""Each vendor's records become the events that the tables of deploy/ADAPTERS.md promise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from model.events import EventType
from stream_app.adapters.adapt import VENDORS, Adapted, adapt
from stream_app.events import Reason, decode_event
from stream_app.partitioner import partition_for
from stream_app.settings import VENDOR_NAMES
from tests.unit.adapters.examples import (
    EXAMPLES,
    PRODUCED_MS,
    TIME_MS,
    Example,
    _json,
    ga4_item,
    ga4_row,
    segment_call,
)

PARTITIONS = 4
LIMITS: dict[str, int] = {
    "partitions": PARTITIONS,
    "future_allowance_ms": 86_400_000,
    "max_value_bytes": 100_000,
}
TABLES = (Path(__file__).parents[3] / "deploy" / "ADAPTERS.md").read_text("utf-8")

CASES = [(vendor, one) for vendor, examples in EXAMPLES.items() for one in examples]


def adapted(vendor: str, value: bytes | None, produced_ms: int = PRODUCED_MS) -> Adapted:
    return adapt(VENDORS[vendor], value, produced_ms, **LIMITS)


def event_ids(vendor: str, value: bytes) -> list[str]:
    return [json.loads(one.value)["event_id"] for one in adapted(vendor, value).events]


@pytest.mark.parametrize(("vendor", "one"), CASES, ids=[f"{v}: {one.name}" for v, one in CASES])
def test_a_record_becomes_its_events_or_a_reason(vendor: str, one: Example) -> None:
    made = adapted(vendor, one.value)
    assert (made.refused and str(made.refused.reason)) == one.reason
    assert len(made.events) == len(one.events)
    for found, (kind, fields) in zip(made.events, one.events, strict=True):
        assert found.event_type.name.lower() == kind
        assert found.key == fields["user_id"].encode()
        event = decode_event(
            found.event_type,
            found.key,
            found.value,
            PRODUCED_MS,
            partition=found.partition,
            **LIMITS,
        )
        given = {name: _plain(getattr(event, name)) for name in event.__struct_fields__}
        given["timestamp"] = given.pop("timestamp_ms")
        expected = {"event_id": given["event_id"], **_whole(kind, fields)}
        assert {name: value for name, value in given.items() if value is not None} == expected


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        lines = [{n: getattr(one, n) for n in one.__struct_fields__} for one in value]
        return [{n: v for n, v in one.items() if v is not None} for one in lines]
    return value


def _whole(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Without what is empty; a purchase's lines have a quantity."""
    found = {name: value for name, value in fields.items() if value is not None}
    if kind == "purchase":
        found["items"] = [{"quantity": 1, **one} for one in found["items"]]
    return found


def test_the_vendors_are_those_of_the_settings() -> None:
    assert tuple(VENDORS) == VENDOR_NAMES == tuple(EXAMPLES)


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_event_name_of_a_vendor_has_an_example(vendor: str) -> None:
    one = VENDORS[vendor]
    seen = b" ".join(example.value for example in EXAMPLES[vendor] if example.events).decode()
    aliases = {"search", "Viewed Product", "Clicked Product", "Added Product", "Completed Order"}
    aliases |= {"Wishlist Product Added to Cart", "Product Added to Wishlist"}
    for name in {*one.clicks, *one.searches, *one.purchases} - aliases:
        assert name in seen


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_table_of_a_vendor_lists_its_events(vendor: str) -> None:
    one = VENDORS[vendor]
    _, found, section = TABLES.partition(f"<!-- events {vendor} -->")
    assert found
    rows = re.findall(
        r"^\| (`.*?`) \| (\w+)(?:, `(\w+)`)? \|", section.partition("<!-- / -->")[0], re.M
    )
    listed = {
        name: (kind, action)
        for names, kind, action in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    assert listed == {
        **{name: ("click", action) for name, action in one.clicks.items()},
        **dict.fromkeys(one.searches, ("search", "")),
        **dict.fromkeys(one.purchases, ("purchase", "")),
    }


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_record_without_a_value_or_too_long_has_a_reason(vendor: str) -> None:
    null, long = adapted(vendor, None), adapted(vendor, b"x" * 100_001)
    assert null.refused is not None
    assert long.refused is not None
    assert (null.refused.reason, long.refused.reason) == (Reason.NULL_VALUE, Reason.TOO_LARGE)


@pytest.mark.parametrize(("vendor", "one"), CASES, ids=[f"{v}: {one.name}" for v, one in CASES])
def test_the_same_record_gives_the_same_bytes(vendor: str, one: Example) -> None:
    assert adapted(vendor, one.value) == adapted(vendor, one.value)


@pytest.mark.parametrize("vendor", VENDORS)
def test_events_of_a_record_have_ids_of_their_own(vendor: str) -> None:
    for one in EXAMPLES[vendor]:
        ids = event_ids(vendor, one.value)
        assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    "change",
    [
        {"event_timestamp": str(TIME_MS * 1000)},
        {"user_pseudo_id": "1.2"},
        {"event_name": "select_item"},
        {"batch_event_index": "3"},
        {"event_bundle_sequence_id": "8"},
        {"items": [ga4_item("boots-8")]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_row_of_ga4_is_told_by_what_identifies_it(change: dict[str, Any]) -> None:
    row = ga4_row("view_item", items=[ga4_item("kettle-3")])
    assert event_ids("ga4", _json(row)) != event_ids("ga4", _json({**row, **change}))


def test_what_is_added_to_a_row_of_ga4_later_changes_no_id() -> None:
    row = ga4_row("view_item", items=[ga4_item("kettle-3")])
    later = {**row, "traffic_source": {"source": "google"}, "is_active_user": True}
    assert event_ids("ga4", _json(row)) == event_ids("ga4", _json(later))


@pytest.mark.parametrize("place", ["the body", "the event"])
def test_events_of_ga4_bodies_within_a_millisecond_are_told_apart(place: str) -> None:
    def ids(microsecond: int) -> list[str]:
        event = {"name": "view_item", "params": {"items": [ga4_item("kettle-3")]}}
        body: dict[str, Any] = {"client_id": "1.2", "events": [event]}
        of = body if place == "the body" else event
        of["timestamp_micros"] = TIME_MS * 1000 + microsecond
        return event_ids("ga4", _json(body))

    assert ids(1) != ids(2)
    assert ids(1) == ids(1)


def test_the_order_of_fields_changes_no_id() -> None:
    for vendor in ("ga4", "retail"):
        for one in EXAMPLES[vendor]:
            if one.events:
                value = json.loads(one.value)
                turned = _json(dict(reversed(value.items())))
                assert event_ids(vendor, one.value) == event_ids(vendor, turned)


def test_a_refused_record_names_its_user_where_it_can() -> None:
    refused = adapted("segment", _json(segment_call("Coupon Entered", {}))).refused
    assert refused is not None
    assert refused.user == "u-17"
    broken = adapted("segment", b"{").refused
    assert broken is not None
    assert broken.user is None


def test_an_event_of_the_future_is_told_by_its_record() -> None:
    value = _json(segment_call("Product Viewed", {"sku": "K-3"}))
    early = adapted("segment", value, TIME_MS - LIMITS["future_allowance_ms"] - 1).refused
    assert early is not None
    assert early.reason == Reason.TIMESTAMP_IN_FUTURE
    assert adapted("segment", value, TIME_MS - LIMITS["future_allowance_ms"]).refused is None


def test_partitions_are_those_of_the_keys() -> None:
    users = [f"user-{n}" for n in range(20)]
    for user in users:
        value = _json(segment_call("Product Viewed", {"sku": "K-3"}, userId=user))
        (one,) = adapted("segment", value).events
        assert one.event_type == EventType.CLICK
        assert one.partition == partition_for(user.encode(), PARTITIONS)
