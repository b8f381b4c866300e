"""Rows made from the events of a file, by the transition that the worker runs.

No clock, no Kafka. Users are moved in groups: a row depends on its own events alone, and many rows
at once cost each of them least. Where rows expire, a group is a partition, whose events say when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from model.checkpoint import Checkpoint
from model.events import EventBatch, Source
from model.prediction import event_cuts
from model.state import StateBatch, new_rows, opaque, pack
from model.transition import moved_rows
from stream_app.history import History
from stream_app.lane.merge import NEVER
from stream_app.lane.stored_rows import begin_anew
from stream_app.lane.sweep import swept_after

Ints = npt.NDArray[np.int64]

GROUP_USERS = 4096
"""Whose rows stay in the processor's caches."""
BATCH_STEPS = 250_000


@dataclass(frozen=True)
class MadeRows:
    """Rows of R users, with all their events applied.

    partition   (R,)
    keys        user ids, as they are keyed
    values      rows as they are stored
    events      events that are in them or that expired with an older row
    repeats     events that were recognised as applied before
    """

    partition: Ints
    keys: list[bytes]
    values: list[bytes]
    events: int
    repeats: int


def make_rows(
    history: History,
    checkpoint: Checkpoint,
    partitions: int,
    max_batch_events: int,
    progress: Callable[[int], None] = lambda events: None,
) -> Iterator[MadeRows]:
    """The rows of all users, a group of users at a time; those that have expired are left out.

    Args:
        history: the events.
        checkpoint: the model, with the worker's settings of what is emitted and what expires.
        partitions: partition count of the input topics.
        max_batch_events: of a worker. Rows expire between two batches, so where that matters the
            file is cut as a worker would cut it that has all events at hand.
        progress: told the number of events applied so far.
    """
    ttl_s = checkpoint.state_ttl_s
    group = history.partition if ttl_s is not None else _groups(history)
    group_of_step = group[history.steps.user]
    order = np.argsort(group_of_step, kind="stable")
    ends = np.cumsum(np.bincount(group_of_step)).tolist()
    done = 0

    def applied(events: int) -> None:
        nonlocal done
        done += events
        progress(done)

    for start, end in zip([0, *ends], ends, strict=False):
        if start == end:
            continue
        steps = history.steps.take(order[start:end])
        user, number = np.unique(steps.user, return_inverse=True)
        steps = replace(steps, user=number)
        source = Source(partitions=partitions)
        if ttl_s is None:
            rows, repeats = _move(steps, len(user), source, checkpoint, applied)
        else:
            rows, repeats = _move_and_expire(
                steps, len(user), source, checkpoint, 1000 * ttl_s, max_batch_events, applied
            )
            user, rows = user[rows["events"] > 0], rows[rows["events"] > 0]
        yield MadeRows(
            partition=history.partition[user],
            keys=[history.users[index].encode() for index in user.tolist()],
            values=pack(rows),
            events=int(steps.last_line.sum()),
            repeats=repeats,
        )


def _groups(history: History) -> Ints:
    """(U,) the group of each user: those with about as many steps stand together.

    A group takes as many rounds of the transition as the longest history in it has steps.
    """
    steps = np.bincount(history.steps.user, minlength=len(history.users))
    by_steps = np.argsort(steps, kind="stable")
    rank = np.arange(len(by_steps)) // GROUP_USERS
    size = np.cumsum(steps[by_steps]) // BATCH_STEPS
    group = np.empty(len(by_steps), dtype=np.int64)
    group[by_steps] = np.unique(rank + size, return_inverse=True)[1]
    return group


def _move(
    steps: EventBatch,
    users: int,
    source: Source,
    checkpoint: Checkpoint,
    applied: Callable[[int], None],
) -> tuple[StateBatch, int]:
    """New rows moved by the steps, and how many events were repeats."""
    rows, repeats = new_rows(users, checkpoint.hidden), 0
    for start, end in event_cuts(steps, BATCH_STEPS):
        part = steps.take(slice(start, end))
        rows, duplicate = moved_rows(rows, part, source, checkpoint)
        repeats += int(duplicate[part.last_line].sum())
        applied(int(part.last_line.sum()))
    return rows, repeats


def _move_and_expire(
    steps: EventBatch,
    users: int,
    source: Source,
    checkpoint: Checkpoint,
    ttl_ms: int,
    max_batch_events: int,
    applied: Callable[[int], None],
) -> tuple[StateBatch, int]:
    """The same for the steps of one partition, rows expiring between two batches."""
    whole, repeats = new_rows(users, checkpoint.hidden), 0
    rows = opaque(whole)
    latest_ms = swept_ms = NEVER
    heads = np.append(np.flatnonzero(steps.line == 0), len(steps))
    cuts = [*heads[:-1:max_batch_events].tolist(), len(steps)]
    for start, end in pairwise(cuts):
        part = steps.take(slice(start, end))
        user, number = np.unique(part.user, return_inverse=True)
        begun = rows[user].view(whole.dtype)
        begin_anew(begun, swept_ms, checkpoint.hidden)
        moved, duplicate = moved_rows(begun, replace(part, user=number), source, checkpoint)
        rows[user] = opaque(moved)
        repeats += int(duplicate[part.last_line].sum())
        latest_ms = max(latest_ms, int(part.time_ms.max()))
        swept_ms = swept_after(latest_ms, ttl_ms, swept_ms)
        applied(int(part.last_line.sum()))
    begin_anew(whole, swept_ms, checkpoint.hidden)
    return whole, repeats
