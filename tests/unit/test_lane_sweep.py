"""The sweep: which rows it deletes, in slices, and what it leaves for later."""

from __future__ import annotations

from model.state import new_rows, pack
from stream_app.lane.merge import NEVER
from stream_app.lane.stored_rows import marker_key, user_hash
from stream_app.lane.sweep import SLICE_ROWS, Sweep

H = 64
EPOCHS = (5, 5, 5)
COMMITTED = [10, 10, 10]


def stored(
    times_ms: dict[bytes, int], offset: int = 3, epoch: int = 5
) -> list[tuple[bytes, bytes]]:
    rows = new_rows(len(times_ms), H)
    rows["last_time_ms"] = list(times_ms.values())
    rows["offset"], rows["epoch"], rows["events"] = offset, epoch, 1
    return list(zip(times_ms, pack(rows), strict=True))


def test_deletes_what_has_expired() -> None:
    sweep = Sweep(100, H)
    found = stored({b"ann": 99, b"bob": 100, b"eve": 5})
    assert list(sweep.next_expired(found, COMMITTED, EPOCHS)) == [b"ann", b"eve"]
    assert sweep.is_done


def test_nothing_expires_without_a_time_to_live() -> None:
    assert Sweep(NEVER, H).is_done


def test_goes_on_behind_the_slice() -> None:
    sweep = Sweep(100, H)
    keys = [b"%06d" % number for number in range(SLICE_ROWS)]
    assert len(sweep.next_expired(stored(dict.fromkeys(keys, 0)), COMMITTED, EPOCHS)) == SLICE_ROWS
    assert not sweep.is_done
    assert keys[-1] < sweep.position
    assert list(sweep.next_expired([], COMMITTED, EPOCHS)) == []
    assert sweep.is_done


def test_stops_at_the_markers() -> None:
    sweep = Sweep(100, H)
    marker = (marker_key(user_hash("eve")), bytes(64))
    assert list(sweep.next_expired([*stored({b"ann": 1}), marker], COMMITTED, EPOCHS)) == [b"ann"]
    assert sweep.is_done


def test_leaves_rows_beyond_the_committed_offsets_until_they_are() -> None:
    sweep = Sweep(100, H)
    late = stored({b"ann": 1}, offset=10)
    assert list(sweep.next_expired(late, COMMITTED, EPOCHS)) == []
    assert sweep.is_done
    assert sweep.committed()
    assert list(sweep.next_expired(late, [11, 11, 11], EPOCHS)) == [b"ann"]
    assert not sweep.committed(), "nothing is left"


def test_offsets_of_another_epoch_of_the_topic_do_not_hold_a_row() -> None:
    found = stored({b"ann": 1}, offset=900, epoch=4)
    assert list(Sweep(100, H).next_expired(found, COMMITTED, EPOCHS)) == [b"ann"]


def test_rows_of_the_first_layout_expire_too() -> None:
    key, value = stored({b"ann": 1})[0]
    assert value[-16:] == bytes(16)
    place = new_rows(1, H).dtype.fields["version"][1]
    old = value[:place] + b"\x01\0" + value[place + 2 : -16]
    found = [(key, old), *stored({b"bob": 2})]
    assert list(Sweep(100, H).next_expired(found, COMMITTED, EPOCHS)) == [b"ann", b"bob"]


def test_begins_again_when_more_has_expired() -> None:
    sweep = Sweep(100, H)
    found = stored({b"ann": 150})
    assert list(sweep.next_expired(found, COMMITTED, EPOCHS)) == []
    sweep.note(100)
    assert sweep.is_done
    sweep.note(200)
    assert not sweep.is_done
    assert list(sweep.next_expired(found, COMMITTED, EPOCHS)) == [b"ann"]
