"""Requests to the lane, which go through the control topic of the partition's owner.

A request is keyed by the user id and lies in the user's partition. When it is done, a record
without a value follows under the same key: compaction then removes the request, and its header
`receipt` tells the one who asked.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

RECEIPT_HEADER = "receipt"


class Erase(Struct, frozen=True, kw_only=True, tag_field="kind", tag="erase"):
    """Erase what is known of a user; `requested_ms` in epoch milliseconds."""

    request_id: str
    user_id: str
    requested_ms: int


class Place(Struct, frozen=True, gc=False):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class Receipt(Struct, frozen=True, kw_only=True):
    """What the owner of the partition has done for an `Erase`.

    had_row       whether there was a row; None when the worker had ended between erasing and this
    inputs        per input topic, the offset below which events of the user are skipped from now on
    tombstones    records without a value that were written under the user's key, none then
    marker        where the changelog has the hashed marker, None then
    done_ms       epoch milliseconds
    """

    request_id: str
    partition: int
    had_row: bool | None
    inputs: dict[str, int]
    tombstones: list[Place]
    marker: Place | None
    done_ms: int


_DECODER = msgspec.json.Decoder(Erase)
_RECEIPT = msgspec.json.Decoder(Receipt)
encode = msgspec.json.Encoder().encode


def decode_request(value: bytes | None) -> Erase | None:
    """The request in a record of the control topic, None when it is none."""
    if value is None:
        return None
    try:
        return _DECODER.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def decode_receipt(headers: list[tuple[str, bytes]]) -> Receipt | None:
    """The receipt in the headers of a record of the control topic, None when there is none."""
    for name, value in headers:
        if name == RECEIPT_HEADER:
            return _RECEIPT.decode(value)
    return None
