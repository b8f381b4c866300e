"""Sends dead letters to their input topics again, each of them once.

    1. begun     a mark beside the letter says that it is going to be sent, and behind which offset
    2. sent      the record goes out, with the letter's place in the header `redriven-from`
    3. done      the mark says where the record stands

What breaks off after 1 leaves a mark that is begun and not done. The next command looks through the
input partition from that offset on for the letter's place: found, the letter is only marked; not
found, it is sent. Where the input topic has let go of records behind that offset, nobody can tell,
and the letter is refused.

Two commands at once: marks have an order in their partition. The one whose mark comes first goes
on, the other one ends before it sends. A begun mark counts as under way for `LEASE_MS`; what a
command sends is sent or given up in a quarter of that.

The worker knows nothing of this: to it a re-driven record is an event like any other, and it
recognises an id among the last 16 of the user's row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from kafka import TopicPartition

from stream_app import group_offsets, topics
from stream_app.dead_letters import Letter, place_of
from stream_app.errors import DeadLetterError
from stream_app.events import Source
from stream_app.lane.reading import bounds, stream_records
from stream_app.letter_records import Ready, Where, chunks, follow, in_order, prepare
from stream_app.letter_sender import LEASE_MS, REDRIVEN_FROM, LetterSender, producer
from stream_app.letter_topic import LetterTopic, read_letter_topic
from stream_app.settings import Settings

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Choice:
    """Which letters: of a reason or all, of these places or all, and how many are sent at most."""

    reason: str | None = None
    places: frozenset[Source] = frozenset()
    limit: int | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        of_reason = self.reason is None or letter.reason == self.reason
        return of_reason and (not self.places or letter.source in self.places)


@dataclass
class Report:
    """What became of the chosen letters, by the places of their sources.

    sent      sent now, and where the record stands; nowhere yet in a dry run
    before    sent by an earlier command, and where that record stands
    refused   why they cannot be sent; they stay as they are
    """

    sent: list[tuple[Source, Source | None]] = field(default_factory=list)
    before: list[tuple[Source, Source]] = field(default_factory=list)
    refused: list[tuple[Source, str]] = field(default_factory=list)


def redrive(
    settings: Settings,
    choice: Choice,
    now_ms: Callable[[], int],
    dry_run: bool = False,
    at_step: Callable[[str], None] = lambda name: None,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """Send the chosen letters to their input topics again, in the order of their sources.

    So events of a user keep their order within each source topic. Everything is read before
    anything is sent.

    Args:
        now_ms: the clock, epoch milliseconds.
        dry_run: writes nothing.
        at_step: told "before <step>" and "after <step>" of begun, sent and done; for tests.

    Raises:
        DeadLetterError: a chosen place has no letter, or another command is sending.
        BrokerError, RecoveryError, TopicError: topics cannot be read or written.
    """
    held = read_letter_topic(
        settings,
        choice.takes,
        progress=lambda done, total: progress("Reading letters", done, total),
    )
    unknown = sorted(place_of(place) for place in choice.places - held.letters.keys())
    if unknown:
        raise DeadLetterError(f"There is no dead letter {unknown[0]}; see dead-letters list.")
    topics.check_counts(settings)
    report = Report()
    pending: list[Letter] = []
    for letter in in_order(held.letters.values(), settings.input_topics):
        done = held.sent(letter.source)
        if done is not None and done.sent is not None:
            report.before.append((letter.source, done.sent))
        else:
            pending.append(letter)
    pending = _committed(settings, pending, report)
    # What stays does not count: a limit would never get past it.
    ready = list(islice(_prepared(settings, pending, now_ms(), report), choice.limit))
    unfinished = [one for one in ready if one.source in held.marks]
    check_lease(unfinished, held, now_ms())
    found = _look_for(settings, unfinished, held, report, progress)
    lost = {source for source, _ in report.refused}
    ready = [one for one in ready if one.source not in found and one.source not in lost]
    report.before += found.items()
    if dry_run:
        report.sent += [(one.source, None) for one in ready]
        return report
    if found or ready:
        with producer(settings) as client:
            sender = LetterSender(settings, held, client, now_ms, at_step)
            sender.mark_found(found, unfinished)
            for chunk in chunks(ready):
                report.sent += sender.send(chunk)
                progress("Sending letters", len(report.sent), len(ready))
    return report


def check_lease(unfinished: Sequence[Ready], held: LetterTopic, now_ms: int) -> None:
    """Refuse to go on while another command may still be sending one of these letters.

    Raises:
        DeadLetterError: with how long to wait.
    """
    begun = [mark.begun_ms for one in unfinished for mark in held.marks[one.source]]
    left_ms = max(begun, default=0) + LEASE_MS - now_ms
    if begun and left_ms > 0:
        raise DeadLetterError(
            "Another redrive is sending these letters, or was broken off a moment ago; try again "
            f"in {left_ms // 1000 + 1} s."
        )


def _committed(settings: Settings, letters: Iterable[Letter], report: Report) -> list[Letter]:
    """The letters whose source no worker reads again.

    A worker that reads it again may take it, under other settings, beside the record sent here.
    """
    committed = group_offsets.committed(settings)
    kept = []
    for letter in letters:
        source = letter.source
        if source.topic not in settings.input_topics:
            why = "It is an event of another product; send it, mended, to its own topic."
            report.refused.append((source, why))
        elif source.offset < committed.get(TopicPartition(source.topic, source.partition), 0):
            kept.append(letter)
        else:
            report.refused.append((source, "The workers have not committed its source yet."))
    return kept


def _prepared(
    settings: Settings, letters: Iterable[Letter], now_ms: int, report: Report
) -> Iterator[Ready]:
    for letter in letters:
        try:
            yield prepare(letter, follow(settings, letter), settings, now_ms)
        except DeadLetterError as error:
            report.refused.append((letter.source, str(error)))


def _look_for(
    settings: Settings,
    unfinished: Sequence[Ready],
    held: LetterTopic,
    report: Report,
    progress: Progress,
) -> dict[Source, Source]:
    """Where letters stand that were begun and, as it turns out, sent."""
    groups: dict[Where, dict[str, tuple[Source, int]]] = {}
    for one in unfinished:
        after = min(mark.after_offset for mark in held.marks[one.source])
        groups.setdefault(one.where, {})[place_of(one.source)] = (one.source, after)
    found: dict[Source, Source] = {}
    for number, ((topic, partition), wanted) in enumerate(groups.items()):
        progress("Looking for what was sent", number, len(groups))
        first, end = bounds(settings, topic, partition)
        for record in stream_records(
            settings, topic, partition, min(after for _, after in wanted.values())
        ):
            place = (dict(record.headers).get(REDRIVEN_FROM) or b"").decode("ascii", "replace")
            if place in wanted:
                found[wanted[place][0]] = Source(topic, partition, record.offset)
        report.refused += [
            (
                source,
                "It was begun and broken off, and the input topic no longer tells whether it "
                "was sent: its records of that time are gone.",
            )
            for source, after in wanted.values()
            if source not in found and not first <= after <= end
        ]
        progress("Looking for what was sent", number + 1, len(groups))
    return found
