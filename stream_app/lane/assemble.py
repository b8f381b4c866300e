"""Decoded events, in their order, to the arrays that the transition reads.

Knows nothing of Kafka: the worker and the programs that read files both come through here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import cast

import numpy as np
import numpy.typing as npt

from model.event_hash import event_hash
from model.events import QUERY_TOKENS, EventBatch, EventType, Kind
from model.vocabulary import Vocabulary
from stream_app.events import Click, Event, Purchase, Search

Ints = npt.NDArray[np.int64]

_ACTIONS = {"view": int(Kind.VIEW), "favourite": int(Kind.FAVOURITE), "cart": int(Kind.CART)}
_UNKNOWN = -1


@dataclass(frozen=True)
class Assembled:
    """E events of P batches as N steps of U users.

    steps       the steps; `steps.user` counts into `users`
    users       user ids, those of a batch in the order of their first event
    event       (N,) int64 the event that each step belongs to
    events      (E,)
    first_user  (P + 1,) where the users of each batch begin, and how many there are
    """

    steps: EventBatch
    users: list[str]
    event: Ints
    events: Sequence[Event]
    first_user: list[int]

    def item_id(self, step: int) -> str:
        """The item of a step as its event names it; empty for a search."""
        event = self.events[int(self.event[step])]
        if isinstance(event, Purchase):
            return event.items[int(self.steps.line[step])].item_id
        return event.item_id if isinstance(event, Click) else ""


def assemble(
    events: Sequence[Event],
    event_type: Ints,
    offset: Ints,
    vocabulary: Vocabulary,
    first_event: Sequence[int] = (0,),
) -> Assembled:
    """Arrays of the events, in the given order.

    Args:
        events: decoded events.
        event_type: (E,) the `EventType` of each event.
        offset: (E,) its offset in its topic.
        vocabulary: gives items, categories and query tokens their indices.
        first_event: (P,) where each of several batches begins; a user of two batches is two users.
    """
    user_of: list[int] = []
    users: list[str] = []
    first_user = [0]
    for start, stop in pairwise([*first_event, len(events)]):
        numbers: dict[str, int] = {}
        number, before = numbers.setdefault, len(users)
        user_of += [number(event.user_id, before + len(numbers)) for event in events[start:stop]]
        users += numbers
        first_user.append(len(users))
    user = np.array(user_of, dtype=np.int64)
    time_ms = np.array([event.timestamp_ms for event in events], dtype=np.int64)
    hashes = event_hash([event.event_id for event in events])

    clicks = np.flatnonzero(event_type == EventType.CLICK)
    searches = np.flatnonzero(event_type == EventType.SEARCH)
    purchases = np.flatnonzero(event_type == EventType.PURCHASE)
    bought = [cast(Purchase, events[i]) for i in purchases.tolist()]
    lines = np.ones(len(events), dtype=np.int64)
    lines[purchases] = [len(purchase.items) for purchase in bought]
    event = np.repeat(np.arange(len(events)), lines)  # (N,)
    first = np.cumsum(lines) - lines  # (E,) first step of each event
    count = len(event)

    kind = np.zeros(count, dtype=np.int64)
    item = np.zeros(count, dtype=np.int64)
    category = np.zeros(count, dtype=np.int64)
    query = np.zeros((count, QUERY_TOKENS), dtype=np.int64)
    if len(clicks):
        clicked = cast("list[Click]", _at(events, clicks))
        at = first[clicks]
        kind[at] = [_ACTIONS[click.action] for click in clicked]
        item[at] = _items([click.item_id for click in clicked], vocabulary)
        category[at] = _categories([click.category for click in clicked], vocabulary)
    if len(searches):
        searched = cast("list[Search]", _at(events, searches))
        at = first[searches]
        kind[at] = Kind.SEARCH
        category[at] = _categories([search.category for search in searched], vocabulary)
        for step, search in zip(at.tolist(), searched, strict=True):
            tokens = vocabulary.query(search.query)
            query[step, : len(tokens)] = tokens
    if len(purchases):
        at = np.flatnonzero(event_type[event] == EventType.PURCHASE)
        sold = list(chain.from_iterable(purchase.items for purchase in bought))
        kind[at] = Kind.PURCHASE
        item[at] = _items([line.item_id for line in sold], vocabulary)
        category[at] = _categories([line.category for line in sold], vocabulary)

    line = np.arange(count) - first[event]
    steps = EventBatch(
        user=user[event],
        event_type=event_type[event],
        offset=offset[event],
        event_hash=hashes[event],
        time_ms=time_ms[event],
        kind=kind,
        item=item,
        category=category,
        query=query,
        line=line,
        last_line=line == lines[event] - 1,
    )
    return Assembled(steps, users, event, events, first_user)


def _at(events: Sequence[Event], index: Ints) -> Sequence[Event]:
    return events if len(index) == len(events) else [events[i] for i in index.tolist()]


def _items(names: list[str], vocabulary: Vocabulary) -> Ints:
    known = vocabulary.item_index.get
    index = np.array([known(name, _UNKNOWN) for name in names], dtype=np.int64)
    for place in np.flatnonzero(index == _UNKNOWN).tolist():
        index[place] = vocabulary.item(names[place])
    return index


def _categories(names: list[str | None], vocabulary: Vocabulary) -> Ints:
    known = vocabulary.category_index.get
    index = np.array(
        [0 if name is None else known(name, _UNKNOWN) for name in names], dtype=np.int64
    )
    for place in np.flatnonzero(index == _UNKNOWN).tolist():
        index[place] = vocabulary.category(names[place])
    return index
