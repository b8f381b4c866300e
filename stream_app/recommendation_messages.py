"""Recommendation messages, joined from pieces of JSON that msgspec makes once per name.

A list repeats the names of items and categories and a few reasons; encoding them as structs again
for each list would be a third of the worker's time. What comes out is, byte for byte, the JSON of
``events.Recommendation`` (tests/unit/test_outputs.py holds it against the struct).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec
import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventBatch
from model.interests import Interests
from model.ranking import Reason, Recommendations
from model.state import StateBatch
from model.transition import Outputs, Trigger
from model.vocabulary import Vocabulary
from stream_app.events import (
    OutputKind,
    ReasonEvent,
    RecommendationReason,
    RecommendedItem,
    Source,
    TriggerName,
    output_id,
)

DIGITS = 4
"""Digits of scores and probabilities behind the point."""
Message = tuple[bytes, bytes]
"""Key and value."""

_TRIGGERS: dict[int, TriggerName] = {
    Trigger.FIRST_EVENT: "first_event",
    Trigger.PURCHASE: "purchase",
    Trigger.DRIFT: "drift",
    Trigger.INTERVAL: "interval",
}
_encode = msgspec.json.Encoder().encode
_decode_items = msgspec.json.Decoder(list[RecommendedItem]).decode


@dataclass(frozen=True)
class Place:
    """Where the steps of a batch come from.

    users, partitions  names behind ``events.user``, and where each of them stands
    item_id            name of a step's item, as the event states it
    topics, epochs     input topics by EventType, and their epochs
    """

    events: EventBatch
    users: list[str]
    item_id: Callable[[int], str]
    partitions: Sequence[int]
    topics: tuple[str, str, str]
    epochs: tuple[int, int, int]

    def of(self, step: int) -> tuple[str, Source, int]:
        """User, source and event time of a step."""
        events, user = self.events, int(self.events.user[step])
        topic = self.topics[int(events.event_type[step])]
        source = Source(topic, self.partitions[user], int(events.offset[step]))
        return self.users[user], source, int(events.time_ms[step])

    def output_id(self, kind: OutputKind, step: int) -> str:
        """The id of an output that follows a step."""
        event_type, offset = int(self.events.event_type[step]), int(self.events.offset[step])
        topic, epoch = self.topics[event_type], self.epochs[event_type]
        partition = self.partitions[int(self.events.user[step])]
        return output_id(kind, topic, partition, offset, epoch)


def recommendation_messages(
    outputs: Outputs, place: Place, checkpoint: Checkpoint
) -> list[Message]:
    """The ``Recommendation``s, joined from pieces of JSON that repeat from list to list."""
    step, events = outputs.recommend_step, place.events
    pieces = _pieces_of(checkpoint)
    items = _item_pieces(
        outputs.recommendations,
        outputs.rows,
        checkpoint,
        pieces,
        lambda number: place.item_id(int(step[number])),
    )
    interests = _interest_pieces(outputs.recommendations.interests, pieces)
    tail = b',"model_version":%b}' % _encode(checkpoint.version)
    messages = []
    for user, kind, offset, time_ms, trigger, listed, liked, diversity in zip(
        events.user[step].tolist(),
        events.event_type[step].tolist(),
        _numbers(events.offset[step]),
        _numbers(events.time_ms[step]),
        outputs.trigger.tolist(),
        items,
        interests,
        _numbers(outputs.recommendations.diversity.round(DIGITS)),
        strict=True,
    ):
        name = place.users[user]
        identity, source = _head(place.topics[kind], place.partitions[user], place.epochs[kind])
        value = b"".join(
            [
                b'{"id":',
                identity,
                offset,
                b'","user_id":',
                _encode(name),
                b',"timestamp":',
                time_ms,
                source,
                offset,
                _TRIGGER_PIECES[trigger],
                *listed,
                b'],"interests":[',
                *liked,
                b'],"diversity":',
                diversity,
                tail,
            ]
        )
        messages.append((name.encode(), value))
    return messages


@lru_cache(maxsize=4096)
def _head(topic: str, partition: int, epoch: int) -> tuple[bytes, bytes]:
    """What stands before the offset in the id of a recommendation, and in its source."""
    return (
        _encode(output_id("recommendation", topic, partition, 0, epoch))[:-2],
        b',"source":{"topic":%b,"partition":%d,"offset":' % (_encode(topic), partition),
    )


def recommended_items(
    lists: Recommendations, rows: StateBatch, checkpoint: Checkpoint
) -> list[list[RecommendedItem]]:
    """The items of each list as they stand in its message; all of them have a name."""
    pieces = _item_pieces(lists, rows, checkpoint, _pieces_of(checkpoint), lambda _: None)
    return [_decode_items(b"[%b]" % b"".join(listed)) for listed in pieces]


def _item_pieces(
    lists: Recommendations,
    rows: StateBatch,
    checkpoint: Checkpoint,
    pieces: _Pieces,
    last_item: Callable[[int], str | None],
) -> list[list[bytes]]:
    """The ``RecommendedItem``s of each list: five pieces an item, empty where there is none.

    ``last_item`` names the item of the last step of a list's row, of the number of the list.

    The pieces: head, score, reason, and for a reason that a step carries its time and end.
    """
    item, reason, because = lists.item.ravel(), lists.reason.ravel(), lists.because
    row = np.arange(len(rows))[:, None]
    why = [_SEQUENCE] * len(item)
    time_ms, end = [b""] * len(item), [b""] * len(item)
    for place in np.flatnonzero(reason == Reason.TRENDING).tolist():
        why[place] = _TRENDING
    at = np.flatnonzero(reason == Reason.CATEGORY)
    _put(why, at, pieces.category, checkpoint.statistics.item_category[item[at]])
    carrier = rows["recent_item"][row, because].ravel()
    carried = np.zeros(len(item), dtype=bool)
    for kind, table in (
        (Reason.REPEATED, pieces.repeated),
        (Reason.VIEWED_TOGETHER, pieces.beside),
    ):
        of_kind = reason == kind
        at = np.flatnonzero(of_kind)
        _put(why, at, table, carrier[at])
        carried |= of_kind
    at = np.flatnonzero(carried & (carrier < checkpoint.vocabulary.first_item_bucket))
    seconds = rows["recent_time_s"][row, because].ravel()[at].astype(np.int64)
    for place, piece in zip(at.tolist(), _numbers(seconds * 1000), strict=True):
        time_ms[place], end[place] = piece, _END
    joined = [b""] * (5 * len(item))
    joined[0::5] = pieces.item.of(item)
    for unnamed in np.flatnonzero(item >= checkpoint.vocabulary.first_item_bucket).tolist():
        joined[5 * unnamed] = _item_head(last_item(unnamed // lists.item.shape[1]))
    joined[1::5] = _numbers(lists.score.astype(np.float64).round(DIGITS))
    joined[2::5], joined[3::5], joined[4::5] = why, time_ms, end
    for place in np.flatnonzero(item == 0).tolist():
        joined[5 * place : 5 * place + 5] = [b""] * 5
    return _cut(joined, 5 * lists.item.shape[1], len(rows))


def _interest_pieces(liked: Interests, pieces: _Pieces) -> list[list[bytes]]:
    """The ``Interest``s of each list: five pieces each."""
    joined = [b"", b"", b',"uncertainty":', b"", b"}"] * liked.category.size
    joined[0::5] = pieces.interest.of(liked.category)
    joined[1::5] = _numbers(liked.probability.round(DIGITS))
    joined[3::5] = _numbers(liked.uncertainty.round(DIGITS))
    return _cut(joined, 5 * liked.category.shape[1], len(liked.category))


def _cut(pieces: list[bytes], width: int, count: int) -> list[list[bytes]]:
    """``width`` pieces for each of ``count`` lists, the comma before the first left out."""
    rows = [pieces[start : start + width] for start in range(0, width * count, width or 1)]
    for row in rows:
        row[0] = row[0][1:]
    return rows if width else [[]] * count


def _put(pieces: list[bytes], at: np.ndarray, table: _Table, index: np.ndarray) -> None:
    for place, piece in zip(at.tolist(), table.of(index), strict=True):
        pieces[place] = piece


def _numbers(values: np.ndarray) -> list[bytes]:
    """JSON of each number, in flat order."""
    return _encode(values.ravel().tolist())[1:-1].split(b",") if values.size else []


class _Table:
    """Pieces of JSON by index, each made when it is first asked for."""

    def __init__(self, size: int, make: Callable[[int], bytes]) -> None:
        self._known: list[bytes | None] = [None] * size
        self._make = make

    def of(self, index: np.ndarray) -> list[bytes]:
        """The piece of each index, in flat order."""
        known, fill = self._known, self._fill
        return [known[i] or fill(i) for i in index.ravel().tolist()]

    def _fill(self, index: int) -> bytes:
        piece = self._known[index] = self._make(index)
        return piece


class _Pieces:
    """What a vocabulary's names look like in a message; tables by vocabulary index."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        def item(index: int) -> bytes:
            return _item_head(vocabulary.item_name(index))

        def interest(index: int) -> bytes:
            return b',{"category":%b,"probability":' % _encode(vocabulary.category_name(index))

        def category(index: int) -> bytes:
            name = vocabulary.category_name(index)
            return _reason(RecommendationReason("category", f"of the likely category {name}"))

        def beside(index: int) -> bytes:
            name = vocabulary.item_name(index)
            return carried("viewed_together", f"often goes with {name or 'the last items'}", name)

        def repeated(index: int) -> bytes:
            return carried("repeated", "came to it lately", vocabulary.item_name(index))

        def carried(
            kind: Literal["viewed_together", "repeated"], text: str, name: str | None
        ) -> bytes:
            """The reason up to the time of the step that carries it; whole where it has no name."""
            if name is None:
                return _reason(RecommendationReason(kind, text))
            piece = _reason(RecommendationReason(kind, text, ReasonEvent(name, 0)))
            return piece.removesuffix(b"0" + _END)

        self.item = _Table(vocabulary.items, item)
        self.interest = _Table(vocabulary.categories, interest)
        self.category = _Table(vocabulary.categories, category)
        self.beside = _Table(vocabulary.items, beside)
        self.repeated = _Table(vocabulary.items, repeated)


_made: dict[str, _Pieces] = {}


def _pieces_of(checkpoint: Checkpoint) -> _Pieces:
    """The pieces of a checkpoint; those of the last one are kept."""
    if checkpoint.version not in _made:
        _made.clear()
        _made[checkpoint.version] = _Pieces(checkpoint.vocabulary)
    return _made[checkpoint.version]


def _item_head(name: str | None) -> bytes:
    return b',{"item_id":%b,"score":' % _encode(name)


def _reason(reason: RecommendationReason) -> bytes:
    return b',"reason":%b}' % _encode(reason)


_END = b"}}}"
_TRENDING = _reason(RecommendationReason("trending", "popular with everybody lately"))
_SEQUENCE = _reason(RecommendationReason("sequence", "fits the order of the last steps"))
_TRIGGER_PIECES = {
    trigger: b'},"trigger":%b,"items":[' % _encode(name) for trigger, name in _TRIGGERS.items()
}
