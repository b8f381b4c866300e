"""Rows right before events that were held out, and the item each event brought.

What fusion weights are learned from: rows come from the transition, so what holds for them holds
for the rows that the lane makes. Dimensions: R rows, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventBatch, Source
from model.state import StateBatch, new_rows
from model.transition import moved_rows


@dataclass(frozen=True)
class HeldLists:
    """R rows just before an event, the time of the list, and the event's first item."""

    rows: StateBatch
    now_ms: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)


def held_lists(
    checkpoint: Checkpoint, batch: EventBatch, held: np.ndarray, lists: int, seed: int = 0
) -> HeldLists:
    """At most ``lists`` of the events that ``held`` (N,) marks and that have an earlier one.

    They stand by user, and in order of time.
    """
    order = np.argsort(batch.user, kind="stable")
    user = batch.user[order]
    start = np.searchsorted(user, user)
    wanted = (held & (batch.item > 0) & (batch.line == 0))[order] & (np.arange(len(user)) > start)
    event = np.flatnonzero(wanted)
    if len(event) > lists:
        event = np.sort(np.random.default_rng(seed).choice(event, lists, replace=False))
    step = order[event]
    rows = rows_before(checkpoint, batch, step)
    return HeldLists(rows, rows["last_time_ms"], batch.item[step])


def rows_before(checkpoint: Checkpoint, batch: EventBatch, step: np.ndarray) -> StateBatch:
    """The user's row just before each of R steps of the batch, (R,)."""
    order = np.argsort(batch.user, kind="stable")
    place = np.empty(len(batch), np.int64)
    place[order] = np.arange(len(batch))
    index = np.argsort(place[step])
    event = place[step][index]  # ascending
    user = batch.user[order]
    users, number = np.unique(user[event], return_inverse=True)
    first = np.searchsorted(user, users)
    rows, reached = new_rows(len(users), checkpoint.hidden), first.copy()
    found = new_rows(len(step), checkpoint.hidden)
    while len(event):
        _, head = np.unique(number, return_index=True)  # the next event of each user
        now, of, into = event[head], number[head], index[head]
        event, number, index = (np.delete(each, head) for each in (event, number, index))
        length = now - reached[of]
        at = np.repeat(reached[of] - np.cumsum(length) + length, length) + np.arange(length.sum())
        between = batch.take(order[at])
        between = replace(between, user=np.repeat(of, length))
        rows, _ = moved_rows(rows, between, Source(), checkpoint)
        reached[of] = now
        found[into] = rows[of]
    return found
