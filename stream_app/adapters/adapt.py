"""Records of analytics products, mapped to records of the input topics.

Whatever the bytes are, what comes out are events that a worker takes, reasons, or both: of a record
with several events each stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import msgspec

from model.events import EventType
from stream_app.adapters import ga4, retail, segment, snowplow
from stream_app.adapters.fields import Draft
from stream_app.errors import InvalidEvent
from stream_app.events import decode_event
from stream_app.partitioner import partition_for
from stream_app.refusals import Reason, checked_size

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Vendor:
    """How events of a product are read.

    split     the events of a record's value
    user      the user of one of them, None when it names none
    drafts    what one of them becomes, given the Kafka timestamp of its record
    clicks    event names that become clicks, and the action of each
    searches, purchases   event names that become those
    """

    name: str
    split: Callable[[bytes], list[Any]]
    user: Callable[[Any], str | None]
    drafts: Callable[[Any, int], list[Draft]]
    clicks: Mapping[str, str]
    searches: tuple[str, ...]
    purchases: tuple[str, ...]


def _vendor(module: ModuleType) -> Vendor:
    return Vendor(
        name=module.NAME,
        split=module.split,
        user=module.user,
        drafts=module.drafts,
        clicks=module.CLICKS,
        searches=module.SEARCHES,
        purchases=module.PURCHASES,
    )


VENDORS: dict[str, Vendor] = {
    vendor.name: vendor for vendor in map(_vendor, (ga4, segment, retail, snowplow))
}


@dataclass(frozen=True)
class Mapped:
    """A record for an input topic: the partition that its key belongs to, key and value."""

    event_type: EventType
    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Refused:
    """Why a record, or one event of it, becomes nothing; `user` where it names one."""

    reason: Reason
    message: str
    user: str | None


@dataclass(frozen=True)
class Adapted:
    """What a record becomes: events, and the first reason why not all of it does."""

    events: tuple[Mapped, ...]
    refused: Refused | None


def adapt(
    vendor: Vendor,
    value: bytes | None,
    produced_ms: int,
    *,
    partitions: int,
    future_allowance_ms: int,
    max_value_bytes: int,
) -> Adapted:
    """What the record of a product becomes; never raises.

    An event is checked as the worker checks it, so that what is sent is not refused there.

    Args:
        produced_ms: the record's Kafka timestamp, which its events get too; negative when it has
            none.
        partitions: partition count of the input topics.
        future_allowance_ms, max_value_bytes: as of `stream_app.events.decode_batch`.
    """

    def checked(draft: Draft) -> Mapped:
        key = draft.fields["user_id"].encode()
        partition = partition_for(key, partitions)
        event = decode_event(
            draft.event_type,
            key,
            _encode(draft.fields),
            produced_ms,
            partition=partition,
            partitions=partitions,
            future_allowance_ms=future_allowance_ms,
            max_value_bytes=max_value_bytes,
        )
        return Mapped(draft.event_type, partition, key, _encode(event))

    try:
        units = _units(vendor, value, max_value_bytes)
    except InvalidEvent as error:
        return Adapted((), Refused(Reason(error.reason), error.message, None))
    events: list[Mapped] = []
    refused: list[Refused] = []
    for place, unit in enumerate(units):
        try:
            events += [checked(draft) for draft in vendor.drafts(unit, produced_ms)]
        except InvalidEvent as error:
            which = f"Event {place + 1} of {len(units)}: " if len(units) > 1 else ""
            message = which + error.message
            refused.append(Refused(Reason(error.reason), message, _user(vendor, unit)))
    return Adapted(tuple(events), refused[0] if refused else None)


def _units(vendor: Vendor, value: bytes | None, max_value_bytes: int) -> list[Any]:
    return vendor.split(checked_size(value, max_value_bytes))


def _user(vendor: Vendor, unit: Any) -> str | None:
    try:
        return vendor.user(unit)
    except InvalidEvent:
        return None
