"""The wire format: what comes in, what goes out, and why a record is refused.

An input record is one JSON object in UTF-8, keyed by the user id, plain or as a CloudEvent.
`decode_batch` turns the records of one partition into events and rejections, and never raises,
whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

from model.events import EventType
from stream_app.cloud_events import Headers, is_cloud_event, says_cloud_event, unwrap
from stream_app.errors import InvalidEvent
from stream_app.partitioner import partition_for, partitions_for
from stream_app.refusals import Reason as Reason
from stream_app.refusals import checked_size, is_utf8, read_json

RESERVED_KEY = b"__faust\0offset__"
"""The key of Faust's persisted offset in the store that has the rows."""
MAX_ID_LENGTH = 256  # characters; user, event, item and order ids, device, platform, locale
MAX_CATEGORY_LENGTH = 256  # characters
MAX_QUERY_LENGTH = 1000  # characters
MAX_ITEMS = 100  # line items of one purchase
MAX_PRICE = 1e9
MAX_QUANTITY = 1_000_000
MAX_RESULTS = 1_000_000_000
MIN_TIMESTAMP_MS = 946_684_800_000  # 2000-01-01; a timestamp in seconds falls below it
MAX_TIMESTAMP_MS = 0xFFFF_FFFF * 1000 + 999  # the row keeps seconds in 32 bits


Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)]
ShortText = Annotated[str, Meta(max_length=MAX_ID_LENGTH)]
Category = Annotated[str, Meta(max_length=MAX_CATEGORY_LENGTH)]
Query = Annotated[str, Meta(min_length=1, max_length=MAX_QUERY_LENGTH)]
Quantity = Annotated[int, Meta(ge=1, le=MAX_QUANTITY)]
Price = Annotated[float, Meta(ge=0, le=MAX_PRICE)]
Results = Annotated[int, Meta(ge=0, le=MAX_RESULTS)]

if TYPE_CHECKING:
    TimestampMs = int
else:
    # On the wire RFC 3339 with a zone, or an integer; decoding leaves the integer in the struct.
    TimestampMs = (
        Annotated[int, Meta(description="Milliseconds since 1970-01-01T00:00:00Z.")]
        | Annotated[datetime, Meta(tz=True, description="RFC 3339 with a zone.")]
    )


class Click(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A user looks at an item, marks it or puts it into the cart."""

    event_id: Id
    user_id: Id
    timestamp_ms: TimestampMs = field(name="timestamp")
    item_id: Id
    category: Category | None = None
    action: Literal["view", "favourite", "cart"] = "view"
    device_id: ShortText | None = None
    platform: ShortText | None = None
    locale: ShortText | None = None


class Search(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A user searches; `results` is how many items were found."""

    event_id: Id
    user_id: Id
    timestamp_ms: TimestampMs = field(name="timestamp")
    query: Query
    category: Category | None = None
    results: Results | None = None
    device_id: ShortText | None = None
    platform: ShortText | None = None
    locale: ShortText | None = None


class PurchaseItem(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One line of a purchase; the price is for one piece, in the purchase's currency."""

    item_id: Id
    category: Category | None = None
    quantity: Quantity = 1
    price: Price | None = None


class Purchase(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A user buys 1 to `MAX_ITEMS` items."""

    event_id: Id
    user_id: Id
    timestamp_ms: TimestampMs = field(name="timestamp")
    items: Annotated[tuple[PurchaseItem, ...], Meta(min_length=1, max_length=MAX_ITEMS)]
    order_id: ShortText | None = None
    currency: ShortText | None = None
    device_id: ShortText | None = None
    platform: ShortText | None = None


Event = Click | Search | Purchase


class Record(Protocol):
    """What `decode_batch` reads of a consumer's record."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def timestamp(self) -> int | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True)
class Rejection:
    """Why the record at `index` of a batch is no event; `message` is one sentence."""

    index: int
    reason: Reason
    message: str


_DECODERS: dict[EventType, msgspec.json.Decoder[Any]] = {
    EventType.CLICK: msgspec.json.Decoder(Click),
    EventType.SEARCH: msgspec.json.Decoder(Search),
    EventType.PURCHASE: msgspec.json.Decoder(Purchase),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


def decode_batch(
    event_type: EventType,
    records: Sequence[Record],
    *,
    partition: int,
    partitions: int,
    future_allowance_ms: int,
    max_value_bytes: int,
) -> tuple[list[Event | None], list[Rejection]]:
    """Decode the records of one partition of one input topic; never raises.

    What becomes of a record is a function of the record: "in the future" is judged by its own Kafka
    timestamp and not by the clock, so that a restart and a replay decide as the first time.

    Args:
        event_type: which of the three topics the records come from.
        records: consumer records; `key`, `value`, `timestamp` (epoch ms) and `headers` are read.
        partition: the partition they come from.
        partitions: partition count of the topic.
        future_allowance_ms: how far an event may lie ahead of its record's timestamp.
        max_value_bytes: longer values are refused unread.

    Returns:
        One entry per record, None where it is refused; and the rejections by rising index.
    """
    decode = _DECODERS[event_type].decode
    events: list[Event | None] = []
    keys: list[bytes] = []  # of the good events
    failed: list[int] = []
    for record in records:
        value: Any = record.value
        key: Any = record.key
        produced_ms: Any = record.timestamp
        headers = record.headers
        try:
            if headers and says_cloud_event(headers):
                event = decode(unwrap(headers, checked_size(value, max_value_bytes)))
            else:
                event = decode(value)
            ms = event.timestamp_ms
            if type(ms) is not int:
                ms = (ms - _EPOCH) // _MILLISECOND
                force_setattr(event, "timestamp_ms", ms)
            good = (
                event.user_id.encode() == key
                and key != RESERVED_KEY
                and MIN_TIMESTAMP_MS <= ms <= produced_ms + future_allowance_ms
                and ms <= MAX_TIMESTAMP_MS
                and len(value) <= max_value_bytes
                and (value.isascii() or is_utf8(value))
            )
        except Exception:
            good = False
        if good:
            events.append(event)
            keys.append(key)
        else:
            failed.append(len(events))
            events.append(None)

    rejections: list[Rejection] = []
    wrong = (partitions_for(keys, partitions) != partition).nonzero()[0].tolist()
    if wrong:
        positions = [i for i, event in enumerate(events) if event is not None]
        for j in wrong:
            events[positions[j]] = None
            message = _wrong_partition_message(partition, partitions)
            rejections.append(Rejection(positions[j], Reason.WRONG_PARTITION, message))
    for i in failed:
        try:
            events[i] = decode_event(
                event_type,
                records[i].key,
                records[i].value,
                records[i].timestamp,
                partition=partition,
                partitions=partitions,
                future_allowance_ms=future_allowance_ms,
                max_value_bytes=max_value_bytes,
                headers=records[i].headers,
            )
        except InvalidEvent as error:
            rejections.append(Rejection(i, Reason(error.reason), error.message))
    rejections.sort(key=lambda rejection: rejection.index)
    return events, rejections


def decode_event(
    event_type: EventType,
    key: bytes | None,
    value: bytes | None,
    produced_ms: int | None,
    *,
    partition: int,
    partitions: int,
    future_allowance_ms: int,
    max_value_bytes: int,
    headers: Headers = (),
) -> Event:
    """Decode one record with the checks of `decode_batch`, one after the other.

    Args:
        produced_ms: the record's Kafka timestamp; None or negative when it has none (an old message
            format). Such an event may lie as far ahead as a row can hold: there is nothing to judge
            it by that would give the same answer the next time.
        headers: of the record, which tell that it is a CloudEvent.

    Raises:
        InvalidEvent: with the reason that is found first.
    """
    value = checked_size(value, max_value_bytes)
    if not key:
        raise InvalidEvent(Reason.KEY_MISSING, "The record has no key; it has to be the user id.")
    if is_cloud_event(headers, value):
        value = unwrap(headers, value)
    event: Event = read_json(_DECODERS[event_type].decode, value)
    if event.user_id.encode() != key:
        raise InvalidEvent(
            Reason.KEY_MISMATCH, "The key of the record is not the `user_id` in its value."
        )
    if key == RESERVED_KEY:
        raise InvalidEvent(
            Reason.RESERVED_USER_ID,
            "The `user_id` is the key under which the local store keeps its own offset.",
        )
    moment: int | datetime = event.timestamp_ms
    ms = moment if isinstance(moment, int) else (moment - _EPOCH) // _MILLISECOND
    if ms < MIN_TIMESTAMP_MS:
        raise InvalidEvent(
            Reason.TIMESTAMP_TOO_OLD,
            "The `timestamp` lies before 2000-01-01; a number has to be in milliseconds.",
        )
    if ms > _latest_ms(produced_ms, future_allowance_ms):
        raise InvalidEvent(
            Reason.TIMESTAMP_IN_FUTURE,
            f"The `timestamp` lies more than {future_allowance_ms / 1000:g} s after its record's "
            "Kafka timestamp.",
        )
    if partition_for(key, partitions) != partition:
        raise InvalidEvent(Reason.WRONG_PARTITION, _wrong_partition_message(partition, partitions))
    force_setattr(event, "timestamp_ms", ms)
    return event


def _latest_ms(produced_ms: int | None, future_allowance_ms: int) -> int:
    if produced_ms is None or produced_ms < 0:
        return MAX_TIMESTAMP_MS
    return min(produced_ms + future_allowance_ms, MAX_TIMESTAMP_MS)


def _wrong_partition_message(partition: int, partitions: int) -> str:
    return (
        f"Partition {partition} of {partitions} is not the one that murmur2 of the key gives; set "
        "the producer's partitioner to murmur2."
    )


class Source(Struct, frozen=True, gc=False):
    """Where an input event stands."""

    topic: str
    partition: int
    offset: int


class Share(Struct, frozen=True, gc=False):
    """The share, 0 to 1, that a category has in a user's interest."""

    category: str
    share: float


class Evidence(Struct, frozen=True, gc=False):
    """An event that speaks for a drift; `timestamp` in epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    category: str


class Drift(Struct, frozen=True, gc=False, kw_only=True):
    """The interest of a user has changed.

    id                 `output_id("drift", ...)` of the source, the same each time it is sent
    timestamp          event time of the event that raised it, epoch milliseconds
    from, to           distribution before and after, largest share first
    since              event time of the first event of the new interest, epoch milliseconds
    strength           total variation distance of the two distributions, 0 to 1
    confidence         probability of a change, were a change and none as likely beforehand
    statistic          of the test, the log-odds of that; at or above `threshold`
    window_units       units in the window that the test looked at
    average_run_length events between false alarms, None where it is not known
    evidence           the events that speak for the change, but for those of a history in a file,
                       which stand in no topic
    """

    id: str
    user_id: str
    timestamp: int
    source: Source
    from_: list[Share] = field(name="from")
    to: list[Share]
    since: int
    strength: float
    confidence: float
    statistic: float
    threshold: float
    window_units: int
    false_alarms_per_1000_users_per_30d: float | None
    average_run_length: float | None
    evidence: list[Evidence]
    model_version: str


class ReasonEvent(Struct, frozen=True, gc=False):
    """The user's own event that carries a recommendation; `timestamp` in epoch milliseconds."""

    item_id: str
    timestamp: int


class RecommendationReason(Struct, frozen=True, gc=False):
    """Why an item is recommended; `event` is None for what is popular with everybody."""

    kind: Literal["repeated", "viewed_together", "category", "trending", "sequence"]
    text: str
    event: ReasonEvent | None = None


class RecommendedItem(Struct, frozen=True, gc=False):
    """One item of a list; a higher score is better, comparable only within the list."""

    item_id: str
    score: float
    reason: RecommendationReason


class Interest(Struct, frozen=True, gc=False):
    """Probability, 0 to 1, that the user turns to the category in the next window."""

    category: str
    probability: float
    uncertainty: float


TriggerName = Literal["first_event", "purchase", "drift", "interval"]
"""Why a recommendation is emitted; see `model.transition.Trigger`."""


class Recommendation(Struct, frozen=True, gc=False, kw_only=True):
    """Items for a user, best first, with the interests they follow from.

    id         `output_id("recommendation", ...)` of the source, the same each time it is sent
    timestamp  event time of the event that raised it, epoch milliseconds
    diversity  of the list, 0 to 1
    """

    id: str
    user_id: str
    timestamp: int
    source: Source
    trigger: TriggerName
    items: list[RecommendedItem]
    interests: list[Interest]
    diversity: float
    model_version: str


OutputKind = Literal["drift", "recommendation"]

_ENCODER = msgspec.json.Encoder()


def output_id(kind: OutputKind, topic: str, partition: int, offset: int, epoch: int = 0) -> str:
    """The id of an output: a function of its source, so that a repeated output has an equal id.

    Args:
        epoch: of the topic, so that ids do not come again when the topic is made anew; 0 where the
            broker gives topics no id.
    """
    made = f"@{epoch:08x}" if epoch else ""
    return f"{kind}:{topic}{made}:{partition}:{offset}"


def schema_id(name: str) -> str:
    """The URI of a message's JSON Schema; a change that breaks readers asks for a new version."""
    return f"urn:interest-stream:{name}:v1"


def encode_output(output: Drift | Recommendation) -> bytes:
    """The JSON of an output, UTF-8."""
    return _ENCODER.encode(output)
