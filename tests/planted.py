"""Drift alarms against the changes that the simulator planted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.event_log import EventLog

DAY_MS = 86_400_000
DRIFT_WITHIN = (10, 20, 50)


@dataclass(frozen=True)
class DriftReport:
    """Alarms against planted changes.

    recall, chance          within so many events: found, and found by alarms at random moments
    delay_events            median events from a change to the first alarm within 50
    right_to                share of found changes whose ``to`` is among the categories that came
    false_per_1000_30d      alarms per 1,000 users and 30 days of users without a change
    """

    changes: int
    alarms: int
    recall: dict[int, float]
    chance: dict[int, float]
    delay_events: float
    right_to: float
    false_per_1000_30d: float


def evaluate_drift(alarms: pa.Table, truth: pa.Table, log: EventLog) -> DriftReport:
    """Scores a ``drift`` table against the truth that the simulator wrote."""
    by_user: dict[str, list[tuple[int, str | None]]] = {}
    for user, index, to in zip(
        alarms["user_id"].to_pylist(),
        alarms["event_index"].to_pylist(),
        alarms["to"].to_pylist(),
        strict=True,
    ):
        by_user.setdefault(user, []).append((index, to))
    planted = truth.to_pylist()
    delays: list[int] = []
    right = 0
    for change in planted:
        after = [(i - change["event_index"], to) for i, to in by_user.get(change["user_id"], [])]
        after = [(delay, to) for delay, to in after if 0 <= delay <= max(DRIFT_WITHIN)]
        if after:
            delays.append(after[0][0])
            right += after[0][1] in change["to_categories"]
    changed = {change["user_id"] for change in planted}
    days, events, false = _quiet_users(log, changed, by_user)
    rate = false / max(events, 1)
    changes = max(len(planted), 1)
    return DriftReport(
        changes=len(planted),
        alarms=alarms.num_rows,
        recall={n: sum(d <= n for d in delays) / changes for n in DRIFT_WITHIN},
        chance={n: 1 - (1 - rate) ** (n + 1) for n in DRIFT_WITHIN},
        delay_events=float(np.median(delays)) if delays else float("nan"),
        right_to=right / max(len(delays), 1),
        false_per_1000_30d=false / max(days, 1e-9) * 30_000,
    )


def _quiet_users(
    log: EventLog, changed: set[str], alarms: dict[str, list[tuple[int, str | None]]]
) -> tuple[float, int, int]:
    """(days between first and last event, events, alarms) of the users without a change."""
    days, events, false = 0.0, 0, 0
    order = np.argsort(log.user, kind="stable")
    starts = np.searchsorted(log.user[order], np.arange(len(log.users) + 1))
    for code, name in enumerate(log.users):
        if name in changed:
            continue
        rows = order[starts[code] : starts[code + 1]]
        if len(rows):
            days += float(np.ptp(log.time_ms[rows])) / DAY_MS
            events += len(np.unique(log.event[rows]))
            false += len(alarms.get(name, []))
    return days, events, false
