"""The commands `dead-letters list`, `show` and `redrive`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import Annotated, Any

import typer
from rich.table import Column, Table
from rich.text import Text

from stream_app.dead_letters import Letter, parse_place, place_of
from stream_app.errors import DeadLetterError
from stream_app.events import Reason, Source
from stream_app.letter_records import follow, source_record
from stream_app.letter_topic import LetterTopic, read_letter_topic
from stream_app.redrive import Choice, Report, redrive
from stream_app.settings import Settings
from stream_app.terminal import console, output, printable, stages
from stream_app.times import format_time, parse_time

SHOWN_BYTES = 4096

letters_app = typer.Typer(
    no_args_is_help=True, help="Look at records that were refused, and send them again."
)
ReasonOption = Annotated[Reason | None, typer.Option(help="Only letters with this reason.")]


@letters_app.command("list")
def list_command(
    reason: ReasonOption = None,
    since: Annotated[str | None, typer.Option(help="Only letters written since then.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show the latest ones, this many.")] = 50,
    pending: Annotated[
        bool, typer.Option("--pending", help="Leave out letters that were re-driven.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Count the dead letters by reason, and show the latest. Names no user."""
    since_ms = 0 if since is None else parse_time(since)

    def select(letter: Letter) -> bool:
        return letter.written_ms >= since_ms and reason in (None, letter.reason)

    with stages() as progress:
        held = read_letter_topic(
            Settings(),
            select,
            with_values=False,
            progress=lambda done, total: progress("Reading letters", done, total),
        )
    letters = sorted(held.letters.values(), key=lambda letter: letter.written_ms)
    if pending:
        letters = [letter for letter in letters if held.sent(letter.source) is None]
    reasons = Counter(letter.reason for letter in letters).most_common()
    shown = [_line(letter, held) for letter in letters[-limit:]]
    if as_json:
        found = {"reasons": dict(reasons), "letters": shown, "passed_over": held.passed_over}
        output.print_json(json.dumps(found))
    else:
        _print_list(reasons, shown)
        if held.passed_over:
            console.print(f"{held.passed_over:,} records there are no letters of this version.")


def _line(letter: Letter, held: LetterTopic) -> dict[str, Any]:
    mark = held.sent(letter.source)
    return {
        "place": place_of(letter.source),
        "time": format_time(letter.written_ms),
        "reason": letter.reason,
        "message": letter.message,
        "redriven_to": place_of(mark.sent) if mark and mark.sent else None,
    }


def _print_list(reasons: list[tuple[str, int]], shown: list[dict[str, Any]]) -> None:
    counts = Table("reason", "letters")
    for name, count in reasons:
        counts.add_row(Text(printable(name)), f"{count:,}")
    output.print(counts)
    table = Table(Column("place", overflow="fold"), "time", "reason", "message", "re-driven to")
    for line in shown:
        table.add_row(*(Text(printable(cell or "")) for cell in line.values()))
    output.print(table)


@letters_app.command("show")
def show_command(
    place: Annotated[str, typer.Argument(help="As list names it: topic:partition:offset.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the value's exact bytes and nothing else.")
    ] = False,
) -> None:
    """Show everything about one dead letter, with its user and its value."""
    source, settings = parse_place(place), Settings()
    held = read_letter_topic(settings, lambda letter: letter.source == source)
    if source not in held.letters:
        raise DeadLetterError(f"There is no dead letter {place}; see dead-letters list.")
    letter = held.letters[source]
    if raw:
        value = follow(settings, letter)
        if value is None:
            raise DeadLetterError("The record had no value; leave --raw out to see the rest.")
        sys.stdout.buffer.write(value)
        return
    for name, text in _facts(letter, held):
        output.print(f"{name}: {text}", markup=False, highlight=False, soft_wrap=True)
    try:
        value = follow(settings, letter)
        shown = "the record had none" if value is None else readable(value)
    except DeadLetterError as error:
        shown = str(error)
    output.print(f"value: {shown}", markup=False, highlight=False, soft_wrap=True)
    known = {*settings.input_topics, *settings.adapters}
    if letter.source.topic not in known or not source_record(settings, source):
        output.print("The source record is gone.")


def _facts(letter: Letter, held: LetterTopic) -> list[tuple[str, str]]:
    mark = held.sent(letter.source)
    begun = bool(held.marks.get(letter.source))
    facts = [
        ("place", place_of(letter.source)),
        ("written", format_time(letter.written_ms)),
        ("message", printable(letter.message)),
    ]
    facts += [(f"header {printable(name)}", readable(value)) for name, value in letter.headers]
    if mark and mark.sent:
        facts.append(("re-driven to", place_of(mark.sent)))
    elif begun:
        facts.append(("re-driven", "begun and broken off, or under way"))
    if letter.pointer is not None:
        facts.append(("size", f"{letter.pointer.size_bytes:,} bytes"))
        facts.append(("sha256", printable(letter.pointer.sha256)))
    return facts


def readable(value: bytes) -> str:
    """Bytes as text where they are UTF-8, else in hexadecimal; cut after `SHOWN_BYTES`."""
    left = len(value) - SHOWN_BYTES
    more = f" … and {left:,} bytes more, see --raw" if left > 0 else ""
    part = value[:SHOWN_BYTES]
    try:
        value.decode()
    except UnicodeDecodeError:
        return f"0x{part.hex()}{more}"
    return f"{printable(part.decode('utf-8', 'ignore'))}{more}"


@letters_app.command("redrive")
def redrive_command(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="PLACE", help="These letters; all if none.")
    ] = None,
    reason: ReasonOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent and what refused.")
    ] = False,
) -> None:
    """Send dead letters to their input topics again, each of them once.

    A letter stays when the worker would refuse it again; then the exit code is 1.
    """
    chosen: frozenset[Source] = frozenset(map(parse_place, places or ()))
    choice = Choice(None if reason is None else str(reason), chosen, limit)
    with stages() as progress:
        report = redrive(
            Settings(), choice, lambda: int(time.time() * 1000), dry_run, progress=progress
        )
    _print_report(report, dry_run)
    if report.refused:
        raise typer.Exit(1)


def _print_report(report: Report, dry_run: bool) -> None:
    lines = [
        f"{place_of(source)}: {'would be sent' if at is None else f'sent to {place_of(at)}'}."
        for source, at in report.sent
    ]
    lines += [f"{place_of(s)}: was sent before, to {place_of(at)}." for s, at in report.before]
    lines += [f"{place_of(source)}: refused. {printable(why)}" for source, why in report.refused]
    for line in lines:
        output.print(line, markup=False, highlight=False, soft_wrap=True)
    sent = "would be sent" if dry_run else "sent"
    console.print(
        f"{len(report.sent):,} {sent}, {len(report.before):,} sent before, "
        f"{len(report.refused):,} refused."
    )
