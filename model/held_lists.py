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

    The order of the rows is no order of time.
    """
    order = np.argsort(batch.user, kind="stable")
    user = batch.user[order]
    start = np.searchsorted(user, user)
    wanted = (held & (batch.item > 0) & (batch.line == 0))[order] & (np.arange(len(user)) > start)
    event = np.flatnonzero(wanted)
    if len(event) > lists:
        event = np.sort(np.random.default_rng(seed).choice(event, lists, replace=False))
    users, number = np.unique(user[event], return_inverse=True)
    first = np.searchsorted(user, users)
    rows = new_rows(len(users), checkpoint.hidden)
    reached = first.copy()
    found, targets = [rows[:0]], [np.zeros(0, np.int64)]
    while len(event):
        _, head = np.unique(number, return_index=True)  # the next event of each user
        now, of = event[head], number[head]
        event, number = np.delete(event, head), np.delete(number, head)
        length = now - reached[of]
        at = np.repeat(reached[of] - np.cumsum(length) + length, length) + np.arange(length.sum())
        between = batch.take(order[at])
        between = replace(between, user=np.repeat(of, length))
        rows, _ = moved_rows(rows, between, Source(), checkpoint)
        reached[of] = now
        found.append(rows[of])
        targets.append(batch.item[order[now]])
    held_rows = np.concatenate(found)
    return HeldLists(held_rows, held_rows["last_time_ms"], np.concatenate(targets))
