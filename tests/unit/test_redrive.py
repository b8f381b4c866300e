"""What decides a redrive: what can be sent, in which order, and who goes on of two."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
import pytest

from model.events import EventType
from stream_app.dead_letters import Letter
from stream_app.errors import DeadLetterError
from stream_app.events import Reason, Source
from stream_app.letter_records import CHUNK_BYTES, CHUNK_LETTERS, Ready, chunks, in_order, prepare
from stream_app.letter_sender import LEASE_MS, won
from stream_app.letter_topic import LetterTopic, RedriveMark, read_letter, read_mark
from stream_app.partitioner import partition_for
from stream_app.redrive import check_lease
from stream_app.settings import Settings
from tests.integration.broken_messages import TIMESTAMP_MS, broken_messages, good_event

SETTINGS = Settings(partitions=8)
TOPICS = SETTINGS.input_topics
CAN_PASS = {
    Reason.KEY_MISSING,
    Reason.KEY_MISMATCH,
    Reason.WRONG_PARTITION,
}


HERE = Source(TOPICS[0], 3, 42)


def letter(source: Source = HERE, key: bytes | None = None, value: bytes | None = None) -> Letter:
    return Letter(source, key, value, None, "reason", "Message.", (), 0, 0)


def mark(source: Source = HERE, run: str = "a", **changes: Any) -> RedriveMark:
    values = {"begun_ms": 1000, "partition": 5, "after_offset": 7, **changes}
    return RedriveMark(source=source, run=run, **values)


def test_the_user_in_the_value_decides_key_and_partition() -> None:
    value = json.dumps(good_event(EventType.SEARCH, "ann", 1)).encode()

    ready = prepare(
        letter(Source(TOPICS[1], 0, 9), b"bob", value), value, SETTINGS, TIMESTAMP_MS + 10
    )

    assert ready == Ready(Source(TOPICS[1], 0, 9), partition_for(b"ann", 8), b"ann", value)


@pytest.mark.parametrize("seed", range(3))
def test_what_would_be_refused_again_stays(seed: int) -> None:
    for broken in broken_messages(seed):
        source = Source(TOPICS[broken.event_type], 0, 1)
        one = letter(source, broken.key, broken.value)
        if broken.reason in CAN_PASS and broken.key != b"":
            assert prepare(one, broken.value, SETTINGS, TIMESTAMP_MS + 10**7).source == source
            continue
        with pytest.raises(DeadLetterError) as refused:
            prepare(one, broken.value, SETTINGS, TIMESTAMP_MS + 10**7)
        # The empty key comes with a purchase among the clicks.
        reason = Reason.MISSING_FIELD if broken.key == b"" else broken.reason
        assert f"({reason})" in str(refused.value)
        assert "broken-" not in str(refused.value), "no user in the sentence"


def test_the_future_becomes_the_past() -> None:
    event = good_event(EventType.CLICK, "ann", 0)
    value = json.dumps(event).encode()
    early = TIMESTAMP_MS - SETTINGS.future_allowance_ms - 1

    with pytest.raises(DeadLetterError, match="timestamp_in_future"):
        prepare(letter(value=value), value, SETTINGS, early)
    assert prepare(letter(value=value), value, SETTINGS, early + 1).key == b"ann"


def test_a_foreign_topic_is_refused() -> None:
    with pytest.raises(DeadLetterError, match="none of the input topics"):
        prepare(letter(Source("elsewhere", 0, 0), value=b"{}"), b"{}", SETTINGS, 0)


def test_letters_go_by_topic_partition_and_offset() -> None:
    sources = [
        Source(TOPICS[0], 1, 10),
        Source(TOPICS[0], 2, 9),
        Source(TOPICS[1], 0, 3),
        Source(TOPICS[2], 0, 100),
        Source("elsewhere", 0, 0),
    ]

    assert [x.source for x in in_order(map(letter, reversed(sources)), TOPICS)] == sources


def test_chunks_are_bounded_and_keep_the_order() -> None:
    small = [Ready(Source("t", 0, i), 0, b"k", b"") for i in range(2 * CHUNK_LETTERS + 1)]
    large = [Ready(Source("t", 0, i), 0, b"k", b"x" * (CHUNK_BYTES // 2)) for i in range(5)]
    huge = [Ready(Source("t", 0, i), 0, b"k", b"x" * (CHUNK_BYTES + 1)) for i in range(2)]

    assert list(map(len, chunks(small))) == [CHUNK_LETTERS, CHUNK_LETTERS, 1]
    assert list(map(len, chunks(large))) == [2, 2, 1]
    assert list(map(len, chunks(huge))) == [1, 1]
    assert [one for chunk in chunks(small) for one in chunk] == small
    assert list(chunks([])) == []


class Record(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int = 0
    offset: int = 0


def stored(one: RedriveMark) -> Record:
    return Record(one.key(), msgspec.json.encode(one), one.headers())


@pytest.mark.parametrize("sent", [None, Source(TOPICS[0], 5, 8)])
def test_a_mark_is_read_as_it_was_written_and_is_no_letter(sent: Source | None) -> None:
    record = stored(mark(sent=sent))

    assert read_mark(record) == mark(sent=sent)
    assert read_letter(record) is None
    assert record.key == f"redrive:{TOPICS[0]}:3:42:a".encode()
    assert read_mark(record._replace(value=None)) is None
    assert read_mark(record._replace(value=b"{}")) is None
    assert read_mark(record._replace(headers=[])) is None
    assert read_mark(record._replace(key=b"another")) is None


def test_one_done_mark_is_enough() -> None:
    here, there = Source(TOPICS[0], 3, 42), Source(TOPICS[0], 5, 8)
    held = LetterTopic(marks={here: [mark(), mark(run="b", sent=there), mark(run="c")]})

    done = held.sent(here)

    assert done is not None
    assert done.sent == there
    assert held.sent(there) is None


def test_the_first_mark_wins() -> None:
    here, there = Source("t", 0, 1), Source("t", 0, 2)
    ours, theirs = mark(here, "ours"), mark(here, "theirs")

    assert won([here], "ours", [ours, theirs])
    assert not won([here], "ours", [theirs, ours])
    assert won([here], "ours", [mark(there, "theirs"), ours]), "theirs is another letter"
    assert not won([here, there], "ours", [ours])
    assert not won([here], "ours", [])


def test_a_begun_mark_holds_for_the_lease() -> None:
    one = Ready(Source(TOPICS[0], 3, 42), 5, b"ann", b"{}")
    held = LetterTopic(marks={one.source: [mark(begun_ms=1000), mark(run="b", begun_ms=5000)]})

    with pytest.raises(DeadLetterError, match=r"try again in 1 s\."):
        check_lease([one], held, 5000 + LEASE_MS - 1)
    check_lease([one], held, 5000 + LEASE_MS)
    check_lease([], held, 0)
