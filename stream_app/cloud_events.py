"""CloudEvents 1.0 on the input topics, unwrapped to the events that they carry.

The CloudEvents binding for Kafka has two modes. In the binary mode the value is the event, and the
attributes stand in headers `ce_<name>`. In the structured mode the value is a JSON envelope with
the event as its `data`; the header `content-type` says so, and where a client sets another one the
envelope is known by its `specversion`: its other names are those of CloudEvents, which have no
underscore, so that it is never taken for a plain event. What the event lacks, the attributes
fill in: `event_id` is the source, a space and the id, since CloudEvents are told apart by both and
no URI has a space; `timestamp` is the time, and `user_id` the subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from stream_app.errors import InvalidEvent
from stream_app.refusals import MAX_MESSAGE_LENGTH, Reason, read_json

Headers = Sequence[tuple[str, bytes | None]]
"""Of a record, as consumers give them."""

ATTRIBUTE = "ce_"
"""What the header of an attribute begins with, in the binary mode."""
CONTENT_TYPE = "content-type"
STRUCTURED = "application/cloudevents+json"
_FAMILY = "application/cloudevents"
_NAMES = ("specversion", "id", "source", "type", "subject", "time")
_UNREADABLE = {
    Reason.INVALID_UTF8,
    Reason.INVALID_JSON,
    Reason.NESTED_TOO_DEEP,
    Reason.INVALID_NUMBER,
}

Text = Annotated[str, Meta(min_length=1)]
SourceUri = Annotated[str, Meta(pattern=r"\A\S+\Z")]


class _CloudEvent(Struct, frozen=True, gc=False):
    """The attributes that are read, and the data; other attributes are ignored."""

    specversion: Literal["1.0"]
    id: Text
    source: SourceUri
    type: Text
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: Raw = Raw()
    data_base64: bytes | None = None


class _Loose(Struct, frozen=True, gc=False):
    """What of an envelope tells its user."""

    data: Raw = Raw()
    data_base64: bytes | None = None
    subject: str | None = None


class _User(Struct, frozen=True, gc=False):
    user_id: str


_decode_envelope = msgspec.json.Decoder(_CloudEvent).decode
_decode_loose = msgspec.json.Decoder(_Loose).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_user = msgspec.json.Decoder(_User).decode
_encode = msgspec.json.Encoder().encode


def says_cloud_event(headers: Headers) -> bool:
    """Whether the headers of a record say that it is a CloudEvent, in whatever mode."""
    for name, value in headers:  # a loop, as plain records may have headers of tracing
        if name[:3] == ATTRIBUTE or (name == CONTENT_TYPE and _is_structured(value)):
            return True
    return False


def is_cloud_event(headers: Headers, value: bytes) -> bool:
    """Whether a record is a CloudEvent; asked of a plain event it costs a search of the value."""
    return says_cloud_event(headers) or _is_envelope(value)


def attributes_in(headers: Headers) -> list[tuple[str, bytes]]:
    """The headers that make a record a CloudEvent; none where they do not."""
    if not says_cloud_event(headers):
        return []
    return [
        (name, value or b"")
        for name, value in headers
        if name.startswith(ATTRIBUTE) or name == CONTENT_TYPE
    ]


def data_in(headers: Headers, value: bytes) -> bytes:
    """The data of a CloudEvent, and the value of any other record.

    Raises:
        InvalidEvent: as `unwrap`.
    """
    if not is_cloud_event(headers, value):
        return value
    event = _read(headers, value)
    return _data_of(event.data, event.data_base64)


def unwrap(headers: Headers, value: bytes) -> bytes:
    """The plain event in a CloudEvent: JSON that is read as that of any other record.

    Raises:
        InvalidEvent: the record is no CloudEvent of version 1.0, its data are no JSON object, or
            bytes are no UTF-8 or no JSON.
    """
    event = _read(headers, value)
    content_type = event.datacontenttype
    if content_type is not None and not _is_json(content_type):
        raise InvalidEvent(
            Reason.CLOUDEVENT_CONTENT_TYPE,
            f"The data of the CloudEvent are {content_type[:MAX_MESSAGE_LENGTH]!r}; send "
            "application/json.",
        )
    data = _data_of(event.data, event.data_base64)
    fields = read_json(_decode_fields, data)
    given = {
        "event_id": f"{event.source} {event.id}",
        "timestamp": event.time,
        "user_id": event.subject,
    }
    lacking = {
        name: Raw(_encode(text))
        for name, text in given.items()
        if text is not None and name not in fields
    }
    return _encode(fields | lacking) if lacking else data


def user_in(headers: Headers, value: bytes) -> str | None:
    """The user of a CloudEvent, whatever else it breaks: of its data, or else its subject."""
    found = dict(headers)
    try:
        if _is_structured(found.get(CONTENT_TYPE)) or not says_cloud_event(headers):
            envelope = _decode_loose(value)
            data, subject = _data_of(envelope.data, envelope.data_base64), envelope.subject
        else:
            data, subject = value, (found.get("ce_subject") or b"").decode()
    except (InvalidEvent, msgspec.MsgspecError, ValueError, RecursionError):
        return None
    try:
        return _decode_user(data).user_id or subject or None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return subject or None


def _read(headers: Headers, value: bytes) -> _CloudEvent:
    found = dict(headers)
    if not says_cloud_event(headers):
        return _of_envelope(value)
    if not _is_structured(found.get(CONTENT_TYPE)):
        return _of_headers(found, value)
    media = _media_type(_text(found, CONTENT_TYPE))
    if media != STRUCTURED:
        raise InvalidEvent(
            Reason.CLOUDEVENT_CONTENT_TYPE,
            f"The CloudEvent comes as {media[:MAX_MESSAGE_LENGTH]!r}; send {STRUCTURED}.",
        )
    return _of_envelope(value)


def _of_envelope(value: bytes) -> _CloudEvent:
    try:
        return read_json(_decode_envelope, value)
    except InvalidEvent as error:
        if error.reason in _UNREADABLE:
            raise
        raise _invalid(error.message.rstrip(".")) from None


def _of_headers(found: dict[str, bytes | None], value: bytes) -> _CloudEvent:
    attributes: dict[str, object] = {
        name: _text(found, ATTRIBUTE + name) for name in _NAMES if ATTRIBUTE + name in found
    }
    if CONTENT_TYPE in found:
        attributes["datacontenttype"] = _text(found, CONTENT_TYPE)
    try:
        return msgspec.convert({**attributes, "data": Raw(value)}, _CloudEvent)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)[:MAX_MESSAGE_LENGTH]) from None


def _data_of(data: Raw, data_base64: bytes | None) -> bytes:
    json = bytes(data)
    if json and data_base64 is not None:
        raise _invalid("it has both `data` and `data_base64`")
    if not json and data_base64 is None:
        raise _invalid("it has no `data`")
    return json if data_base64 is None else data_base64


def _text(found: dict[str, bytes | None], name: str) -> str:
    try:
        return (found[name] or b"").decode()
    except UnicodeDecodeError:
        raise _invalid(f"its header {name[:MAX_MESSAGE_LENGTH]} is not UTF-8") from None


def _invalid(what: str) -> InvalidEvent:
    return InvalidEvent(
        Reason.CLOUDEVENT_INVALID, f"The record is no CloudEvent of version 1.0: {what}."
    )


def _is_envelope(value: bytes) -> bool:
    if b'"specversion"' not in value:
        return False
    try:
        fields = _decode_fields(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return "specversion" in fields and "event_id" not in fields


def _is_structured(content_type: bytes | None) -> bool:
    return content_type is not None and content_type.strip().lower().startswith(_FAMILY.encode())


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_json(content_type: str) -> bool:
    _, _, subtype = _media_type(content_type).partition("/")
    return subtype == "json" or subtype.endswith("+json")
