"""Decoding accepts what the contract allows, names what it refuses, and never raises."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.events import EventType
from stream_app import events as wire
from stream_app.errors import InvalidEvent
from stream_app.events import (
    Click,
    Drift,
    Event,
    Evidence,
    Interest,
    Purchase,
    Reason,
    Recommendation,
    RecommendationReason,
    RecommendedItem,
    Rejection,
    Search,
    Share,
    Source,
    decode_batch,
    decode_event,
    encode_output,
    output_id,
)
from stream_app.partitioner import partition_for
from stream_app.refusals import MAX_MESSAGE_LENGTH
from stream_app.schemas import export_schemas, schemas
from tests.integration.broken_messages import (
    MAX_EVENT_BYTES,
    TIMESTAMP_MS,
    BrokenMessage,
    broken_messages,
    good_event,
)

NOW_MS = TIMESTAMP_MS + 3_600_000
PARTITIONS = 8
COMMITTED_SCHEMAS = Path(__file__).parents[2] / "deploy" / "schemas"


@dataclass(frozen=True)
class Raw:
    key: bytes | None
    value: bytes | None
    timestamp: int | None = NOW_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()


def decode(
    event_type: EventType, records: list[Raw], partition: int | None = None, **changes: Any
) -> tuple[list[Event | None], list[Rejection]]:
    """Decode in the partition of the first key, unless another is named."""
    if partition is None:
        partition = partition_for(records[0].key or b"", PARTITIONS) if records else 0
    values = {
        "partitions": PARTITIONS,
        "future_allowance_ms": 1000,
        "max_value_bytes": MAX_EVENT_BYTES,
        **changes,
    }
    return decode_batch(event_type, records, partition=partition, **values)


def one(event_type: EventType, **changes: Any) -> Event | Reason:
    """What becomes of a good event with these changes: the event, or the reason against it."""
    fields = good_event(event_type, changes.pop("user_id", "user-1"), 7, **changes)
    record = Raw(str(fields["user_id"]).encode(), json.dumps(fields).encode())
    (event,), rejections = decode(event_type, [record])
    if event is None:
        return rejections[0].reason
    assert not rejections
    return event


def test_a_click() -> None:
    event = one(EventType.CLICK, device_id="d", platform="ios", locale="de-DE", action="cart")

    assert event == Click(
        event_id="click-7",
        user_id="user-1",
        timestamp_ms=TIMESTAMP_MS + 7,
        item_id="item-7",
        category="shoes",
        action="cart",
        device_id="d",
        platform="ios",
        locale="de-DE",
    )


def test_a_search() -> None:
    event = one(EventType.SEARCH)

    assert isinstance(event, Search)
    assert (event.query, event.results, event.category) == ("red shoes", 3, None)


def test_a_purchase() -> None:
    event = one(EventType.PURCHASE, currency="EUR", order_id="o")

    assert isinstance(event, Purchase)
    assert [(i.item_id, i.quantity, i.price) for i in event.items] == [("item-7", 2, 9.5)]


def test_what_may_be_left_out_has_defaults() -> None:
    event = one(EventType.CLICK, category=None, action=None)

    assert isinstance(event, Click)
    assert (event.category, event.action, event.locale) == (None, "view", None)


def test_unknown_fields_and_nulls_are_no_fault() -> None:
    fields = good_event(EventType.CLICK, "user-1", 7, extra={"a": [1, None]})
    value = json.dumps(fields | {"category": None, "device_id": None}).encode()

    (event,), rejections = decode(EventType.CLICK, [Raw(b"user-1", value)])

    assert isinstance(event, Click)
    assert rejections == []


@pytest.mark.parametrize(
    ("timestamp", "expected_ms"),
    [
        (TIMESTAMP_MS, TIMESTAMP_MS),
        ("2025-01-01T00:00:00Z", TIMESTAMP_MS),
        ("2025-01-01t01:30:00.123+01:30", TIMESTAMP_MS + 123),
        ("2025-01-01T00:00:00.123999Z", TIMESTAMP_MS + 123),
        ("2000-01-01T00:00:00Z", wire.MIN_TIMESTAMP_MS),
        (wire.MIN_TIMESTAMP_MS - 1, Reason.TIMESTAMP_TOO_OLD),
        (NOW_MS + 1000, NOW_MS + 1000),
        (NOW_MS + 1001, Reason.TIMESTAMP_IN_FUTURE),
    ],
)
def test_timestamps(timestamp: int | str, expected_ms: int | Reason) -> None:
    event = one(EventType.CLICK, timestamp=timestamp)

    assert (event if isinstance(event, Reason) else event.timestamp_ms) == expected_ms
    assert isinstance(event, Reason) or type(event.timestamp_ms) is int


@pytest.mark.parametrize("produced_ms", [10**15, -1, None])
def test_a_timestamp_has_to_fit_the_row_whenever_it_was_produced(produced_ms: int | None) -> None:
    def verdict(timestamp: int) -> list[Reason]:
        fields = good_event(EventType.CLICK, "u", 1, timestamp=timestamp)
        record = Raw(b"u", json.dumps(fields).encode(), produced_ms)
        _, rejections = decode(EventType.CLICK, [record])
        return [rejection.reason for rejection in rejections]

    assert verdict(wire.MAX_TIMESTAMP_MS) == []
    assert verdict(wire.MAX_TIMESTAMP_MS + 1) == [Reason.TIMESTAMP_IN_FUTURE]


def test_the_future_begins_at_the_timestamp_of_each_record() -> None:
    fields = good_event(EventType.CLICK, "u", 1, timestamp=NOW_MS + 5000)
    value = json.dumps(fields).encode()
    produced = [NOW_MS, NOW_MS + 3999, NOW_MS + 4000, NOW_MS + 10**9, None, -1]

    events, rejections = decode(EventType.CLICK, [Raw(b"u", value, at) for at in produced])

    assert [event is not None for event in events] == [False, False, True, True, True, True]
    assert {rejection.reason for rejection in rejections} == {Reason.TIMESTAMP_IN_FUTURE}


def test_a_record_is_judged_as_before_when_it_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = good_event(EventType.CLICK, "u", 1, timestamp=NOW_MS + 1001)
    record = Raw(b"u", json.dumps(fields).encode())
    first = decode(EventType.CLICK, [record])

    for clock in (0.0, NOW_MS / 1000 + 10**6):
        monkeypatch.setattr(time, "time", lambda clock=clock: clock)
        assert decode(EventType.CLICK, [record]) == first


@pytest.mark.parametrize("user_id", ["ü" * wire.MAX_ID_LENGTH, "\x00", " ", "日本", "😀"])
def test_any_text_is_a_user_id(user_id: str) -> None:
    event = one(EventType.CLICK, user_id=user_id)

    assert not isinstance(event, Reason)
    assert event.user_id == user_id


@pytest.mark.parametrize("seed", range(3))
def test_every_broken_message_gets_its_reason(seed: int) -> None:
    messages = broken_messages(seed)

    for message in messages:
        (event,), rejections = decode(
            message.event_type,
            [Raw(message.key, message.value)],
            message.partition(PARTITIONS),
        )
        assert event is None, message
        assert [r.reason for r in rejections] == [message.reason], (message, rejections)
    of_adapters = {Reason.EVENT_NOT_MAPPED, Reason.WRONG_FORMAT}
    of_cloud_events = {Reason.CLOUDEVENT_INVALID, Reason.CLOUDEVENT_CONTENT_TYPE}
    assert {message.reason for message in messages} == set(Reason) - of_adapters - of_cloud_events


def test_messages_are_one_short_sentence() -> None:
    for message in broken_messages(1):
        _, rejections = decode(
            message.event_type,
            [Raw(message.key, message.value)],
            message.partition(PARTITIONS),
        )
        text = rejections[0].message
        assert text.endswith(".")
        assert "\n" not in text
        assert len(text) <= MAX_MESSAGE_LENGTH + 30


def test_a_value_of_ten_megabytes_is_refused_with_its_size() -> None:
    _, rejections = decode(EventType.CLICK, [Raw(b"u", b"x" * 10_000_000)])

    assert rejections[0].reason is Reason.TOO_LARGE
    assert "10000000" in rejections[0].message


def test_good_and_broken_keep_their_places() -> None:
    broken = [m for m in broken_messages(5) if m.event_type is EventType.CLICK]
    good = Raw(b"user-1", json.dumps(good_event(EventType.CLICK, "user-1", 1)).encode())
    partition = partition_for(b"user-1", PARTITIONS)
    records = [
        record for message in broken for record in (good, Raw(message.key, message.value), good)
    ]

    events, rejections = decode(EventType.CLICK, records, partition)

    assert [event is not None for event in events] == [True, False, True] * len(broken)
    assert [rejection.index for rejection in rejections] == list(range(1, len(records), 3))


def test_an_empty_batch() -> None:
    assert decode(EventType.CLICK, []) == ([], [])


def test_records_of_another_partition_are_refused() -> None:
    records = [
        Raw(f"u{i}".encode(), json.dumps(good_event(EventType.SEARCH, f"u{i}", i)).encode())
        for i in range(100)
    ]

    events, rejections = decode(EventType.SEARCH, records, 3)

    here = [partition_for(f"u{i}".encode(), PARTITIONS) == 3 for i in range(100)]
    assert [event is not None for event in events] == here
    assert {rejection.reason for rejection in rejections} == {Reason.WRONG_PARTITION}
    assert [rejection.index for rejection in rejections] == [i for i in range(100) if not here[i]]


# Properties, for whatever the bytes are.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)
TIMES = (
    st.datetimes(timezones=st.timezones() | st.none()).map(lambda time: time.isoformat())
    | st.integers()
    | st.integers(wire.MIN_TIMESTAMP_MS, NOW_MS)
)


@st.composite
def changed_events(draw: st.DrawFn) -> tuple[EventType, bytes, bytes]:
    """A good event of which fields are replaced or missing, and bytes of it changed."""
    kind = draw(st.sampled_from(EventType))
    user_id = draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5))
    fields = good_event(kind, user_id, draw(st.integers(0, 10**6)))
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2)):
        fields[name] = draw(TIMES if name == "timestamp" else JSON)
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=1)):
        del fields[name]
    value = bytearray(json.dumps(fields, ensure_ascii=draw(st.booleans())).encode())
    for place in draw(st.lists(st.integers(0, len(value) - 1), max_size=2)):
        value[place] = draw(st.integers(0, 255))
    return kind, user_id.encode(), bytes(value)


def assert_holds(kind: EventType, record: Raw) -> None:
    """Either an event within its limits, or one rejection; the same as one by one."""
    partition = partition_for(record.key or b"", PARTITIONS)
    (event,), rejections = decode(kind, [record], partition)

    try:
        alone: Event | Reason = decode_event(
            kind,
            record.key,
            record.value,
            record.timestamp,
            partition=partition,
            partitions=PARTITIONS,
            future_allowance_ms=1000,
            max_value_bytes=MAX_EVENT_BYTES,
        )
    except InvalidEvent as error:
        alone = Reason(error.reason)
    if event is None:
        assert [(r.index, r.reason) for r in rejections] == [(0, alone)]
        rejections[0].message.encode()
        return
    assert event == alone
    assert rejections == []
    assert event.user_id.encode() == record.key
    assert 1 <= len(event.user_id) <= wire.MAX_ID_LENGTH
    assert 1 <= len(event.event_id) <= wire.MAX_ID_LENGTH
    assert type(event.timestamp_ms) is int
    assert wire.MIN_TIMESTAMP_MS <= event.timestamp_ms <= NOW_MS + 1000
    # What is accepted fits its schema, also after a way out and in again.
    encoded = msgspec.json.encode(event)
    assert msgspec.json.decode(encoded, type=type(event)) == event
    jsonschema.validate(json.loads(encoded), schemas()[kind.name.lower()])


@given(st.sampled_from(EventType), st.none() | st.binary(), st.none() | st.binary())
def test_any_bytes(kind: EventType, key: bytes | None, value: bytes | None) -> None:
    assert_holds(kind, Raw(key, value))


@given(st.sampled_from(EventType), JSON)
def test_any_json(kind: EventType, document: Any) -> None:
    assert_holds(kind, Raw(b"u", json.dumps(document).encode()))


@given(changed_events())
def test_changed_events(changed: tuple[EventType, bytes, bytes]) -> None:
    kind, key, value = changed
    assert_holds(kind, Raw(key, value))


@given(TIMES)
def test_any_time(time: str | int) -> None:
    fields = good_event(EventType.SEARCH, "u", 1, timestamp=time)
    assert_holds(EventType.SEARCH, Raw(b"u", json.dumps(fields).encode()))


# Output.


def drift() -> Drift:
    return Drift(
        id=output_id("drift", "clicks", 3, 42),
        user_id="u",
        timestamp=TIMESTAMP_MS,
        source=Source("clicks", 3, 42),
        from_=[Share("shoes", 0.75), Share("hats", 0.25)],
        to=[Share("tents", 1.0)],
        since=TIMESTAMP_MS - 1,
        strength=1.0,
        confidence=0.98901,
        statistic=4.5,
        threshold=4.0,
        window_units=8,
        false_alarms_per_1000_users_per_30d=0.9,
        average_run_length=None,
        evidence=[Evidence("clicks", 3, 40, TIMESTAMP_MS - 1, "tents")],
        model_version="1",
    )


def recommendation() -> Recommendation:
    why = RecommendationReason("trending", "Popular at present.")
    return Recommendation(
        id=output_id("recommendation", "clicks", 3, 42),
        user_id="u",
        timestamp=TIMESTAMP_MS,
        source=Source("clicks", 3, 42),
        trigger="interval",
        items=[RecommendedItem("tent-1", 0.5, why)],
        interests=[Interest("tents", 0.9, 0.1)],
        diversity=0.3,
        model_version="1",
    )


def test_ids_name_the_source() -> None:
    assert output_id("drift", "clicks", 3, 42) == "drift:clicks:3:42"
    assert output_id("drift", "clicks", 3, 42, 0xABC) == "drift:clicks@00000abc:3:42"


@pytest.mark.parametrize(("name", "make"), [("drift", drift), ("recommendation", recommendation)])
def test_outputs_fit_their_schema(name: str, make: Callable[[], Drift | Recommendation]) -> None:
    output = make()
    encoded = encode_output(output)

    jsonschema.validate(json.loads(encoded), schemas()[name])
    assert msgspec.json.decode(encoded, type=type(output)) == output


def test_a_drift_says_from_and_to() -> None:
    fields = json.loads(encode_output(drift()))

    assert fields["from"] == [
        {"category": "shoes", "share": 0.75},
        {"category": "hats", "share": 0.25},
    ]
    assert fields["to"] == [{"category": "tents", "share": 1.0}]


# Schemas.


def test_committed_schemas_are_the_ones_of_the_structs(tmp_path: Path) -> None:
    files = export_schemas(tmp_path)

    committed = {file.name: file.read_text("utf-8") for file in COMMITTED_SCHEMAS.glob("*.json")}
    assert committed == {file.name: file.read_text("utf-8") for file in files}


@pytest.mark.parametrize("name", sorted(schemas()))
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schemas()[name])


@pytest.mark.parametrize("event_type", EventType)
def test_good_events_fit_their_schema(event_type: EventType) -> None:
    schema = schemas()[event_type.name.lower()]

    jsonschema.validate(good_event(event_type, "u", 1), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good_event(event_type, "", 1), schema)


def test_broken_messages_are_tuples_and_follow_the_seed() -> None:
    first, again, other = broken_messages(1), broken_messages(1), broken_messages(2)

    assert first == again
    assert first != other
    assert all(isinstance(message, BrokenMessage) and len(message) == 4 for message in first)
