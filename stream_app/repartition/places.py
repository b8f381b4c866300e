"""Where a mapped record comes from, and how far the outputs were at a commit. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stream_app.log_tail import Where

ADAPTED_FROM = "adapted-from"
"""Header of mapped records and their dead letters: `topic@epoch:partition:offset:number`, where the
number counts the events of a record, and is `letter` for its dead letter."""
LETTER = -1
"""Number of a dead letter."""
MAX_BATCH = 1_000_000
"""No batch of a step spans more offsets; see `Seen`."""
MAX_METADATA = 4000
"""Characters that a commit may carry: brokers take 4,096 by default."""

_OFFSET_BYTES = 5
_EPOCH_BYTES = 4
_PLACE = re.compile(
    rb"([A-Za-z0-9._-]+)@([0-9a-f]{8}):([0-9]{1,9}):([0-9]{1,18}):([0-9]{1,9}|letter)"
)


@dataclass(frozen=True)
class Place:
    """Where a mapped record comes from; `epoch` is that of `topics.adapter_epochs`."""

    where: Where
    epoch: int
    offset: int
    number: int

    def header(self) -> tuple[str, bytes]:
        """The header that says so."""
        topic, partition = self.where
        number = "letter" if self.number == LETTER else str(self.number)
        return ADAPTED_FROM, f"{topic}@{self.epoch:08x}:{partition}:{self.offset}:{number}".encode()


def read_place(headers: Sequence[tuple[str, bytes | None]]) -> Place | None:
    """The place in a record's headers; None when there is none."""
    for name, value in headers:
        if name == ADAPTED_FROM:
            found = _PLACE.fullmatch(value or b"")
            if found is not None:
                topic, epoch, partition, offset, number = found.groups()
                count = LETTER if number == b"letter" else int(number)
                where = topic.decode(), int(partition)
                return Place(where, int(epoch, 16), int(offset), count)
    return None


class Seen:
    """Which records of one source partition are mapped already, of those that were looked at.

    A batch is acknowledged as a whole before the next one is sent, so that what lies more than a
    batch before the last one that was found is mapped too, and need not be remembered.

    Args:
        since: the next offset of each output partition where the look began.
    """

    def __init__(self, since: Mapping[Where, int]) -> None:
        self._since = since
        self._places: set[tuple[int, int]] = set()
        self._last = -1

    def add(self, offset: int, number: int) -> None:
        """The event of this number in the record at this offset stands on its topic."""
        self._last = max(self._last, offset)
        self._places.add((offset, number))
        if len(self._places) > 4 * MAX_BATCH:
            self._places = {place for place in self._places if place[0] > self._last - MAX_BATCH}

    def to_look_from(self, offset: int, ends: Mapping[Where, int]) -> Mapping[Where, int]:
        """Where a look has to begin that is to find all outputs of the records from an offset on.

        That is where the outputs end now, or where this look began as long as it found some of
        them: a commit in between must not let them be forgotten.
        """
        return ends if offset > self._last else self._since

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place[0] <= self._last - MAX_BATCH or place in self._places


def encode_ends(epoch: int, ends: Mapping[Where, int], order: Sequence[Where]) -> str:
    """The metadata of a commit: epoch of its topic, and next offset of each output partition.

    Empty when it were too long, as of more than some 150 partitions: who takes over then looks
    through whole topics.
    """
    packed = epoch.to_bytes(_EPOCH_BYTES, "little")
    packed += b"".join(ends.get(where, 0).to_bytes(_OFFSET_BYTES, "little") for where in order)
    text = base64.b64encode(packed).decode()
    return text if len(text) <= MAX_METADATA else ""


def decode_ends(metadata: Any, order: Sequence[Where]) -> tuple[int | None, dict[Where, int]]:
    """Epoch and offsets of a commit; None and zeros when its metadata are not of this form."""
    nothing = None, dict.fromkeys(order, 0)
    try:
        packed = base64.b64decode(metadata, validate=True)
    except (TypeError, ValueError, binascii.Error):
        return nothing
    if len(packed) != _EPOCH_BYTES + _OFFSET_BYTES * len(order):
        return nothing
    starts = range(_EPOCH_BYTES, len(packed), _OFFSET_BYTES)
    offsets = [int.from_bytes(packed[at : at + _OFFSET_BYTES], "little") for at in starts]
    return int.from_bytes(packed[:_EPOCH_BYTES], "little"), dict(zip(order, offsets, strict=True))
