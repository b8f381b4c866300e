"""What the demo's run is worth: against the planted changes and against popularity."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from model.event_log import EventLog
from stream_app.demo.observer import Given
from stream_app.events import Drift

DAY_MS = 86_400_000
TOP_CATEGORIES = 5
FOUND_WITHIN_EVENTS = 50


@dataclass(frozen=True)
class PlantedChange:
    """A change of interest that the simulator made; event_index counts the user's events."""

    user_id: str
    time_ms: int
    event_index: int


@dataclass(frozen=True)
class DriftFigures:
    """Alarms against the planted changes that lie within the replayed part of the log.

    found          changes followed by an alarm of their user within 50 events
    delay_events   median number of the user's events from the change to that alarm
    delay_days     the same in days
    false_alarms   alarms of users without a change before them
    """

    planted: int
    found: int
    delay_events: float | None
    delay_days: float | None
    alarms: int
    false_alarms: int


def judge_drift(
    drifts: Iterable[Drift], planted: Iterable[PlantedChange], log: EventLog
) -> DriftFigures:
    """Drift events against the planted truth; ``log`` holds the rows that were replayed."""
    times = _event_times(log)
    changes = {
        change.user_id: change
        for change in planted
        if change.event_index < len(times.get(change.user_id, ()))
    }
    alarms: dict[str, list[int]] = defaultdict(list)
    for drift in drifts:
        alarms[drift.user_id].append(drift.timestamp)
    delays_events, delays_ms = [], []
    false_alarms = 0
    for user, raised in alarms.items():
        change = changes.get(user)
        after = sorted(t for t in raised if change is not None and t >= change.time_ms)
        false_alarms += len(raised) - len(after)
        if change is not None and after:
            delay = int(np.searchsorted(times[user], after[0], "right")) - change.event_index
            if delay <= FOUND_WITHIN_EVENTS:
                delays_events.append(delay)
                delays_ms.append(after[0] - change.time_ms)
    return DriftFigures(
        planted=len(changes),
        found=len(delays_events),
        delay_events=float(np.median(delays_events)) if delays_events else None,
        delay_days=float(np.median(delays_ms)) / DAY_MS if delays_ms else None,
        alarms=sum(len(raised) for raised in alarms.values()),
        false_alarms=false_alarms,
    )


def _event_times(log: EventLog) -> dict[str, np.ndarray]:
    """Times of each user's events in replay order."""
    first = np.r_[True, log.event[1:] != log.event[:-1]] if len(log) else np.zeros(0, bool)
    found: dict[str, list[int]] = defaultdict(list)
    for user, time_ms in zip(log.user[first].tolist(), log.time_ms[first].tolist(), strict=True):
        found[log.users[user]].append(time_ms)
    return {user: np.array(times) for user, times in found.items()}


@dataclass(frozen=True)
class HitRates:
    """How often the user's next item, or next category, is on a list.

    Of the events after the training period that follow a recommendation; the popular lists hold
    what was most frequent in the training period.
    """

    cases: int
    items: float | None
    items_popular: float | None
    categories: float | None
    categories_popular: float | None


def judge_lists(
    given: Iterable[Given],
    places: Mapping[tuple[str, int], list[int]],
    log: EventLog,
    cutoff_ms: int,
    k: int,
) -> HitRates:
    """Recommendations against what the user did next.

    places  per (topic, partition), the log row of each offset
    k       length of the lists
    """
    following = _next_row_with_item(log)
    before = log.time_ms < cutoff_ms
    popular_items = set(_most_frequent(log.items, log.item[before], k))
    popular_categories = set(_most_frequent(log.categories, log.category[before], TOP_CATEGORIES))
    hits = np.zeros(4)
    cases = 0
    for one in given:
        topic, partition, offset = one.source
        rows = places.get((topic, partition), [])
        row = rows[offset] if offset < len(rows) else -1
        if row < 0 or log.time_ms[row] < cutoff_ms or following[row] < 0:
            continue
        item = log.items[log.item[following[row]]]
        code = int(log.category[following[row]])
        category = log.categories[code] if code >= 0 else None
        cases += 1
        hits += (
            item in one.items[:k],
            item in popular_items,
            category in one.categories[:TOP_CATEGORIES],
            category in popular_categories,
        )
    rates = [round(float(hit) / cases, 4) for hit in hits] if cases else [None] * 4
    return HitRates(cases, *rates)


def _next_row_with_item(log: EventLog) -> np.ndarray:
    """For each row, the user's next row that has an item and is of another event; -1 for none."""
    following = np.full(len(log), -1)
    upcoming: dict[int, tuple[int, int, int]] = {}  # user -> (row, its event, row after the event)
    for row in range(len(log) - 1, -1, -1):
        user, event = int(log.user[row]), int(log.event[row])
        head, of_event, beyond = upcoming.get(user, (-1, -1, -1))
        following[row] = beyond if of_event == event else head
        if log.item[row] >= 0:
            upcoming[user] = (row, event, beyond if of_event == event else head)
    return following


def _most_frequent(names: list[str], codes: np.ndarray, k: int) -> list[str]:
    count = np.bincount(codes[codes >= 0], minlength=len(names))
    order = np.argsort(-count, kind="stable")[:k]
    return [names[i] for i in order.tolist() if count[i] > 0]
