"""An erasure writes once: what came after it is not its to delete."""

from __future__ import annotations

from stream_app.control import Erase
from stream_app.lane.commit import Topics, Written
from stream_app.lane.erasure import erase, receipt
from stream_app.lane.journal import JournalEntry
from stream_app.lane.merge import NO_MAXIMA
from stream_app.lane.stored_rows import Markers, marker_key, user_hash

TOPICS = ("clicks", "searches", "purchases")
REQUEST = Erase(request_id="one", user_id="ann", requested_ms=5)
ENTRY = JournalEntry(
    7, 1, (4, 2, 0), (4, 2, 0), NO_MAXIMA, NO_MAXIMA, control=3, erased=user_hash("ann")
)
OUT = Topics("drift", "recommendations", "letters", "journal", "control")


def test_row_marker_and_outputs_are_written_together() -> None:
    found = erase(ENTRY, REQUEST, {})
    assert found.results.keys == [b"ann", marker_key(ENTRY.erased)]
    assert found.results.rows[0] is None
    assert found.results.drift == found.results.recommendations == [(b"ann", None)]
    assert found.marker.offsets == (3, 1, -1)
    told = receipt(REQUEST, 0, True, found.marker, TOPICS, OUT, "rows", Written(8, 9, 11))
    assert [place.offset for place in told.tombstones] == [8, 9, 10]
    assert told.marker is not None
    assert told.marker.offset == 11


def test_done_again_after_a_crash_it_writes_nothing() -> None:
    """Outputs of events that came after it may be out already."""
    markers: Markers = {ENTRY.erased: erase(ENTRY, REQUEST, {}).marker}
    found = erase(ENTRY, REQUEST, markers)
    results = found.results
    assert not any((results.keys, results.drift, results.recommendations, results.deleted))
    assert found.marker is markers[ENTRY.erased]
    told = receipt(REQUEST, 0, None, found.marker, TOPICS, OUT, "rows", Written())
    assert (told.tombstones, told.marker, told.had_row) == ([], None, None)
    assert told.inputs == {"clicks": 4, "searches": 2, "purchases": 0}
