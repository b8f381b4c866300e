"""Dead letters: what becomes of a record that is no event.

The key of a letter is the place of its source, `topic:partition:offset`, which no other letter has:
the topic is compacted, so that a tombstone removes one letter, and nothing else is ever lost by it.
The value is the raw bytes, untouched. Why and where from stand in the headers:

    source-topic, source-partition, source-offset   where the record stands
    source-key                                      its key, untouched; absent when it had none
    reason, message                                 why it is refused
    user                                            whom it is about, where an adapter found it out
    pointer                                         `true` when the value is a pointer
    null                                            `value` when the record had no value
    source-ce_..., source-content-type              of a CloudEvent, the headers that make it one

A value too long for the topic is replaced by a pointer: its place, length and hash. A letter of a
record without a value has an empty one, as a letter without a value would be a tombstone. A key too
long is left out, its length and hash stand in the headers `key-size` and `key-sha256`; so are the
headers of a CloudEvent that are too long together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
from msgspec import Struct

from stream_app import cloud_events
from stream_app.errors import UsageError
from stream_app.events import Source

MAX_KEY_BYTES = 32_768
MAX_MESSAGE_BYTES = 1000
MAX_ATTRIBUTE_BYTES = 32_768  # all headers of a CloudEvent together

Headers = list[tuple[str, bytes]]

_SOURCE = "source-"
_PLACE = re.compile(r"([A-Za-z0-9._-]+):([0-9]{1,9}):([0-9]{1,18})")


@dataclass(frozen=True)
class DeadLetter:
    """A record for the dead-letter topic, as the producers take it."""

    key: bytes
    value: bytes
    headers: Headers


class DeadLetterPointer(Struct, frozen=True, gc=False):
    """Stands for a value that is too long to be copied; `sha256` in hexadecimal."""

    topic: str
    partition: int
    offset: int
    size_bytes: int
    sha256: str


class Stored(Protocol):
    """What `read_letter` reads of a consumer's record."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def offset(self) -> int: ...


@dataclass(frozen=True)
class Letter:
    """A dead letter as it is read again.

    source       where the refused record stands
    key          its key; None when it had none, or one that was too long
    value        its value; None when it had none, or when there is a pointer instead
    pointer      stands for a value that was too long
    reason       reason code
    message      one sentence
    headers      all headers of the letter
    written_ms   when the letter was written, epoch milliseconds
    offset       of the letter in its partition of the dead-letter topic
    """

    source: Source
    key: bytes | None
    value: bytes | None
    pointer: DeadLetterPointer | None
    reason: str
    message: str
    headers: tuple[tuple[str, bytes], ...]
    written_ms: int
    offset: int

    @property
    def attributes(self) -> Headers:
        """The headers that made the record a CloudEvent."""
        kept = (_SOURCE + cloud_events.ATTRIBUTE, _SOURCE + cloud_events.CONTENT_TYPE)
        return [
            (name.removeprefix(_SOURCE), value)
            for name, value in self.headers
            if name.startswith(kept)
        ]


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    reason: str,
    message: str,
    max_bytes: int,
    record_headers: cloud_events.Headers = (),
    user: str | None = None,
) -> DeadLetter:
    """The dead letter of the record at `topic`, `partition`, `offset`.

    Args:
        reason: reason code, a value of `stream_app.events.Reason`.
        message: one sentence; cut after `MAX_MESSAGE_BYTES`.
        max_bytes: a longer value is replaced by a `DeadLetterPointer`.
        record_headers: of the record; those that make it a CloudEvent are kept.
        user: whom the record is about, where neither its key nor a `user_id` in it says so.
    """
    headers: Headers = [
        ("source-topic", topic.encode()),
        ("source-partition", b"%d" % partition),
        ("source-offset", b"%d" % offset),
        ("reason", str(reason).encode()),
        ("message", _cut(message)),
    ]
    if key is not None and len(key) <= MAX_KEY_BYTES:
        headers.append(("source-key", key))
    elif key is not None:
        headers.append(("key-size", b"%d" % len(key)))
        headers.append(("key-sha256", hashlib.sha256(key).hexdigest().encode()))
    attributes = cloud_events.attributes_in(record_headers)
    if sum(len(name) + len(text) for name, text in attributes) <= MAX_ATTRIBUTE_BYTES:
        headers += [(_SOURCE + name, text) for name, text in attributes]
    if user is not None:
        headers.append(("user", user.encode()))
    if value is None:
        headers.append(("null", b"value"))
        value = b""
    elif len(value) > max_bytes:
        headers.append(("pointer", b"true"))
        digest = hashlib.sha256(value).hexdigest()
        value = msgspec.json.encode(DeadLetterPointer(topic, partition, offset, len(value), digest))
    return DeadLetter(place_of(Source(topic, partition, offset)).encode(), value, headers)


def read_letter(record: Stored) -> Letter | None:
    """The letter in a record of the dead-letter topic; None when the record is none.

    A tombstone is none, and neither is a record whose key is not the place that its headers name.
    """
    headers = {name: content or b"" for name, content in record.headers}
    try:
        source = Source(
            headers["source-topic"].decode(),
            int(headers["source-partition"]),
            int(headers["source-offset"]),
        )
        if record.value is None or record.key != place_of(source).encode():
            return None
        value: bytes | None = record.value
        pointer = None
        if "pointer" in headers:
            pointer, value = msgspec.json.decode(record.value, type=DeadLetterPointer), None
    except (KeyError, ValueError, msgspec.MsgspecError):
        return None
    return Letter(
        source=source,
        key=headers.get("source-key"),
        value=None if "null" in headers else value,
        pointer=pointer,
        reason=headers.get("reason", b"").decode("utf-8", "replace"),
        message=headers.get("message", b"").decode("utf-8", "replace"),
        headers=tuple(record.headers),
        written_ms=record.timestamp,
        offset=record.offset,
    )


def place_of(source: Source) -> str:
    """A place as people and keys write it: `topic:partition:offset`."""
    return f"{source.topic}:{source.partition}:{source.offset}"


def parse_place(text: str) -> Source:
    """The place in `topic:partition:offset`; UsageError when it is none."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no place; write it like interest.clicks.v1:3:4711.")
    return Source(found[1], int(found[2]), int(found[3]))


class _User(Struct, frozen=True, gc=False):
    user_id: str


_decode_user = msgspec.json.Decoder(_User).decode


def user_in(value: bytes, headers: cloud_events.Headers = ()) -> str | None:
    """The user id of a JSON object or of a CloudEvent, whatever else of the schema it breaks."""
    if cloud_events.is_cloud_event(headers, value):
        return cloud_events.user_in(headers, value)
    try:
        return _decode_user(value).user_id or None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def user_of(letter: Letter) -> str | None:
    """The user a letter is about: by its header or its value where that can be read so far, else by
    its key."""
    named = dict(letter.headers).get("user")
    if named is not None:
        return named.decode("utf-8", "replace")
    user = None if letter.value is None else user_in(letter.value, letter.attributes)
    if user is None and letter.key:
        try:
            user = letter.key.decode()
        except UnicodeDecodeError:
            return None
    return user


def _cut(message: str) -> bytes:
    encoded = message.encode("utf-8", "backslashreplace")[:MAX_MESSAGE_BYTES]
    return encoded.decode("utf-8", "ignore").encode()
