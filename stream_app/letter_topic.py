"""The dead-letter topic read as a whole: the letters that stand, and how far they are re-driven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from msgspec import Struct

from stream_app import topics
from stream_app.dead_letters import Headers, Letter, place_of, read_letter
from stream_app.events import Source
from stream_app.lane.reading import stream_records
from stream_app.settings import Settings

MARK_HEADER = "redrive"


class RedriveMark(Struct, frozen=True, gc=False, kw_only=True):
    """A record in the dead-letter topic beside a letter: it is being, or was, sent again.

    source         place of the refused record, which is the letter's key
    run            names the command that sends it
    begun_ms       when that began, epoch milliseconds
    partition      of the input topic, where it is sent to
    after_offset   the record gets this offset there or a higher one
    sent           where it stands; null until that is acknowledged
    """

    source: Source
    run: str
    begun_ms: int
    partition: int
    after_offset: int
    sent: Source | None = None

    def key(self) -> bytes:
        """Of its own, so that neither the letter nor another run's mark is compacted away."""
        return f"{MARK_HEADER}:{place_of(self.source)}:{self.run}".encode()

    def headers(self) -> Headers:
        """By which a consumer tells it from letters."""
        return [(MARK_HEADER, b"done" if self.sent else b"begun")]


_decode_mark = msgspec.json.Decoder(RedriveMark).decode


def read_mark(record: Any) -> RedriveMark | None:
    """The mark in a record of the dead-letter topic; None when the record is none."""
    if record.value is None or MARK_HEADER not in dict(record.headers):
        return None
    try:
        mark = _decode_mark(record.value)
    except msgspec.MsgspecError:
        return None
    return mark if record.key == mark.key() else None


@dataclass
class LetterTopic:
    """What the dead-letter topic holds.

    letters       the selected ones by their source, as they were written last; tombstoned ones are
                  left out
    marks         all marks by the source of their letter, in the order they were written
    passed_over   records that are neither letter nor mark, nor tombstone
    ends          per partition, the offset after the last record that was read
    """

    letters: dict[Source, Letter] = field(default_factory=dict)
    marks: dict[Source, list[RedriveMark]] = field(default_factory=dict)
    passed_over: int = 0
    ends: list[int] = field(default_factory=list)

    def sent(self, source: Source) -> RedriveMark | None:
        """The mark that says that a letter was re-driven."""
        return next((mark for mark in self.marks.get(source, ()) if mark.sent), None)


def read_letter_topic(
    settings: Settings,
    select: Callable[[Letter], bool],
    with_values: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LetterTopic:
    """Read the dead-letter topic from its beginning to its end.

    Args:
        select: the letters to keep; memory grows with those alone.
        with_values: false leaves their values out.
        progress: told partitions read, and how many there are.

    Raises:
        TopicError: the topic is missing.
        BrokerError, RecoveryError: it cannot be read.
    """
    held = LetterTopic()
    count = topics.partition_count(settings, settings.dead_letters_topic)
    for partition in range(count):
        progress(partition, count)
        end = 0
        letters: dict[bytes, Letter] = {}
        for record in stream_records(settings, settings.dead_letters_topic, partition):
            end = record.offset + 1
            if record.key is not None:
                letters.pop(record.key, None)
            letter, mark = read_letter(record), read_mark(record)
            if letter is not None and select(letter):
                letters[record.key] = letter if with_values else replace(letter, value=None)
            elif mark is not None:
                held.marks.setdefault(mark.source, []).append(mark)
            elif letter is None and record.value is not None:
                held.passed_over += 1
        held.letters.update({letter.source: letter for letter in letters.values()})
        held.ends.append(end)
    progress(count, count)
    return held
