"""Starts an application id with a history: rows from a file, published as its changelog."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from model.checkpoint import load
from model.event_log import AS_THEY_ARE, Columns
from model.learning import Progress
from stream_app.errors import UsageError
from stream_app.history import read_history
from stream_app.history_publishing import complete, look, publish
from stream_app.history_rows import MadeRows, make_rows
from stream_app.settings import Settings
from stream_app.verify import with_worker_settings


@dataclass(frozen=True)
class Report:
    """What a back-fill has done.

    events       events of the file that were applied, or expired with an older row
    repeats      further events, recognised as applied before
    users        users of the file
    rows         rows that were published; the other users have expired
    seconds      from the first byte read to the last acknowledgement
    has_inputs   whether the input topics have records, which workers apply on top
    is_done      false when it was interrupted
    is_begun     whether anything was published
    is_resumed   whether the rows of an earlier call were there already, so that no file was read
    """

    events: int = 0
    repeats: int = 0
    users: int = 0
    rows: int = 0
    seconds: float = 0.0
    has_inputs: bool = False
    is_done: bool = False
    is_begun: bool = False
    is_resumed: bool = False


def back_fill(
    settings: Settings, path: Path, progress: Progress, columns: Columns = AS_THEY_ARE
) -> Report:
    """Make rows of the events in a file and publish them as the changelog of the application id.

    Args:
        settings: of the workers to come.
        path: the event log, see `model.event_log`.
        progress: called with (what, done, total).
        columns: what the file calls its columns and event types.

    Raises:
        UsageError: no checkpoint is named, the application id has rows, or its workers run.
        EventLogError, CheckpointError: a file cannot be used.
        TopicError, BrokerError, RecoveryError: the topics or the broker do not let it.
    """
    if settings.checkpoint is None:
        raise UsageError("No checkpoint is named; set INTEREST_CHECKPOINT to its directory.")
    report = Report()
    try:
        progress("Looking at the topics", 0, 1)
        ground = look(settings)
        progress("Looking at the topics", 1, 1)
        report = replace(report, has_inputs=ground.has_inputs)
        if ground.is_published:
            complete(settings, ground)
            return replace(report, is_done=True, is_resumed=True)
        checkpoint = with_worker_settings(load(settings.checkpoint), settings)
        torch.set_num_threads(1)  # as the worker does; the broker takes the other processors
        began = time.monotonic()
        progress("Reading the file", 0, 1)
        latest_ms = int(time.time() * 1000) + settings.future_allowance_ms
        history = read_history(path, settings.partitions, checkpoint.vocabulary, latest_ms, columns)
        progress("Reading the file", 1, 1)
        events, users = history.events, len(history.users)

        def made() -> Iterator[MadeRows]:
            nonlocal report
            for part in make_rows(
                history,
                checkpoint,
                settings.partitions,
                settings.max_batch_events,
                lambda done: progress("Applying events", done, events),
            ):
                yield part
                report = replace(report, repeats=report.repeats + part.repeats)

        report = replace(report, users=users, is_begun=True)
        rows = publish(settings, ground, made(), lambda n: progress("Publishing rows", n, users))
    except KeyboardInterrupt:
        return report
    return replace(
        report,
        events=events - report.repeats,
        rows=rows,
        seconds=time.monotonic() - began,
        is_done=True,
    )


def what_next(settings: Settings, report: Report) -> str:
    """What has been done, and what is to be done now."""
    app_id, topic = settings.app_id, settings.changelog_topic
    if not report.is_done:
        state = (
            "with rows published in part, with which no worker starts"
            if report.is_begun
            else "before anything was published"
        )
        return f"The back-fill was interrupted {state}; run the command again, it begins over."
    on_top = "which apply the input topics from the offsets of the group on, or from their start"
    if report.has_inputs:
        on_top += " (they have records already, which must not be those of the file)"
    start = f"Now start the workers of {app_id}, {on_top}."
    if report.is_resumed:
        return (
            "An earlier back-fill was interrupted after its last row was published, and is "
            f"complete now; the file was not read. {start}"
        )
    expired = report.users - report.rows
    return (
        f"Published {report.rows:,} rows to {topic}, of {report.events:,} events"
        + (f" ({report.repeats:,} repeats left out)" if report.repeats else "")
        + (f"; {expired:,} users have expired" if expired else "")
        + f": {report.seconds:,.1f} s, {report.events / report.seconds:,.0f} events/s. {start}"
    )
