"""A dead letter keeps the bytes, and says where they come from and why."""

from __future__ import annotations

import hashlib
import json

import pytest

from stream_app.dead_letters import (
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    DeadLetter,
    DeadLetterPointer,
    dead_letter,
)
from stream_app.events import Reason


def letter(
    key: bytes | None = b"u",
    value: bytes | None = b"{}",
    message: str = "It is broken.",
    max_bytes: int = 100,
) -> DeadLetter:
    return dead_letter("clicks", 3, 42, key, value, Reason.INVALID_JSON, message, max_bytes)


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\x00\xfe", b"x" * 100])
def test_the_bytes_stay_as_they_are(value: bytes) -> None:
    result = letter(key=b"\xff", value=value)

    assert result.key == b"\xff"
    assert result.value == value
    assert result.headers == [
        ("source-topic", b"clicks"),
        ("source-partition", b"3"),
        ("source-offset", b"42"),
        ("reason", b"invalid_json"),
        ("message", b"It is broken."),
    ]


def test_a_long_value_becomes_a_pointer() -> None:
    value = b"\xfe" * 101

    result = letter(value=value)

    assert dict(result.headers)["pointer"] == b"true"
    assert result.value is not None
    assert json.loads(result.value) == {
        "topic": "clicks",
        "partition": 3,
        "offset": 42,
        "size_bytes": 101,
        "sha256": hashlib.sha256(value).hexdigest(),
    }


def test_a_value_that_looks_like_a_pointer_is_none() -> None:
    value = json.dumps(dict.fromkeys(DeadLetterPointer.__struct_fields__, 1)).encode()

    assert "pointer" not in dict(letter(value=value).headers)


def test_a_missing_value_and_an_empty_one_differ() -> None:
    missing, empty = letter(value=None), letter(value=b"")

    assert missing.value is None
    assert dict(missing.headers)["null"] == b"value"
    assert empty.value == b""
    assert "null" not in dict(empty.headers)


def test_a_long_key_is_left_out_and_told() -> None:
    key = b"k" * (MAX_KEY_BYTES + 1)

    result = letter(key=key)

    assert result.key is None
    assert dict(result.headers)["key-size"] == b"%d" % len(key)
    assert dict(result.headers)["key-sha256"] == hashlib.sha256(key).hexdigest().encode()
    assert "key-size" not in dict(letter(key=None).headers)


@pytest.mark.parametrize("message", ["ä" * 5000, "\ud800", "x" * 5000])
def test_any_message_fits(message: str) -> None:
    encoded = dict(letter(message=message).headers)["message"]

    assert 0 < len(encoded) <= MAX_MESSAGE_BYTES
    assert encoded.decode()
