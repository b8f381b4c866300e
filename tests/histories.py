"""Event logs for tests of what is made of files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from model.event_log import EventLog, event_log

START_MS = 1_750_000_000_000
DAY_MS = 86_400_000
USERS = ("ann", "bob", 'q"uote', "new\nline", "nul\0", "ümlaut", "名前", "🦊", " ", "x" * 256)
"""Ids of all kinds; more users are u10, u11, ..."""
COLUMNS = (
    "user_id",
    "event_type",
    "action",
    "item_id",
    "category",
    "query",
    "event_id",
    "timestamp",
)


def history_table(
    seed: int,
    events: int,
    users: int = 10,
    items: int = 40,
    categories: int = 6,
    step_ms: int = 1000,
    start: int = 0,
) -> pa.Table:
    """A log with all that makes the order matter: times that are equal or go back, repeated ids.

    Items and categories are named as those of ``tiny_checkpoint``; a few are unknown to it. Events
    are numbered from ``start`` on, so that two tables go on with one history.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    ids: list[list[str]] = [[] for _ in range(users)]
    for number in range(start, start + events):
        kind = rng.choice(["click", "search", "purchase"], p=[0.7, 0.15, 0.15])
        user = int(rng.integers(users))
        again = bool(ids[user]) and rng.random() < 0.05
        event_id = ids[user][-1] if again else f"event-{number}"
        ids[user].append(event_id)
        late_ms = int(rng.integers(30)) * step_ms if rng.random() < 0.1 else 0
        row = {
            "user_id": USERS[user] if user < len(USERS) else f"u{user}",
            "timestamp": START_MS + number // 3 * 3 * step_ms - late_ms,
            "event_type": kind,
            "event_id": event_id,
            "category": f"category-{rng.integers(categories + 1)}",
        }
        if kind == "search":
            rows.append({**row, "query": f"blue shoes {rng.integers(5)}", "item_id": "item-1"})
        elif kind == "click":
            action = str(rng.choice(["view", "cart", "favourite"]))
            rows.append({**row, "action": action, "item_id": f"item-{rng.integers(items + 5)}"})
        else:
            for _ in range(int(rng.integers(1, 4))):
                rows.append({**row, "item_id": f"item-{rng.integers(items)}", "query": "none"})
    return pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows])


def history_log(seed: int, events: int, **options: Any) -> EventLog:
    """The table as a log."""
    return event_log(history_table(seed, events, **options), "history")
