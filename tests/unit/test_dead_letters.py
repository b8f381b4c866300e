"""A dead letter keeps the bytes, and says where they come from and why."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import pytest

from stream_app.dead_letters import (
    MAX_KEY_BYTES,
    MAX_MESSAGE_BYTES,
    DeadLetter,
    DeadLetterPointer,
    Letter,
    dead_letter,
    parse_place,
    place_of,
    read_letter,
    user_of,
)
from stream_app.errors import UsageError
from stream_app.events import Reason, Source


def letter(
    key: bytes | None = b"u",
    value: bytes | None = b"{}",
    message: str = "It is broken.",
    max_bytes: int = 100,
) -> DeadLetter:
    return dead_letter("clicks", 3, 42, key, value, Reason.INVALID_JSON, message, max_bytes)


class Record(NamedTuple):
    """A record of the dead-letter topic, as a consumer gives it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int = 1000
    offset: int = 7


def read(written: DeadLetter) -> Letter:
    found = read_letter(Record(written.key, written.value, written.headers))
    assert found is not None
    return found


@pytest.mark.parametrize("value", [b"", b"{}", b"\xff\x00\xfe", b"x" * 100])
def test_the_bytes_stay_as_they_are(value: bytes) -> None:
    result = letter(key=b"\xff", value=value)

    assert result.key == b"clicks:3:42"
    assert result.value == value
    assert result.headers == [
        ("source-topic", b"clicks"),
        ("source-partition", b"3"),
        ("source-offset", b"42"),
        ("reason", b"invalid_json"),
        ("message", b"It is broken."),
        ("source-key", b"\xff"),
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

    assert missing.value == b"", "without a value it would be a tombstone"
    assert dict(missing.headers)["null"] == b"value"
    assert empty.value == b""
    assert "null" not in dict(empty.headers)


def test_a_long_key_is_left_out_and_told() -> None:
    key = b"k" * (MAX_KEY_BYTES + 1)

    result = letter(key=key)

    assert result.key == b"clicks:3:42"
    assert "source-key" not in dict(result.headers)
    assert dict(result.headers)["key-size"] == b"%d" % len(key)
    assert dict(result.headers)["key-sha256"] == hashlib.sha256(key).hexdigest().encode()
    missing = dict(letter(key=None).headers)
    assert not {"key-size", "source-key"} & missing.keys()
    assert dict(letter(key=b"").headers)["source-key"] == b""


@pytest.mark.parametrize("message", ["ä" * 5000, "\ud800", "x" * 5000])
def test_any_message_fits(message: str) -> None:
    encoded = dict(letter(message=message).headers)["message"]

    assert 0 < len(encoded) <= MAX_MESSAGE_BYTES
    assert encoded.decode()


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff\x00"])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_letter_is_read_as_it_was_written(key: bytes | None, value: bytes | None) -> None:
    found = read(letter(key, value))

    assert found.source == Source("clicks", 3, 42)
    assert (found.key, found.value, found.pointer) == (key, value, None)
    assert (found.reason, found.message) == ("invalid_json", "It is broken.")
    assert (found.written_ms, found.offset) == (1000, 7)


def test_a_pointer_is_read_as_one() -> None:
    found = read(letter(value=b"x" * 101))

    assert found.value is None
    assert found.pointer is not None
    assert (found.pointer.offset, found.pointer.size_bytes) == (42, 101)


@pytest.mark.parametrize(
    "record",
    [
        Record(b"clicks:3:42", None, []),  # a tombstone
        Record(b"clicks:3:42", None, letter().headers),
        Record(b"clicks:3:42", b"{}", []),
        Record(b"ann", b"{}", letter().headers),  # keyed by the user, as letters once were
        Record(None, b"{}", letter().headers),
        Record(b"clicks:3:42", b"{}", [*letter().headers, ("pointer", b"true")]),
        Record(b"clicks:3:x", b"{}", [*letter().headers, ("source-offset", b"x")]),
        Record(b"\xff:3:42", b"{}", [*letter().headers, ("source-topic", b"\xff")]),
    ],
)
def test_other_records_are_no_letters(record: Record) -> None:
    assert read_letter(record) is None


def test_places() -> None:
    place = Source("interest.clicks.v1", 3, 4711)

    assert parse_place(place_of(place)) == place
    for wrong in ("", "clicks", "clicks:3", ":3:4", "clicks:3:-1", "clicks:x:4", "clicks:3:"):
        with pytest.raises(UsageError, match="no place"):
            parse_place(wrong)


@pytest.mark.parametrize(
    ("key", "value", "user"),
    [
        (b"key", b'{"user_id": "ann", "items": 3}', "ann"),
        (None, b'{"user_id": "ann", "timestamp": "yesterday"}', "ann"),
        (b"key", b'{"user_id": 7}', "key"),
        (b"key", b'{"user_id": ""}', "key"),
        (b"key", b'{"user_id": "ann"', "key"),
        (b"key", b'{"user_id": "ann", "n": ' + b"[" * 50_000, "key"),
        (b"key", b"\xff", "key"),
        (b"key", None, "key"),
        (b"key", b"x" * 101, "key"),  # a pointer
        (b"\xff", b"{}", None),
        (b"", b"{}", None),
        (None, None, None),
    ],
)
def test_the_user_of_a_letter(key: bytes | None, value: bytes | None, user: str | None) -> None:
    max_bytes = 60_000 if value != b"x" * 101 else 100
    assert user_of(read(letter(key, value, max_bytes=max_bytes))) == user
