"""Replays the input topics themselves: a worker starts at a time in them and ends where told.

Either into rows of another application id, beside the present ones, or on top of the present ones.
The worker is a process of its own and is given the offsets at which it ends, so that what arrives
meanwhile is left to the workers that follow.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kafka import KafkaProducer, TopicPartition

from stream_app import topics
from stream_app.admin import BROKER_TIMEOUT_S, asking
from stream_app.demo.processes import WorkerProcess
from stream_app.errors import TopicError, UsageError
from stream_app.group_offsets import Offsets, committed, set_offsets
from stream_app.lane.history_mark import MARK_KEY
from stream_app.lane.reading import read_records
from stream_app.lane.stored_rows import CARRIED_OVER, decode_marker, encode_marker, is_marker
from stream_app.log_range import Span, find_spans
from stream_app.settings import Settings
from stream_app.times import format_time
from stream_app.verify import stored_values

LOOK_INTERVAL_S = 0.2
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Replay:
    """What is replayed, and by whom.

    settings   of the worker that replays
    spans      offsets per topic partition of the input topics
    before     what the group had committed before, None for new rows
    """

    settings: Settings
    spans: Mapping[TopicPartition, Span]
    before: Offsets | None

    @property
    def offsets(self) -> int:
        """Offsets to go through, all partitions together."""
        return sum(map(len, self.spans.values()))


def check_times(from_ms: int, to_ms: int | None, now_ms: int) -> None:
    """Refuse times between which there can be nothing.

    Raises:
        UsageError: a time lies in the future, or they are in the wrong order.
    """
    for name, moment in (("--from", from_ms), ("--to", to_ms)):
        if moment is not None and moment > now_ms:
            raise UsageError(
                f"{name} {format_time(moment)} lies in the future; name a time gone by."
            )
    if to_ms is not None and to_ms <= from_ms:
        raise UsageError(
            f"--to {format_time(to_ms)} is not after --from {format_time(from_ms)}; name a later "
            "time."
        )


def check_expiry(settings: Settings, from_ms: int, now_ms: int) -> None:
    """Refuse to go back on top of rows that may have expired: those have lost their offsets.

    Raises:
        UsageError: the time is longer ago than rows live.
    """
    ttl_s = settings.state_ttl_s
    if ttl_s is not None and from_ms < now_ms - 1000 * ttl_s:
        raise UsageError(
            f"Rows expire after {settings.state_ttl} and then no longer know what they have "
            f"applied, so events of {format_time(from_ms)} could be applied twice; name a later "
            "time, or make new rows with --as."
        )


def prepare(settings: Settings, from_ms: int, to_ms: int | None, app_id: str | None) -> Replay:
    """Set the offsets of the group to a time: of a new one beside the present, or the present one.

    Args:
        app_id: of new rows: its topics are made, those of its outputs among them, and what is left
            of users who were erased is carried over. None to replay on top of the present rows.

    Raises:
        UsageError: the group has members; of new rows, some are there already; of the present
            ones, nothing is committed or they may have expired; or the topics have no records in
            the range.
        BrokerError, TopicError: the broker does not do what is asked.
    """
    if app_id is None:
        check_expiry(settings, from_ms, int(time.time() * 1000))
    if settings.checkpoint is None:
        raise UsageError("No checkpoint is named; set INTEREST_CHECKPOINT to its directory.")
    if app_id == settings.app_id:
        raise UsageError(
            f"{app_id} has the present rows; name another application id with --as, or leave --as "
            "out to replay on top of them."
        )
    for finding in topics.check(settings):
        if finding.is_certain:
            raise TopicError(finding.sentence)
    with asking(settings):
        spans = find_spans(settings, from_ms, to_ms)
    if not any(map(len, spans.values())):
        before = "" if to_ms is None else f" and before {format_time(to_ms)}"
        raise UsageError(
            f"The input topics have no record from {format_time(from_ms)} on{before}; name other "
            "times."
        )
    work = _on_top(settings, spans) if app_id is None else _beside(settings, spans, app_id)
    set_offsets(work.settings, {place: span.start for place, span in work.spans.items()})
    return work


def _beside(settings: Settings, spans: Mapping[TopicPartition, Span], app_id: str) -> Replay:
    own = settings_beside(settings, app_id)
    topics.create(own)
    has_rows = any(
        read_records(own, own.changelog_topic, number) for number in range(own.partitions)
    )
    if has_rows or committed(own):
        raise UsageError(
            f"The application id {app_id} has been in use already; name another with --as."
        )
    _carry_markers_over(settings, own)
    return Replay(own, spans, None)


def _on_top(settings: Settings, spans: Mapping[TopicPartition, Span]) -> Replay:
    before = committed(settings)
    if not before:
        raise UsageError(
            f"The group {settings.app_id} has committed nothing, so there is nothing to replay on "
            "top of; start a worker, or name an application id with --as."
        )
    # Where the group has not come so far yet, nothing may be passed over.
    starts = {
        place: min(span.start, before.get(place, span.first)) for place, span in spans.items()
    }
    spans = {
        place: replace(span, start=starts[place], stop=max(span.stop, starts[place]))
        for place, span in spans.items()
    }
    return Replay(settings, spans, before)


def settings_beside(settings: Settings, app_id: str) -> Settings:
    """The settings under which new rows are made: outputs go to topics of their own.

    Raises:
        SettingsError: the application id is none.
    """
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    outputs = {name: f"{getattr(settings, name)}.{app_id}" for name in topics.OUTPUT_FIELDS}
    return Settings(**{**given, **outputs, "app_id": app_id})


def run(work: Replay, progress: Callable[[int, int], None]) -> bool:
    """Run a worker until it has come to the end of all spans; false when it was interrupted.

    Args:
        progress: told how many offsets are gone through, of how many.

    Raises:
        WorkerError: the worker ended before that.
    """
    names = ("app_id", *topics.OUTPUT_FIELDS)
    changed = {name: getattr(work.settings, name) for name in names}
    until: dict[str, list[int]] = {}
    for place, span in sorted(work.spans.items()):
        until.setdefault(place.topic, []).append(span.stop)
    with tempfile.TemporaryDirectory(prefix="interest-stream-replay-") as folder:
        file = Path(folder, "until.json")
        file.write_text(json.dumps(until), "utf-8")
        arguments = ("--until", str(file))
        worker = WorkerProcess(
            {**changed, "http_host": LOOPBACK}, Path(folder), arguments=arguments
        )
        try:
            while not _is_done(work, progress):
                worker.check_alive()
                time.sleep(LOOK_INTERVAL_S)
        except KeyboardInterrupt:
            return False
        finally:
            worker.stop()
    if work.before is not None:
        _go_on_from(work.settings, work.before)
    return True


def what_next(work: Replay, is_done: bool) -> str:
    """What to do after a replay, or after one that was interrupted."""
    app_id = work.settings.app_id
    if work.before is not None:
        how = "has ended" if is_done else "was interrupted, and workers go on with it"
        return f"The replay {how}; start the workers of {app_id} again."
    outputs = ", ".join(getattr(work.settings, name) for name in topics.OUTPUT_FIELDS)
    state = "are made" if is_done else "are made in part, as the replay was interrupted"
    return (
        f"The new rows {state}. To go on with them, start workers with INTEREST_APP_ID={app_id}, "
        f"then end the old ones; the outputs of the replay are in {outputs}."
    )


def _is_done(work: Replay, progress: Callable[[int, int], None]) -> bool:
    at = committed(work.settings)
    done = sum(
        min(max(at.get(place, 0) - span.start, 0), len(span)) for place, span in work.spans.items()
    )
    progress(done, work.offsets)
    return done == work.offsets


def _go_on_from(settings: Settings, before: Offsets) -> None:
    """Give the group back the offsets of before the replay, where they are further on."""
    reached = committed(settings)
    further = {place: at for place, at in before.items() if at > reached.get(place, 0)}
    if further:
        set_offsets(settings, further)


def _carry_markers_over(old: Settings, new: Settings) -> None:
    """Keep users who were erased from coming back with a replay of their events."""
    with asking(new):
        producer = KafkaProducer(**new.kafka_python(), acks="all")
        sent = []
        try:
            for number in range(new.partitions):
                for key, value in stored_values(old, number).items():
                    if is_marker(key) and key != MARK_KEY:
                        carried = encode_marker(replace(decode_marker(value), control=CARRIED_OVER))
                        sent.append(
                            producer.send(new.changelog_topic, carried, key, partition=number)
                        )
            producer.flush(BROKER_TIMEOUT_S)
            for future in sent:  # a refused record is an error here alone
                future.get(BROKER_TIMEOUT_S)
        finally:
            producer.close()
