"""Tables of the protocol ``drift``. S streams, U controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model.calibration import Alarms, run_length_interval
from model.checkpoint import DriftSettings
from model.evaluation.planting import KINDS, Planted
from model.evaluation.report import Cell, Figures
from model.metrics import Interval

WITHIN = (10, 20, 50)
"""Events after a change in which an alarm counts as its discovery."""
BOOTSTRAPS = 500


@dataclass(frozen=True)
class Judged:
    """What one test made of the planted streams and of the controls.

    delay          (S,) events from the change to the first alarm at or after it, NaN for none
    delay_days     (S,) the same in days
    other          (S,) alarms before the change, or more than 50 events after it
    left           (S,) events of the stream from the change on
    planted        alarms of the streams
    real, shuffled alarms of the controls as they are, and of shuffled copies
    copies         their number
    """

    delay: np.ndarray
    delay_days: np.ndarray
    other: np.ndarray
    left: np.ndarray
    planted: Alarms
    real: Alarms
    shuffled: Alarms
    copies: int


def tables(
    planted: Planted,
    judged: Mapping[str, Judged],
    stated: Mapping[str, DriftSettings],
    days: float,
) -> list[Figures]:
    """Recall, by way of changing, and false alarms; ``days`` are those of all controls together."""
    first = next(iter(judged))
    every = np.ones(len(planted.user), dtype=bool)
    recall = [_recall(name, planted, of.delay, of.delay_days, every) for name, of in judged.items()]
    for row, of in zip(recall, judged.values(), strict=True):
        row.append(f1(planted, of))
    none = [float("nan")] * 4
    main = judged[first]
    recall.append(
        ["chance", *[f"{chance(main, planted, n):.3f}" for n in WITHIN], *none, float("nan")]
    )
    regular, others = _regular(planted, main)
    recall.append(
        [
            f"an alarm every {every_events(main):,} events",
            *[f"{(regular <= n).mean():.3f}" for n in WITHIN],
            *_delays(regular, regular * np.nan),
            _f1(
                planted,
                regular,
                others,
                main.shuffled.tested.sum() / every_events(main) / main.copies,
            ),
        ]
    )
    recall.append(["never an alarm", *["0.000"] * len(WITHIN), *none, 0.0])
    ways = [
        _recall(kind, planted, main.delay, main.delay_days, planted.kind == number)
        for number, kind in enumerate(KINDS)
    ]
    columns = [
        "",
        *[f"recall within {n} events (95 %)" for n in WITHIN],
        "median delay, events",
        "p90 delay, events",
        "median delay, days",
        "p90 delay, days",
    ]
    changes = f"{len(planted.user):,} changes of {len(np.unique(planted.user)):,} users."
    return [
        Figures(
            "Planted changes",
            [*columns, "F1"],
            recall,
            f"{changes} Chance: as many alarms as the first row has on these streams, at random "
            "moments past the warm-up. F1: found within 50 events is right; alarms before the "
            "change, later than that, or on shuffled controls are wrong.",
        ),
        Figures(f"Planted changes by way of changing, {first}", columns, ways),
        Figures(
            "Alarms of users without a planted change",
            [
                "",
                "threshold",
                "stated events between alarms",
                "events between alarms (95 %)",
                "stated alarms per 1,000 users and 30 days",
                "alarms per 1,000 users and 30 days",
            ],
            [row for name, of in judged.items() for row in _rates(name, of, stated[name], days)],
            "Shuffled: whole sessions. Events of the warm-up do not count.",
        ),
    ]


def figures(
    planted: Planted,
    judged: Mapping[str, Judged],
    stated: Mapping[str, DriftSettings],
    days: float,
) -> dict[str, float]:
    """The same by name."""
    found: dict[str, float] = {}
    for name, of in judged.items():
        for n in WITHIN:
            found[f"{name}: recall within {n}"] = float((of.delay <= n).mean())
            found[f"{name}: chance within {n}"] = chance(of, planted, n)
        found[f"{name}: F1"] = f1(planted, of)
        for which, alarms in (("shuffled", of.shuffled), ("real", of.real)):
            low, high = _run_length(alarms, of)
            found[f"{name}: events between alarms, {which}"] = alarms.run_length
            found[f"{name}: events between alarms, {which}, low"] = low
            found[f"{name}: events between alarms, {which}, high"] = high
            found[f"{name}: alarms per 1,000 users and 30 days, {which}"] = _rate(alarms, of, days)
        found[f"{name}: threshold"] = stated[name].threshold
    return found


def _recall(
    name: str, planted: Planted, delay: np.ndarray, days: np.ndarray, among: np.ndarray
) -> list[Cell]:
    row: list[Cell] = [name]
    for n in WITHIN:
        low, high = _share_interval(planted.user[among], delay[among] <= n)
        row.append(f"{(delay[among] <= n).mean():.3f} ({low:.3f} to {high:.3f})")
    return [*row, *_delays(delay[among], days[among])]


def _delays(delay: np.ndarray, days: np.ndarray) -> list[Cell]:
    found = delay <= max(WITHIN)
    if not found.any():
        return [float("nan")] * 4
    return [float(np.quantile(x[found], q)) for x in (delay, days) for q in (0.5, 0.9)]


def _share_interval(user: np.ndarray, hit: np.ndarray) -> Interval:
    """95 % interval of the share of hits, by resampling users."""
    _, number = np.unique(user, return_inverse=True)
    hits, of = np.bincount(number, hit), np.bincount(number)
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(of), (BOOTSTRAPS, len(of)))
    low, high = np.quantile(hits[drawn].sum(1) / of[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)


def chance(of: Judged, planted: Planted, n: int) -> float:
    """Share of changes found within ``n`` events by as many alarms at random moments."""
    rate = len(of.planted.step) / max(int(of.planted.tested.sum()), 1)
    return float((1 - (1 - rate) ** np.minimum(n + 1, of.left)).mean())


def every_events(of: Judged) -> int:
    """Tested events of the streams per alarm."""
    return max(1, round(of.planted.tested.sum() / max(len(of.planted.step), 1)))


def _regular(planted: Planted, of: Judged) -> tuple[np.ndarray, np.ndarray]:
    """(delay, alarms beside the change) of each stream with an alarm at every N-th tested event."""
    every = every_events(of)
    before = np.maximum(of.planted.tested - of.left, 0)  # tested events before the change
    delay = (every - before % every - 1).astype(np.float64)
    delay[delay >= of.left] = np.nan
    later = (
        np.maximum(before + of.left, 0) // every
        - np.minimum(before + max(WITHIN) + 1, before + of.left) // every
    )
    return delay, before // every + later


def f1(planted: Planted, of: Judged) -> float:
    """Balance of found changes and false alarms, shuffled controls standing beside each stream."""
    return _f1(planted, of.delay, of.other, len(of.shuffled.step) / of.copies)


def _f1(planted: Planted, delay: np.ndarray, other: np.ndarray, shuffled: float) -> float:
    hits = float((delay <= max(WITHIN)).sum())
    sets = len(planted.user) / max(len(np.unique(planted.user)), 1)
    wrong = float(other.sum()) + shuffled * sets
    return 2 * hits / max(hits + wrong + len(planted.user), 1e-9)


def _rates(name: str, of: Judged, stated: DriftSettings, days: float) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for which, alarms in (("shuffled", of.shuffled), ("as they are", of.real)):
        low, high = _run_length(alarms, of)
        rows.append(
            [
                f"{name}, {which}",
                stated.threshold,
                float("nan") if stated.average_run_length is None else stated.average_run_length,
                f"{alarms.run_length:,.0f} ({low:,.0f} to {high:,.0f})",
                float("nan") if stated.false_alarms is None else stated.false_alarms,
                _rate(alarms, of, days),
            ]
        )
    return rows


def _rate(alarms: Alarms, of: Judged, days: float) -> float:
    copies = of.copies if alarms is of.shuffled else 1
    return len(alarms.step) / max(days * copies, 1e-9) * 30_000


def _run_length(alarms: Alarms, of: Judged) -> Interval:
    copies = of.copies if alarms is of.shuffled else 1
    users = max(len(alarms.tested) // copies, 1)
    return run_length_interval(alarms.per_user(), alarms.tested, users)
