"""What is fed with wild bytes, by hypothesis in the unit tests and by tests/failures/fuzz.

Each function takes bytes that anybody may have written, and raises only when the program does what
it must not: another error than the one that is promised, or harm to what stands beside.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np

from model import checkpoint as checkpoints
from model.checkpoint import Checkpoint, save
from model.errors import CheckpointError, StateError
from model.events import EventBatch, EventType, Source
from model.state import StateBatch, new_rows, pack, unpack
from model.transition import Outputs, transition
from stream_app.errors import InvalidEvent, RecoveryError, StoreError
from stream_app.events import decode_batch, decode_event
from stream_app.lane import journal
from stream_app.lane.assemble import assemble
from stream_app.lane.compute import check_rows
from stream_app.outputs import encode
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import START_MS, random_log

TOPICS = ("clicks", "searches", "purchases")
NOW_MS = START_MS + 10**9
USERS = 3
VICTIM = 1
FILES = ("config.json", "vocabulary.json", "model.safetensors")
_ENDS = (10_000, 10_000, 10_000)


@cache
def small_checkpoint() -> Checkpoint:
    """A checkpoint that loads within milliseconds."""
    return tiny_checkpoint(items=12, categories=4, hidden=4, neighbours=3, top=3)


@dataclass(frozen=True)
class _Message:
    key: bytes | None
    value: bytes | None
    timestamp: int = NOW_MS
    headers: tuple[tuple[str, bytes | None], ...] = ()


def feed_event(event_type: EventType, value: bytes, key: bytes | None = None) -> None:
    """The wire decoder: an event that the lane can apply, or a reason; both ways agree."""
    if key is None:
        key = _user_of(value)
    options = {
        "partition": 0,
        "partitions": 1,
        "future_allowance_ms": 10**9,
        "max_value_bytes": 10**6,
    }
    good = _Message(b"ann", _good_click())
    records = (
        [_Message(key, value), good] if event_type == EventType.CLICK else [_Message(key, value)]
    )
    events, rejections = decode_batch(event_type, records, **options)
    refused: InvalidEvent | None = None
    try:
        decode_event(event_type, key, value, NOW_MS, **options)
    except InvalidEvent as error:
        refused = error
    reasons = [] if refused is None else [(0, refused.reason)]
    assert [(rejection.index, rejection.reason) for rejection in rejections] == reasons
    assert (events[0] is None) == (refused is not None)
    for rejection in rejections:
        rejection.message.encode()
    kept = [event for event in events if event is not None]
    if not kept:
        return
    checkpoint = small_checkpoint()
    kinds = np.full(len(kept), event_type, dtype=np.int64)
    made = assemble(kept, kinds, np.arange(len(kept)), checkpoint.vocabulary)
    rows = new_rows(len(made.users), checkpoint.hidden)
    moved, outputs = transition(rows, made.steps, Source(), checkpoint)
    encode(outputs, made.steps, made.users, made.item_id, 0, TOPICS, checkpoint)
    unpack(list(pack(moved)), checkpoint.hidden)


def _user_of(value: bytes) -> bytes:
    """The key that a right producer would give, so that the deeper checks are reached."""
    try:
        return str(json.loads(value)["user_id"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return b"ann"


def _good_click() -> bytes:
    event = {"event_id": "e", "user_id": "ann", "timestamp": START_MS, "item_id": "item-1"}
    return json.dumps(event).encode()


@cache
def _history() -> tuple[StateBatch, EventBatch]:
    """Rows of users with a past, and the events that come next."""
    checkpoint = small_checkpoint()
    log = random_log(5, 400, USERS, checkpoint)
    starts = np.flatnonzero(log.line == 0)
    cut = int(starts[360])
    rows, _ = transition(
        new_rows(USERS, checkpoint.hidden), log.take(slice(0, cut)), Source(), checkpoint
    )
    return rows, log.take(slice(cut, len(log)))


@cache
def _expected() -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    rows, log = _history()
    return _applied(rows, log)


def _applied(rows: StateBatch, log: EventBatch) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    checkpoint = small_checkpoint()
    moved, outputs = transition(rows, log, Source(), checkpoint)
    return pack(moved), _messages(outputs, log, checkpoint)


def _messages(
    outputs: Outputs, log: EventBatch, checkpoint: Checkpoint
) -> list[tuple[bytes, bytes]]:
    users = [f"user-{number}" for number in range(USERS)]
    made = encode(outputs, log, users, str, 0, TOPICS, checkpoint)
    return [*made.drift, *made.recommendations]


def a_row() -> bytes:
    """The stored row of the victim."""
    return pack(_history()[0])[VICTIM]


def feed_row(value: bytes) -> bool:
    """A stored row: refused with a sentence, or applied without harm to the users beside it.

    True when it was not refused.
    """
    rows, log = _history()
    stored: list[bytes | None] = [*pack(rows)]
    stored[VICTIM] = value
    try:
        states = unpack(stored, small_checkpoint().hidden)
        check_rows(states, Source(), _ENDS, TOPICS, 0)
        moved, messages = _applied(states, log)
    except (StateError, StoreError):
        return False
    rows_expected, messages_expected = _expected()
    name = f"user-{VICTIM}".encode()
    for user in range(USERS):
        assert user == VICTIM or moved[user] == rows_expected[user], "a row beside it has changed"
    assert [m for m in messages if m[0] != name] == [m for m in messages_expected if m[0] != name]
    for _, message in messages:
        json.loads(message, parse_constant=_refuse_constant)
    return True


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def feed_journal(value: bytes) -> None:
    """A journal entry: refused with a sentence, or one that can be written."""
    try:
        entry = journal.decode(value)
    except RecoveryError:
        return
    assert journal.decode(journal.encode(entry)) == entry
    assert len(entry) >= 0


@cache
def checkpoint_files() -> dict[str, bytes]:
    """The files of a checkpoint that is well."""
    with tempfile.TemporaryDirectory() as home:
        save(small_checkpoint(), home, "")
        return {name: (Path(home) / name).read_bytes() for name in FILES}


def feed_checkpoint(changed: Mapping[str, bytes], home: Path) -> bool:
    """A checkpoint directory: refused with a sentence, or one whose transition can be run.

    The version is taken as right: who writes the files can compute it. True when not refused.
    """
    for name, content in {**checkpoint_files(), **changed}.items():
        (home / name).write_bytes(content)
    version = _stated_version(home / "config.json")
    try:
        with mock.patch.object(checkpoints, "_digest", _signed(version)):
            checkpoint = checkpoints.load(home)
    except CheckpointError:
        return False
    log = random_log(3, 30, USERS, small_checkpoint())
    log = replace(
        log,
        item=np.minimum(log.item, checkpoint.vocabulary.items - 1),
        category=np.minimum(log.category, checkpoint.vocabulary.categories - 1),
        query=np.minimum(log.query, checkpoint.vocabulary.query_buckets - 1),
    )
    checkpoint = replace(checkpoint, recommend_every=3, top_k=5)
    moved, outputs = transition(new_rows(USERS, checkpoint.hidden), log, Source(), checkpoint)
    unpack(list(pack(moved)), checkpoint.hidden)
    # Pieces of messages are kept by version, which the change has left as it was.
    _messages(outputs, log, replace(checkpoint, version=f"{id(checkpoint)}"))
    return True


def _stated_version(path: Path) -> str:
    try:
        return str(json.loads(path.read_bytes())["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def _signed(version: str) -> Callable[[Checkpoint], str]:
    computed = checkpoints._digest

    def digest(checkpoint: Checkpoint) -> str:
        computed(checkpoint)
        return version.ljust(64, "0") if len(version) == 12 else "0" * 64

    return digest
