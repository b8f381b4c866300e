"""Event batches for tests: random logs of clicks, searches and purchases as arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from model.checkpoint import Checkpoint
from model.events import QUERY_TOKENS, EventBatch, EventType, Kind, Source
from model.state import StateBatch, new_rows
from model.transition import Outputs, transition

START_MS = 1_700_000_000_000


def clicks(
    user: list[int],
    category: list[int],
    gap_s: int = 3600,
    item: list[int] | None = None,
    first_offset: int = 0,
) -> EventBatch:
    """Clicks one after the other, ``gap_s`` seconds apart, with ids from their offsets."""
    count = len(user)
    zero = np.zeros(count, np.int64)
    offset = np.arange(first_offset, first_offset + count)
    return EventBatch(
        user=np.array(user, np.int64),
        event_type=zero + EventType.CLICK,
        offset=offset,
        event_hash=(offset + 1).astype(np.uint64),
        time_ms=START_MS + offset * gap_s * 1000,
        kind=zero + Kind.VIEW,
        item=np.array(category if item is None else item, np.int64),
        category=np.array(category, np.int64),
        query=np.zeros((count, QUERY_TOKENS), np.int64),
        line=zero,
        last_line=np.ones(count, dtype=bool),
    )


def random_log(
    seed: int, events: int, users: int, checkpoint: Checkpoint, repeats: float = 0.0
) -> EventBatch:
    """A merged log of one partition: all three types, baskets, late times, and producer repeats.

    repeats is the share of events that carry the id of the user's event before.
    """
    rng = np.random.default_rng(seed)
    event_type = rng.choice(3, events, p=[0.7, 0.15, 0.15])
    lines = np.where(event_type == EventType.PURCHASE, rng.integers(1, 4, events), 1)
    of = np.repeat(np.arange(events), lines)  # event of each step
    count = len(of)
    line = np.arange(count) - np.repeat(np.cumsum(lines) - lines, lines)
    user = rng.integers(0, users, events)
    offset = np.zeros(events, np.int64)
    for kind in EventType:
        of_kind = event_type == kind
        offset[of_kind] = np.arange(of_kind.sum())
    ids = np.arange(1, events + 1).astype(np.uint64)
    last: dict[int, int] = {}
    for event in range(events):
        before = last.get(int(user[event]))
        if before is not None and rng.random() < repeats:
            ids[event] = ids[before]
        last[int(user[event])] = event
    time_ms = (
        START_MS + np.cumsum(rng.integers(0, 1_200_000, events)) - rng.integers(0, 5000, events)
    )
    vocabulary = checkpoint.vocabulary
    item = rng.integers(1, vocabulary.first_item_bucket, count)
    search = event_type[of] == EventType.SEARCH
    query = np.zeros((count, QUERY_TOKENS), np.int64)
    query[search, :3] = rng.integers(1, vocabulary.query_buckets, (int(search.sum()), 3))
    kinds = np.array([Kind.VIEW, Kind.SEARCH, Kind.PURCHASE])
    # half of a user's steps stay in two categories, so that counts and drift have something to do
    own = (user[of] * 7 + rng.integers(0, 2, count)) % (vocabulary.first_category_bucket - 1) + 1
    category = np.where(rng.random(count) < 0.5, own, checkpoint.statistics.item_category[item])
    return EventBatch(
        user=user[of],
        event_type=event_type[of].astype(np.int64),
        offset=offset[of],
        event_hash=ids[of],
        time_ms=time_ms[of],
        kind=kinds[event_type[of]].astype(np.int64),
        item=np.where(search, 0, item),
        category=np.where(search & (rng.random(count) < 0.5), 0, category),
        query=query,
        line=line,
        last_line=line == np.repeat(lines, lines) - 1,
    )


def run(
    log: EventBatch, users: int, checkpoint: Checkpoint, cuts: list[int]
) -> tuple[StateBatch, list[tuple[int, Outputs]]]:
    """Rows and outputs of a log cut before the steps ``cuts`` (moved to the next event's start).

    Each batch reads its own users only, as the lane does; outputs come with their first step.
    """
    rows = new_rows(users, checkpoint.hidden)
    starts = np.flatnonzero(log.line == 0)
    bounds = sorted(
        {int(starts[np.searchsorted(starts, cut)]) for cut in cuts if cut <= starts[-1]}
    )
    outputs = []
    for begin, end in zip([0, *bounds], [*bounds, len(log)], strict=True):
        batch = log.take(slice(begin, end))
        touched, index = np.unique(batch.user, return_inverse=True)
        moved, out = transition(rows[touched], replace(batch, user=index), Source(), checkpoint)
        rows[touched] = moved
        outputs.append((begin, out))
    return rows, outputs
