"""How drift events and recommendations leave: plain JSON, or CloudEvents 1.0 in either mode.

All of it is made of the plain message, so that a repeated output is equal to the first one, its
headers among it. The attributes of an output:

    id           its own
    source       `/interest-stream/<application id>`
    type         `com.interest-stream.drift.v1`, `com.interest-stream.recommendation.v1`
    subject      the user id
    time         event time of the event that raised it
    dataschema   the `$id` of its JSON Schema
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

from stream_app.cloud_events import STRUCTURED
from stream_app.events import OutputKind, schema_id
from stream_app.lane.sender import NO_HEADERS, Header, Record
from stream_app.settings import OutputFormat
from stream_app.times import format_time

Messages = Sequence[tuple[bytes, bytes | None]]
"""Keys and values; None for a value deletes."""
Pack = Callable[[OutputKind, Messages], list[Record]]
"""Makes records of messages."""

JSON = "application/json"


class _Known(Struct, frozen=True, gc=False):
    """What the attributes take from a message."""

    id: str
    timestamp: int


_decode = msgspec.json.Decoder(_Known).decode
_encode = msgspec.json.Encoder().encode


def packing(output_format: OutputFormat, app_id: str) -> Pack:
    """What makes records of an application's messages."""
    if output_format == "plain":
        return plain
    of_one = _binary if output_format == "cloudevents-binary" else _structured

    def pack(kind: OutputKind, messages: Messages) -> list[Record]:
        return [
            (key, None, NO_HEADERS)
            if value is None
            else of_one(key, value, _attributes(kind, key, value, app_id))
            for key, value in messages
        ]

    return pack


def plain(kind: OutputKind, messages: Messages) -> list[Record]:
    """Records without headers."""
    return [(key, value, NO_HEADERS) for key, value in messages]


def _attributes(kind: OutputKind, key: bytes, value: bytes, app_id: str) -> dict[str, str]:
    known = _decode(value)
    return {
        "specversion": "1.0",
        "id": known.id,
        "source": f"/interest-stream/{app_id}",
        "type": f"com.interest-stream.{kind}.v1",
        "subject": key.decode(),
        "time": format_time(known.timestamp),
        "dataschema": schema_id(kind),
    }


def _binary(key: bytes, value: bytes, attributes: dict[str, str]) -> Record:
    headers: list[Header] = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    return key, value, [*headers, ("content-type", JSON.encode())]


def _structured(key: bytes, value: bytes, attributes: dict[str, str]) -> Record:
    envelope = _encode({**attributes, "datacontenttype": JSON})
    return key, b'%b,"data":%b}' % (envelope[:-1], value), [("content-type", STRUCTURED.encode())]
