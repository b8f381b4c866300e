"""Events as arrays: what the transition reads, wherever the events come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Arrays = TypeVar("Arrays", bound="DataclassInstance")

QUERY_TOKENS = 8
"""Hashed query tokens kept of one search; more are left out."""
NO_OFFSET = -1
"""Of an event that stands in no topic, as those of a history in a file."""
SESSION_GAP_S = 1800
"""A longer gap between two steps of a user ends a session."""


class EventType(IntEnum):
    """The input topic an event comes from; also the tie order of the merge."""

    CLICK = 0
    SEARCH = 1
    PURCHASE = 2


class Kind(IntEnum):
    """What the user did, as the encoder sees it; 0 is padding."""

    NONE = 0
    VIEW = 1
    FAVOURITE = 2
    CART = 3
    SEARCH = 4
    PURCHASE = 5


def taken(arrays: Arrays, index: np.ndarray | slice) -> Arrays:
    """A dataclass of arrays of one length at ``index``, in that order."""
    return type(arrays)(**{f.name: getattr(arrays, f.name)[index] for f in fields(arrays)})


@dataclass(frozen=True)
class EventBatch:
    """Events of one partition in merged order, one entry per *step*.

    A click or search is one step, a purchase one step per line item; the steps of one event
    stand together, share its offset and are numbered by ``line``. N steps:

    ==============  =================  ==========================================================
    user            (N,) int64         index into the StateBatch
    event_type      (N,) int64         EventType: which of the three input topics
    offset          (N,) int64         offset in that topic's partition, or NO_OFFSET
    event_hash      (N,) uint64        hash of the event id, never 0
    time_ms         (N,) int64         event time, milliseconds since the epoch
    kind            (N,) int64         Kind
    item            (N,) int64         vocabulary index, 0 = no item
    category        (N,) int64         vocabulary index, 0 = no category
    query           (N, 8) int64       hashed tokens of a search, 0 = none
    line            (N,) int64         0-based line item within the event
    last_line       (N,) bool          true on the last step of an event
    ==============  =================  ==========================================================
    """

    user: np.ndarray
    event_type: np.ndarray
    offset: np.ndarray
    event_hash: np.ndarray
    time_ms: np.ndarray
    kind: np.ndarray
    item: np.ndarray
    category: np.ndarray
    query: np.ndarray
    line: np.ndarray
    last_line: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray | slice) -> EventBatch:
        """The steps at ``index``, in that order."""
        return taken(self, index)

    @staticmethod
    def joined(batches: Sequence[EventBatch], first_user: Sequence[int] | np.ndarray) -> EventBatch:
        """The steps of P batches one after the other; users of each count from its ``first_user``.

        first_user (P,)
        """
        columns = {
            f.name: np.concatenate([getattr(batch, f.name) for batch in batches])
            for f in fields(EventBatch)
        }
        columns["user"] += np.repeat(first_user, [len(batch) for batch in batches])
        return EventBatch(**columns)


@dataclass(frozen=True)
class Source:
    """Where the offsets of a batch belong: written into every row beside the offset.

    epochs      per EventType, a number that changes when the topic is made anew
    partitions  partition count of the input topics
    """

    epochs: tuple[int, int, int] = (0, 0, 0)
    partitions: int = 1
