"""The command `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from stream_app.errors import UsageError
from stream_app.settings import Settings
from stream_app.terminal import console, output, printable, stages
from stream_app.times import parse_time

if TYPE_CHECKING:
    from stream_app.verify_report import PartitionReport

HASH_DIGITS = 16


def verify_command(
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint directory.")] = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Replay records from then on, by Kafka timestamp.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Replay records before then.")] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write a report there.")] = None,
) -> None:
    """Compare the stored rows with the offline transition over the input topics.

    Users whose history is not replayed as a whole are counted as not covered. Exit code 1 when a
    row differs. Rows that a worker moves meanwhile differ, so let it come to rest.
    """
    from model.checkpoint import load
    from stream_app.lane.reading import read_records
    from stream_app.topics import partition_count
    from stream_app.verify import records_between
    from stream_app.verify_report import verify_partition

    settings = Settings()
    directory = checkpoint or settings.checkpoint
    if directory is None:
        raise UsageError("No checkpoint is named; give --checkpoint or set INTEREST_CHECKPOINT.")
    if partition is not None and partition >= settings.partitions:
        last = settings.partitions - 1
        raise UsageError(f"Partitions are numbered from 0 to {last}; name one of these.")
    between = [None if text is None else parse_time(text) for text in (from_, to)]
    read = read_records if between == [None, None] else records_between(*between)
    model = load(directory)
    partition_count(settings, settings.changelog_topic)  # says what is missing, at once
    numbers = range(settings.partitions) if partition is None else [partition]
    reports = []
    with stages() as progress:
        for done, number in enumerate(numbers):
            progress("Replaying partitions", done, len(numbers))
            reports.append(verify_partition(settings, model, number, read))
        progress("Replaying partitions", len(numbers), len(numbers))
    for report in reports:
        _print(report)
    if json_file is not None:
        _write(json_file, reports)
    equal = all(report.comparison.exact for report in reports)
    compared = sum(report.comparison.users for report in reports)
    missing = sum(report.comparison.not_covered for report in reports)
    console.print(
        f"{compared:,} users compared, {missing:,} not covered: "
        + ("all rows are equal." if equal else "rows differ.")
    )
    if not equal:
        raise typer.Exit(1)


def _print(report: PartitionReport) -> None:
    found = report.comparison
    hashes = [text[:HASH_DIGITS] for text in (found.stored_sha256, found.offline_sha256)]
    lines = [
        f"partition {report.partition}: {found.users:,} rows of {found.events:,} events, "
        f"stored {hashes[0]}, offline {hashes[1]}, "
        f"{len(found.differing):,} differ, {found.not_covered:,} not covered; "
        f"{report.events:,} events replayed, hidden states within {found.hidden_difference:.6f}"
    ]
    for one in report.explained:
        lines.append(f"  {printable(one.row.user)}: {one.place or 'place unknown'}. {one.reason}")
        lines += [
            f"    {field.name}: stored {field.stored}, offline {field.offline}"
            for field in one.row.fields
        ]
    left = len(found.differing) - len(report.explained)
    if left:
        lines.append(f"  and {left:,} users more, see --json")
    for line in lines:
        output.print(line, markup=False, highlight=False, soft_wrap=True)


def _write(file: Path, reports: list[PartitionReport]) -> None:
    from stream_app.comparison import HIDDEN_TOLERANCE

    equal = all(report.comparison.exact for report in reports)
    found = {
        "equal": equal,
        "hidden_tolerance": HIDDEN_TOLERANCE,
        "partitions": [report.as_json() for report in reports],
    }
    try:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    except OSError as error:
        raise UsageError(f"{str(file)!r} cannot be written ({error}); name another file.") from None
