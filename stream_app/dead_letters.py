"""Dead letters: what becomes of a record that is no event.

The raw bytes go on untouched, as key and value; why and where from stand in the headers:

    source-topic, source-partition, source-offset   where the record stands
    reason, message                                 why it is refused
    pointer                                         `true` when the value is a pointer
    null                                            `value` when the record had no value

A value too long for the topic is replaced by a pointer: its place, length and hash. A record
without a value stays one, so that it reads the same in both topics; dead letters are not compacted,
where a null value would delete. A key too long is left out, its length and hash stand in the
headers `key-size` and `key-sha256`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec
from msgspec import Struct

MAX_KEY_BYTES = 32_768
MAX_MESSAGE_BYTES = 1000

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class DeadLetter:
    """A record for the dead-letter topic, as the producers take it."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class DeadLetterPointer(Struct, frozen=True, gc=False):
    """Stands for a value that is too long to be copied; `sha256` in hexadecimal."""

    topic: str
    partition: int
    offset: int
    size_bytes: int
    sha256: str


def dead_letter(
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    reason: str,
    message: str,
    max_bytes: int,
) -> DeadLetter:
    """The dead letter of the record at `topic`, `partition`, `offset`.

    Args:
        reason: reason code, a value of `stream_app.events.Reason`.
        message: one sentence; cut after `MAX_MESSAGE_BYTES`.
        max_bytes: a longer value is replaced by a `DeadLetterPointer`.
    """
    headers: Headers = [
        ("source-topic", topic.encode()),
        ("source-partition", b"%d" % partition),
        ("source-offset", b"%d" % offset),
        ("reason", str(reason).encode()),
        ("message", _cut(message)),
    ]
    if value is None:
        headers.append(("null", b"value"))
    elif len(value) > max_bytes:
        headers.append(("pointer", b"true"))
        digest = hashlib.sha256(value).hexdigest()
        value = msgspec.json.encode(DeadLetterPointer(topic, partition, offset, len(value), digest))
    if key is not None and len(key) > MAX_KEY_BYTES:
        headers.append(("key-size", b"%d" % len(key)))
        headers.append(("key-sha256", hashlib.sha256(key).hexdigest().encode()))
        key = None
    return DeadLetter(key, value, headers)


def _cut(message: str) -> bytes:
    encoded = message.encode("utf-8", "backslashreplace")[:MAX_MESSAGE_BYTES]
    return encoded.decode("utf-8", "ignore").encode()
