"""CloudEvents come in as the events they carry, and go out as what the CloudEvents SDK reads."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import datetime, timezone
from typing import Any

import pytest
from cloudevents.core.bindings import kafka
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from model.events import EventType
from model.state import unpack
from stream_app.cloud_events import data_in, user_in
from stream_app.dead_letters import MAX_ATTRIBUTE_BYTES, Letter, dead_letter, read_letter, user_of
from stream_app.errors import DeadLetterError, InvalidEvent
from stream_app.events import Event, Reason, decode_event, schema_id
from stream_app.lane.compute import Todo, compute
from stream_app.letter_records import prepare
from stream_app.metrics import Metrics
from stream_app.output_format import packing
from stream_app.partitioner import partition_for
from stream_app.settings import OutputFormat, Settings
from stream_app.times import format_time
from tests.checkpoints import tiny_checkpoint
from tests.integration.broken_messages import TIMESTAMP_MS, broken_messages, good_event
from tests.unit.lane_records import FakeRecord, MemoryRows, add, partition, record
from tests.unit.test_dead_letters import Record as LetterRecord
from tests.unit.test_wire_events import JSON, NOW_MS, PARTITIONS, Raw, decode

CLICK = EventType.CLICK
MODES = ("binary", "structured")
LATER = datetime(2025, 2, 1, tzinfo=timezone.utc)
SHOP = "https://shop.example/web"
Headers = tuple[tuple[str, bytes | None], ...]


def wrapped(mode: str, data: Any, **attributes: Any) -> tuple[Headers, bytes]:
    """Headers and value of a CloudEvent, as the SDK makes them; None takes an attribute away."""
    given = {
        "specversion": "1.0",
        "id": "1",
        "source": SHOP,
        "type": "example.shop.click",
        "datacontenttype": "application/json",
        **attributes,
    }
    event = CloudEvent({k: v for k, v in given.items() if v is not None}, data)
    made = kafka.to_binary_event(event) if mode == "binary" else kafka.to_structured_event(event)
    return tuple(made.headers.items()), made.value


def verdict(event_type: EventType, headers: Headers, value: bytes | None) -> Event | Reason:
    """What becomes of a record of the user u."""
    (event,), rejections = decode(event_type, [Raw(b"u", value, NOW_MS, headers)])
    return rejections[0].reason if event is None else event


def plain(event_type: EventType, **changes: Any) -> Event | Reason:
    fields = good_event(event_type, "u", 7, **changes)
    return verdict(event_type, (), json.dumps(fields).encode())


# Inputs.


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("event_type", EventType)
def test_it_is_the_event_that_it_carries(event_type: EventType, mode: str) -> None:
    headers, value = wrapped(mode, good_event(event_type, "u", 7))

    event = verdict(event_type, headers, value)

    assert not isinstance(event, Reason)
    assert event == plain(event_type)


@pytest.mark.parametrize("mode", MODES)
def test_attributes_fill_in_what_the_data_lack(mode: str) -> None:
    data = good_event(CLICK, "u", 7)
    lacking = {k: v for k, v in data.items() if k not in ("event_id", "timestamp", "user_id")}
    time = datetime.fromtimestamp(data["timestamp"] / 1000, timezone.utc)

    event = verdict(CLICK, *wrapped(mode, lacking, id="a-1", subject="u", time=time))

    assert event == plain(CLICK, event_id=f"{SHOP} a-1")


@pytest.mark.parametrize("mode", MODES)
def test_the_data_come_before_the_attributes(mode: str) -> None:
    data = good_event(CLICK, "u", 7)

    event = verdict(CLICK, *wrapped(mode, data, subject="v", time=LATER))

    assert event == plain(CLICK)


def test_ids_of_two_sources_stay_apart() -> None:
    data = good_event(CLICK, "u", 7, event_id=None)

    found = [
        verdict(CLICK, *wrapped("binary", data, source=source, id=name))
        for source, name in (("a", "b c"), ("a#b", "c"), ("a", "b#c"))
    ]

    assert len({event.event_id for event in found if not isinstance(event, Reason)}) == 3


def test_data_in_base64_and_an_envelope_without_its_content_type() -> None:
    headers, value = wrapped("structured", good_event(CLICK, "u", 7))
    envelope = json.loads(value)
    data = json.dumps(envelope.pop("data")).encode()
    coded = {**envelope, "data_base64": base64.b64encode(data).decode()}

    assert verdict(CLICK, headers, json.dumps(coded).encode()) == plain(CLICK)
    assert plain(CLICK, specversion="1.0") == plain(CLICK), "it has an event_id of its own"
    for other in ((), (("content-type", b"application/json"),)):
        assert verdict(CLICK, other, value) == plain(CLICK)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"specversion": "0.3"}, Reason.CLOUDEVENT_INVALID),
        ({"specversion": None}, Reason.CLOUDEVENT_INVALID),
        ({"id": None}, Reason.CLOUDEVENT_INVALID),
        ({"id": ""}, Reason.CLOUDEVENT_INVALID),
        ({"source": None}, Reason.CLOUDEVENT_INVALID),
        ({"source": "a b"}, Reason.CLOUDEVENT_INVALID),
        ({"type": None}, Reason.CLOUDEVENT_INVALID),
        ({"datacontenttype": "application/xml"}, Reason.CLOUDEVENT_CONTENT_TYPE),
        ({"datacontenttype": "application/vnd.shop+json; charset=utf-8"}, None),
        ({"time": "yesterday"}, None),  # the data have a timestamp
        ({"unknown": "x"}, None),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_attributes_that_break_the_specification(
    mode: str, attributes: dict[str, str | None], reason: Reason | None
) -> None:
    headers, value = wrapped(mode, good_event(CLICK, "u", 7))
    if mode == "binary":
        names = {"datacontenttype": "content-type"}
        changed = {names.get(name, f"ce_{name}"): text for name, text in attributes.items()}
        kept = {name: text for name, text in headers if name not in changed}
        more = {name: text.encode() for name, text in changed.items() if text is not None}
        headers = tuple({**kept, **more}.items())
    else:
        envelope = {**json.loads(value), **attributes}
        value = json.dumps({k: v for k, v in envelope.items() if v is not None}).encode()

    assert verdict(CLICK, headers, value) == (reason or plain(CLICK))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": None}, Reason.NOT_AN_OBJECT),
        ({"data": "text"}, Reason.NOT_AN_OBJECT),
        ({"data": {}}, Reason.MISSING_FIELD),
        ({"data_base64": "e30="}, Reason.CLOUDEVENT_INVALID),  # beside data
        ({"data_base64": "?"}, Reason.CLOUDEVENT_INVALID),
        ({"subject": 7}, Reason.CLOUDEVENT_INVALID),
    ],
)
def test_envelopes_that_break(change: dict[str, Any], reason: Reason) -> None:
    headers, value = wrapped("structured", good_event(CLICK, "u", 7))

    assert verdict(CLICK, headers, json.dumps({**json.loads(value), **change}).encode()) == reason


STRUCTURED: Headers = (("content-type", b"Application/CloudEvents+JSON; charset=UTF-8"),)
BINARY: Headers = (
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"s"),
    ("ce_type", b"t"),
)


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        (STRUCTURED, b"", Reason.INVALID_JSON),
        (STRUCTURED, b"\xff", Reason.INVALID_UTF8),
        (STRUCTURED, b"[]", Reason.CLOUDEVENT_INVALID),
        (STRUCTURED, b'{"data": ' + b"[" * 50_000, Reason.NESTED_TOO_DEEP),
        (STRUCTURED, b'{"specversion": NaN}', Reason.INVALID_NUMBER),
        (STRUCTURED, b'{"specversion":"1.0","id":"1","source":"s","type":"t"}', None),
        ((("content-type", b"application/cloudevents-batch+json"),), b"[]", None),
        ((("content-type", b"application/cloudevents+avro"),), b"\0", None),
        (BINARY, b"", Reason.CLOUDEVENT_INVALID),
        (BINARY, b"view", Reason.INVALID_JSON),
        (BINARY, b"\xff", Reason.INVALID_UTF8),
        ((*BINARY, ("ce_id", b"\xff")), b"{}", Reason.CLOUDEVENT_INVALID),
        ((*BINARY, ("ce_id", None)), b"{}", Reason.CLOUDEVENT_INVALID),
        ((*BINARY, ("ce_time", b"yesterday")), b'{"user_id":"u","item_id":"i"}', "time"),
        ((*BINARY, ("ce_source", b"s" * 300)), b'{"user_id":"u","timestamp":1}', "long"),
    ],
)
def test_broken_bytes(headers: Headers, value: bytes, reason: Reason | str | None) -> None:
    expected = {"time": Reason.TIMESTAMP_INVALID, "long": Reason.FIELD_TOO_LONG}.get(
        str(reason), reason
    )
    if reason is None:
        no_data = b"specversion" in value
        expected = Reason.CLOUDEVENT_INVALID if no_data else Reason.CLOUDEVENT_CONTENT_TYPE

    assert verdict(CLICK, headers, value) == expected


@pytest.mark.parametrize("headers", [BINARY, STRUCTURED])
def test_the_size_of_the_record_counts_and_no_value_is_none(headers: Headers) -> None:
    _, rejections = decode(CLICK, [Raw(b"u", b"x" * 10_000_000, NOW_MS, headers)])
    assert rejections[0].reason is Reason.TOO_LARGE
    _, rejections = decode(CLICK, [Raw(b"u", None, NOW_MS, headers)])
    assert rejections[0].reason is Reason.NULL_VALUE


@pytest.mark.parametrize("mode", MODES)
def test_what_a_plain_event_breaks_a_cloud_event_breaks(mode: str) -> None:
    for message in broken_messages(3):
        try:
            data = json.loads(message.value or b"")
        except (ValueError, RecursionError):
            continue
        if not isinstance(data, dict):
            continue
        headers, value = wrapped(mode, data)
        _, (rejection,) = decode(
            message.event_type,
            [Raw(message.key, value, NOW_MS, headers)],
            message.partition(PARTITIONS),
        )
        assert rejection.reason is message.reason, message


def test_other_headers_change_nothing() -> None:
    headers: Headers = (
        ("traceparent", b"00-1"),
        ("content-type", b"application/json"),
        ("empty", None),
    )
    value = json.dumps(good_event(CLICK, "u", 7)).encode()

    assert verdict(CLICK, headers, value) == plain(CLICK)


NAMES = [
    *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_x"),
    *("content-type", "other"),
]
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.none()
        | st.binary(max_size=5)
        | st.sampled_from([b"1.0", b"s", b"2025-01-01T00:00:00Z", b"u"])
        | st.sampled_from([b"application/json", b"application/cloudevents+json"]),
    ),
    max_size=8,
).map(tuple)
ENVELOPES = st.dictionaries(
    st.sampled_from(["specversion", "id", "source", "type", "subject", "time", "data"]),
    JSON | st.sampled_from(["1.0", "s", good_event(CLICK, "u", 7)]),
).map(lambda fields: json.dumps(fields).encode())
EVENTS = st.sampled_from(
    [{}, good_event(CLICK, "u", 7), good_event(CLICK, "u", 7, specversion="1.0")]
).map(lambda event: json.dumps(event).encode())


@given(HEADERS, st.none() | st.binary(max_size=20) | ENVELOPES | EVENTS)
def test_any_headers_give_an_event_or_a_reason(headers: Headers, value: bytes | None) -> None:
    found = verdict(CLICK, headers, value)

    try:
        alone: Event | str = decode_event(
            CLICK,
            b"u",
            value,
            NOW_MS,
            partition=partition_for(b"u", PARTITIONS),
            partitions=PARTITIONS,
            future_allowance_ms=1000,
            max_value_bytes=1_000_000,
            headers=headers,
        )
    except InvalidEvent as error:
        error.message.encode()
        alone = error.reason
    assert found == alone
    user_in(headers, value or b"")


def test_rows_are_those_of_the_plain_events() -> None:
    """Plain events, both modes and both modes mixed with plain ones give equal rows and outputs."""
    records = [[record(kind, n, 3 * n + kind) for n in range(30)] for kind in EventType]

    def moved(*modes: str) -> tuple[dict[bytes, bytes], list[object]]:
        lane, store = partition(), MemoryRows()
        lane.note_ends((30, 30, 30))
        for kind, own in zip(EventType, records, strict=True):
            add(lane, kind, [as_mode(one, modes[one.offset % len(modes)]) for one in own])
        batch = lane.next_batch(0.0, 0.0, 1000)
        todo: Any = Todo(batch, 0, (30, 30, 30), {})  # type: ignore[arg-type]
        topics = ("clicks", "searches", "purchases")
        metrics = Metrics(CollectorRegistry())
        [made] = asyncio.run(compute([todo], topics, store, CHECKPOINT, metrics.time_stage, 1000))
        results = made.results
        rows = dict(zip(results.keys, results.rows, strict=True))
        assert not results.dead_letters
        return rows, [results.drift, results.recommendations]  # type: ignore[return-value]

    expected = moved("plain")
    assert unpack(list(expected[0].values()), CHECKPOINT.hidden)["events"].sum() == 90
    for modes in (("binary",), ("structured",), ("plain", *MODES)):
        assert moved(*modes) == expected


CHECKPOINT = tiny_checkpoint(items=12, categories=4, hidden=4, neighbours=3, top=3)


def as_mode(one: FakeRecord, mode: str) -> FakeRecord:
    if mode == "plain":
        return one
    headers, value = wrapped(mode, json.loads(one.value or b""))
    return one._replace(headers=headers, value=value)


# Dead letters.


def letter_of(headers: Headers, value: bytes, key: bytes | None = b"key") -> Letter:
    made = dead_letter("clicks", 3, 42, key, value, "missing_field", "It.", 100_000, headers)
    found = read_letter(LetterRecord(made.key, made.value, made.headers))
    assert found is not None
    assert found.value == value
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_letter_is_sent_again_as_it_came(mode: str) -> None:
    settings = Settings(clicks_topic="clicks", partitions=PARTITIONS)
    data = good_event(CLICK, "u", 7)
    del data["user_id"]
    headers, value = wrapped(mode, data, subject="u")

    ready = prepare(letter_of(headers, value), value, settings, NOW_MS)

    assert ready.key == b"u"
    assert ready.value == value
    assert sorted(ready.headers) == sorted(headers)
    with pytest.raises(DeadLetterError, match="cloudevent_invalid"):
        prepare(letter_of(BINARY[1:], value), value, settings, NOW_MS)


def test_only_the_headers_of_a_cloud_event_are_kept_and_no_endless_ones() -> None:
    plain_headers: Headers = (("content-type", b"application/json"), ("trace", b"1"))
    assert letter_of(plain_headers, b"{}").attributes == []
    assert letter_of((*BINARY, ("trace", b"1")), b"{}").attributes == list(BINARY)
    endless = (*BINARY, ("ce_x", b"x" * MAX_ATTRIBUTE_BYTES))
    assert letter_of(endless, b"{}").attributes == []


@pytest.mark.parametrize(
    ("headers", "value", "user"),
    [
        (BINARY, b'{"user_id": "ann"}', "ann"),
        ((*BINARY, ("ce_subject", b"bob")), b'{"user_id": "ann"}', "ann"),
        ((*BINARY, ("ce_subject", b"bob")), b'{"user_id": 3}', "bob"),
        ((*BINARY, ("ce_subject", b"\xff")), b"{}", "key"),
        (STRUCTURED, b'{"data": {"user_id": "ann"}}', "ann"),
        (STRUCTURED, b'{"subject": "bob", "data": []}', "bob"),
        (STRUCTURED, b'{"data_base64": "eyJ1c2VyX2lkIjoiYW5uIn0="}', "ann"),
        (STRUCTURED, b"{", "key"),
        ((), b'{"specversion": "1.0", "data": {"user_id": "ann"}}', "ann"),
    ],
)
def test_the_user_of_a_letter(headers: Headers, value: bytes, user: str) -> None:
    assert user_of(letter_of(headers, value)) == user


# Outputs.

MESSAGE = b'{"id":"drift:clicks:3:42","user_id":"\xc3\xa4nn","timestamp":%d}' % (TIMESTAMP_MS + 7)
KEY = "änn".encode()


@pytest.mark.parametrize("kind", ["drift", "recommendation"])
@pytest.mark.parametrize("mode", MODES)
def test_the_sdk_reads_an_output(mode: str, kind: Any) -> None:
    output_format: OutputFormat = f"cloudevents-{mode}"  # type: ignore[assignment]
    pack = packing(output_format, "shop-1")

    (key, value, headers), (tombstone, nothing, none) = pack(kind, [(KEY, MESSAGE), (KEY, None)])

    assert (tombstone, nothing, none) == (KEY, None, [])
    assert key == KEY
    event = kafka.from_kafka_event(kafka.KafkaMessage(dict(headers), key, value or b""))
    found = event.get_attributes()
    assert event.get_data() == json.loads(MESSAGE)
    assert format_time(int(found.pop("time").timestamp() * 1000)) == "2025-01-01T00:00:00.007Z"
    assert found == {
        "specversion": "1.0",
        "id": "drift:clicks:3:42",
        "source": "/interest-stream/shop-1",
        "type": f"com.interest-stream.{kind}.v1",
        "subject": "änn",
        "partitionkey": "änn",  # the SDK's name for the key
        "dataschema": schema_id(kind),
        "datacontenttype": "application/json",
    }
    assert data_in(headers, value or b"") == MESSAGE
    assert pack(kind, [(KEY, MESSAGE)]) == [(key, value, headers)], "a repeat is equal"


def test_plain_outputs_have_no_headers() -> None:
    assert packing("plain", "a")("drift", [(KEY, MESSAGE)]) == [(KEY, MESSAGE, [])]
    assert data_in([], MESSAGE) == MESSAGE
