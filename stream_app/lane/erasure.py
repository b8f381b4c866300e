"""Erases a user between two batches: what is written, and the receipt.

The row becomes a marker under a hash of the user, with the offsets up to which events of the user
are skipped; changelog and output topics get a record without a value under the user's key. Done
again after a crash, the marker tells by its control offset that there is nothing left to erase.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from stream_app.control import Erase, Place, Receipt
from stream_app.lane.commit import Results, Topics, Written
from stream_app.lane.journal import JournalEntry
from stream_app.lane.recovered_rows import marker_position
from stream_app.lane.stored_rows import Marker, Markers, encode_marker, marker_key


@dataclass(frozen=True)
class Erased:
    """What an erasure leaves: the results to write, and the marker."""

    results: Results
    marker: Marker


def marker_of(entry: JournalEntry, erased_ms: int) -> Marker:
    """The marker of an erasure: all that lies before it in the journal is skipped from now on."""
    a, b, c = (end - 1 for end in entry.end)
    return Marker(entry.partitions, entry.epochs, (a, b, c), entry.control, erased_ms)


def is_done(entry: JournalEntry, markers: Mapping[bytes, Marker]) -> bool:
    """Whether the marker of this erasure, or of a later one, is in the store."""
    marker = markers.get(entry.erased)
    return marker is not None and marker.control >= entry.control


def erase(entry: JournalEntry, request: Erase, markers: Markers) -> Erased:
    """What is written for an erasure; nothing for one that is done: outputs of events that came
    after it would be deleted."""
    if is_done(entry, markers):
        return Erased(Results([], [], [], [], [], entry.end), markers[entry.erased])
    key = request.user_id.encode()
    marker = marker_of(entry, request.requested_ms)
    keys: list[bytes] = [key, marker_key(entry.erased)]
    rows: list[bytes | None] = [None, encode_marker(marker)]
    deleted: list[tuple[bytes, bytes | None]] = [(key, None)]
    positions = {key: marker_position(marker)}
    return Erased(Results(deleted, deleted, [], keys, rows, entry.end, positions), marker)


def receipt(
    request: Erase,
    partition: int,
    had_row: bool | None,
    marker: Marker,
    inputs: tuple[str, str, str],
    topics: Topics,
    changelog: str,
    written: Written,
) -> Receipt:
    """What the one who asked is told."""
    found = written.changelog
    places = []
    if found >= 0:
        places = [
            Place(topics.drift, partition, written.drift),
            Place(topics.recommendations, partition, written.recommendations),
            Place(changelog, partition, found - 1),
        ]
    return Receipt(
        request_id=request.request_id,
        partition=partition,
        had_row=had_row,
        inputs={topic: last + 1 for topic, last in zip(inputs, marker.offsets, strict=True)},
        tombstones=places,
        marker=Place(changelog, partition, found) if found >= 0 else None,
        done_ms=int(time.time() * 1000),
    )
