"""Sends the events of a file to the input topics; interrupted, it goes on where it was.

Beside the file, `FILE.replay` says how many events are acknowledged, and how far the input topics
were then. Each record carries the file's digest and the number of its event in the header
`replayed-from`; who goes on reads the input topics from there on and leaves out what he finds, so
that nothing is sent twice, also after kill -9.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
from msgspec import Struct

from model.event_log import Columns, read_event_log
from stream_app import topics
from stream_app.broker import wait_until_ready
from stream_app.errors import UsageError
from stream_app.log_records import log_records
from stream_app.log_tail import last_offsets, read_tail
from stream_app.producing import EventProducer
from stream_app.settings import Settings

REPLAYED_FROM = "replayed-from"
CHUNK = 20_000
"""Events that are acknowledged together, and then noted; at a rate, those of a second at least."""
BROKER_TIMEOUT_S = 10.0

Progress = Callable[[str, int, int], None]


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """How far a file is sent.

    digest   of the events
    sent     events that are acknowledged, from the first on
    ends     per input topic, at most the offset that each partition's next record gets
    """

    digest: str
    topics: tuple[str, ...]
    sent: int
    ends: dict[str, list[int]]


@dataclass(frozen=True)
class Report:
    """What was sent.

    events    of the file, from the first to the last one acknowledged
    users     of the file
    before    events that an earlier call had sent
    is_done   false when it was interrupted
    is_noted  whether it stands beside the file where to go on
    """

    events: int
    users: int
    before: int
    is_done: bool
    is_noted: bool


def parse_columns(columns: str, types: str) -> Columns:
    """What a file calls its columns and event types, each as in `ours=theirs,ours=theirs`.

    Raises:
        UsageError: it is not of that form.
        EventLogError: a column or event type is none of ours.
    """
    return Columns(names=_pairs("--map", columns), types=_pairs("--types", types))


def _pairs(option: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in text.split(","):
        left, equals, right = (one.strip() for one in part.partition("="))
        if not part.strip():
            continue
        if not equals or not left or left in found:
            raise UsageError(f"{option} has {part!r}; write it like a=b,c=d, each name once.")
        found[left] = right
    return found


def state_file(path: Path) -> Path:
    """Where it stands how far a file is sent."""
    return path.with_name(f"{path.name}.replay")


def send_file(
    settings: Settings,
    path: Path,
    columns: Columns,
    rate: float | None = None,
    go_on: bool = False,
    progress: Progress = lambda what, done, total: None,
    chunk: int = CHUNK,
) -> Report:
    """Send the events of a file, and note beside it how far that is.

    Args:
        columns: what the file calls its columns and event types.
        rate: events a second, None for as fast as it goes.
        go_on: go on with what was interrupted; without it such a thing is refused.
        progress: called with (what, done, total).
        chunk: events that are noted together.

    Raises:
        UsageError: an earlier call was interrupted, or there is none to go on with.
        EventLogError: the file cannot be read.
        BrokerError, RecoveryError: events are not acknowledged, or topics cannot be read.
        TopicError: they are missing, or have another number of partitions than the settings.
    """
    log = read_event_log(path, columns)
    digest, total, users = log.digest()[:32], len(log.event_ids), len(log.users)
    state = _known(settings, path, digest, total, go_on)
    wait_until_ready(settings.kafka_python(), BROKER_TIMEOUT_S)
    topics.check_counts(settings)
    there: set[int] = set()
    if state is not None:
        starts = {
            (topic, n): at for topic, all_at in state.ends.items() for n, at in enumerate(all_at)
        }
        for tail in read_tail(settings, starts, {}):
            numbers = (_number(dict(one.headers).get(REPLAYED_FROM), digest) for one in tail)
            there.update(number for number in numbers if number >= state.sent)
    sent = 0 if state is None else state.sent
    before, is_noted = sent + len(there), state is not None
    producer = EventProducer(settings)
    try:
        records = enumerate(log_records(log))
        for _ in islice(records, sent):
            pass
        step = chunk if rate is None else max(1, min(chunk, int(rate)))
        began = time.monotonic()
        while some := list(islice(records, step)):
            # What is sent from here on stands behind these offsets.
            note = State(digest, settings.input_topics, sent, _ends(settings))
            is_noted = _write(path, note)
            for number, one in some:
                if number not in there:
                    producer.send(one, [(REPLAYED_FROM, f"{digest}:{number}".encode())])
            producer.wait()
            sent += len(some)
            progress(f"Sending {path.name}", sent, total)
            if rate is not None:
                time.sleep(max(0.0, began + producer.sent / rate - time.monotonic()))
        producer.close()
    except KeyboardInterrupt:
        producer.close()
        return Report(sent, users, before, is_done=False, is_noted=is_noted)
    except BaseException:
        producer.abandon()
        raise
    state_file(path).unlink(missing_ok=True)
    return Report(sent, users, before, is_done=True, is_noted=is_noted)


def what_was_sent(path: Path, report: Report) -> str:
    """What has been done, and what is to be done now."""
    earlier = f" ({report.before:,} of them before)" if report.before else ""
    if report.is_done:
        return f"Sent {report.events:,} events of {report.users:,} users{earlier}."
    if report.is_noted:
        return (
            f"Interrupted after {report.events:,} events{earlier}; the same command with "
            f"--continue goes on, as {state_file(path)} says."
        )
    if report.events == 0:
        return "Interrupted before anything was sent."
    return (
        f"Interrupted after {report.events:,} events; the folder of {path} cannot be written, so "
        "nothing says where to go on."
    )


def _known(settings: Settings, path: Path, digest: str, total: int, go_on: bool) -> State | None:
    """How far an earlier call came, None to begin."""
    file = state_file(path)
    try:
        state = msgspec.json.decode(file.read_bytes(), type=State)
    except FileNotFoundError:
        if go_on:
            raise UsageError(
                f"There is no {file}: sending {path} was not interrupted, or has come to its end; "
                "leave --continue out."
            ) from None
        return None
    except (OSError, msgspec.MsgspecError):
        raise UsageError(f"{file} cannot be read; delete it to begin over.") from None
    if not go_on:
        raise UsageError(
            f"Sending {path} was interrupted after {state.sent:,} of {total:,} events; go on with "
            f"--continue, or delete {file} to begin over."
        )
    counts = {len(ends) for ends in state.ends.values()}
    is_same = state.topics == settings.input_topics == tuple(state.ends)
    if state.digest != digest or not is_same or counts != {settings.partitions}:
        raise UsageError(
            f"{file} is of other events than those of {path}, or of other topics; go on with the "
            "same file, --map and settings, or delete it to begin over."
        )
    return state


def _number(header: bytes | None, digest: str) -> int:
    """The number of the event that a record of this file has; -1 for others."""
    of, _, number = (header or b"").partition(b":")
    return int(number) if of == digest.encode() and number.isdigit() else -1


def _ends(settings: Settings) -> dict[str, list[int]]:
    found = last_offsets(
        settings,
        [(topic, n) for topic in settings.input_topics for n in range(settings.partitions)],
    )
    return {
        topic: [found[topic, n] for n in range(settings.partitions)]
        for topic in settings.input_topics
    }


def _write(path: Path, state: State) -> bool:
    """Note how far the file is sent; false where that cannot be written."""
    file = state_file(path)
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_bytes(msgspec.json.encode(state))
        new.replace(file)
    except OSError:
        return False
    return True
