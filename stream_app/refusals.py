"""Why a record is refused, and the reading of its JSON.

The reasons are stable: they stand in the dead letters and in the metrics.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

import msgspec

from stream_app.errors import InvalidEvent

_T = TypeVar("_T")

MAX_MESSAGE_LENGTH = 300  # characters of the message of a rejection


class Reason(str, Enum):
    """Why a record is refused; the values are stable, they stand in the dead letters."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    KEY_MISSING = "key_missing"
    KEY_MISMATCH = "key_mismatch"
    WRONG_PARTITION = "wrong_partition"
    RESERVED_USER_ID = "reserved_user_id"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    NESTED_TOO_DEEP = "nested_too_deep"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    EMPTY_FIELD = "empty_field"
    FIELD_TOO_LONG = "field_too_long"
    UNKNOWN_ACTION = "unknown_action"
    INVALID_NUMBER = "invalid_number"
    NEGATIVE_PRICE = "negative_price"
    NO_ITEMS = "no_items"
    TOO_MANY_ITEMS = "too_many_items"
    TIMESTAMP_INVALID = "timestamp_invalid"
    TIMESTAMP_IN_FUTURE = "timestamp_in_future"
    TIMESTAMP_TOO_OLD = "timestamp_too_old"
    EVENT_NOT_MAPPED = "event_not_mapped"
    WRONG_FORMAT = "wrong_format"
    CLOUDEVENT_INVALID = "cloudevent_invalid"
    CLOUDEVENT_CONTENT_TYPE = "cloudevent_content_type"

    def __str__(self) -> str:
        return str(self.value)


def checked_size(value: bytes | None, max_value_bytes: int) -> bytes:
    """The value of a record; InvalidEvent when it has none, or a longer one than is allowed."""
    if value is None:
        raise InvalidEvent(Reason.NULL_VALUE, "The record has no value.")
    if len(value) > max_value_bytes:
        raise InvalidEvent(
            Reason.TOO_LARGE,
            f"The value has {len(value)} bytes, more than the {max_value_bytes} allowed.",
        )
    return value


def read_json(decode: Callable[[bytes], _T], value: bytes) -> _T:
    """What a decoder of msgspec makes of a value.

    Raises:
        InvalidEvent: the value is no UTF-8, no JSON, or breaks a rule of the decoder's type.
    """
    if not is_utf8(value):
        raise InvalidEvent(Reason.INVALID_UTF8, "The value is not UTF-8.")
    try:
        return decode(value)
    except msgspec.ValidationError as error:
        text = str(error)
        raise InvalidEvent(_broken_rule(text), f"{text[:MAX_MESSAGE_LENGTH]}.") from None
    except RecursionError:
        raise InvalidEvent(
            Reason.NESTED_TOO_DEEP, "The value nests arrays or objects too deeply to be read."
        ) from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        if _NOT_FINITE.search(value):
            raise InvalidEvent(
                Reason.INVALID_NUMBER, "The value has NaN or Infinity, which JSON does not know."
            ) from None
        text = str(error)[:MAX_MESSAGE_LENGTH]
        raise InvalidEvent(Reason.INVALID_JSON, f"The value is not JSON: {text}.") from None


_NOT_FINITE = re.compile(rb"[:\[,]\s*-?(?:NaN|Infinity)\s*[,\]}]")


def _broken_rule(text: str) -> Reason:
    """The reason behind a message of msgspec's, which ends with the path of the field."""
    problem, _, path = text.rpartition(" - at `$")
    problem, path = (problem, path.rstrip("`")) if problem else (text, "")
    if problem.startswith("Object missing required field"):
        return Reason.MISSING_FIELD
    if problem.startswith("Invalid enum value"):
        return Reason.UNKNOWN_ACTION
    if ", got `" in problem:
        return Reason.WRONG_TYPE if path else Reason.NOT_AN_OBJECT
    if path == ".timestamp":
        return Reason.TIMESTAMP_INVALID
    if "of length >=" in problem:
        return Reason.NO_ITEMS if path == ".items" else Reason.EMPTY_FIELD
    if "of length <=" in problem:
        return Reason.TOO_MANY_ITEMS if path == ".items" else Reason.FIELD_TOO_LONG
    if path.endswith(".price") and ">=" in problem:
        return Reason.NEGATIVE_PRICE
    if "out of range" in problem or "`int` " in problem or "`float` " in problem:
        return Reason.INVALID_NUMBER
    return Reason.WRONG_TYPE


def is_utf8(value: bytes) -> bool:
    """Whether the bytes are UTF-8 as a whole."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
