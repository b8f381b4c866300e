"""Whether the events that reasons name carry the recommendations, by really removing them.

The user's row is made again without an event, by the transition over the history in the file, and
the listed item is scored anew at the same time. Dimensions: Q lists, V rows made again: each row
as it is, and without each event that it retains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from model.checkpoint import Checkpoint
from model.evaluation.item_lists import NDCG_10, mean_intervals
from model.evaluation.report import Cell, Figures
from model.events import EventBatch, Source
from model.explanation import score_drops
from model.held_lists import HeldLists, rows_before
from model.ranking import Recommendations, item_scores, rank
from model.state import RECENT, StateBatch
from model.transition import moved_rows

CASES = 500
SCORED_TOGETHER = 1024
AS_IT_IS = -1


@dataclass(frozen=True)
class Removals:
    """Rows made again.

    rows      (V,)
    case      (V,) number of the list
    removed   (V,) steps back of the removed event's last step, -1 for none removed
    retained  (Q,) the last steps that whole events among the last 16 make up
    """

    rows: StateBatch
    case: np.ndarray
    removed: np.ndarray
    retained: np.ndarray


def removals(batch: EventBatch, step: np.ndarray, checkpoint: Checkpoint) -> Removals:
    """The rows before steps of the batch, as they are and without each event of the last 16 steps.

    step  (Q,) each the first of its event
    """
    order = np.argsort(batch.user, kind="stable")
    place = np.empty(len(batch), np.int64)
    place[order] = np.arange(len(batch))
    user = batch.user[order]
    head = (batch.line == 0)[order]
    base, steps, owner = [], [], []
    case: list[int] = []
    removed: list[int] = []
    retained = np.zeros(len(step), np.int64)
    for number, end in enumerate(place[step].tolist()):
        start = max(int(np.searchsorted(user, user[end])), end - RECENT)
        heads = start + np.flatnonzero(head[start:end])
        if len(heads) == 0:
            heads = np.array([end])
        ends = np.append(heads[1:], end)
        first = int(heads[0])
        retained[number] = end - first
        base.append(order[first])
        for left_out in range(AS_IT_IS, len(heads) if end > first else 0):
            kept = np.arange(first, end)
            back = AS_IT_IS
            if left_out != AS_IT_IS:
                kept = kept[(kept < heads[left_out]) | (kept >= ends[left_out])]
                back = end - int(ends[left_out])
            steps.append(order[kept])
            owner.append(np.full(len(kept), len(case)))
            case.append(number)
            removed.append(back)
    rows = rows_before(checkpoint, batch, np.array(base, np.int64))[case]
    some = np.concatenate(steps).astype(np.int64)
    again = replace(batch.take(some), user=np.concatenate(owner))
    rows, _ = moved_rows(rows, again, Source(), checkpoint)
    return Removals(rows, np.array(case), np.array(removed), retained)


def fidelity(
    batch: EventBatch, held: HeldLists, step: np.ndarray, checkpoint: Checkpoint, seed: int
) -> tuple[Figures, Mapping[str, float]]:
    """How far the score of a listed item falls without the event that its reason names.

    One item each of at most 500 lists, drawn at random. ``step`` (R,) is the one of ``batch`` that
    each list foresees.
    """
    random = np.random.default_rng(seed)
    drawn = np.sort(random.permutation(len(held))[:CASES])
    rows, now_ms, step = held.rows[drawn], held.now_ms[drawn], step[drawn]
    lists = rank(rows, now_ms, checkpoint, NDCG_10.at)
    item, by_counts = one_of_each(lists, rows, random)
    made = removals(batch, step, checkpoint)
    drop, there = _measured(made, now_ms, item, checkpoint)  # (Q, J)
    found = score_drops(rows, now_ms, item[:, None], checkpoint)[:, 0]
    by_stepping = np.where(np.isnan(found), -np.inf, found).argmax(1)
    user = batch.user[step]
    cells: list[list[Cell]] = []
    figures: dict[str, float] = {}
    for name, named in (
        ("the step that counts most, as stated", by_counts),
        ("the step that stepping again finds", by_stepping),
    ):
        whole = np.where(named < made.retained, named, -1)
        values, of = compared(drop, there, _event_of(whole, there))
        mean = values.mean(0) if len(values) else np.full(values.shape[1], np.nan)
        interval = mean_intervals(values, user[of], seed)
        drop_of, others_of, more, most = mean.tolist()
        low, high = interval[2].tolist()
        between = f"{low:.4f} to {high:.4f}"
        cells.append([name, f"{len(values):,}", drop_of, others_of, more, between, most])
        figures |= {
            f"fidelity, {name}: drop": float(mean[0]),
            f"fidelity, {name}: drop of others": float(mean[1]),
            f"fidelity, {name}: lowers more": float(mean[2]),
        }
    columns = ["named", "cases", "drop", "others' drop", "lowers more", "95 %", "lowers most"]
    note = (
        f"Of {len(rows):,} listed items, those with a named event and another one. Drop of the "
        "item's score when the event is removed and the row made again; beside the mean over the "
        "other events that the row retains, and the share of cases where it is larger than that "
        "mean, and than each of them."
    )
    return Figures("Reasons, by removing their events", columns, cells, note), figures


def one_of_each(
    lists: Recommendations, rows: StateBatch, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An item of each list, and how many steps back its reason lies, -1 for none: (Q,) each."""
    number = np.arange(len(rows))
    at = (random.random(len(rows)) * np.maximum((lists.item > 0).sum(1), 1)).astype(np.int64)
    because = lists.because[number, at]
    back = (rows["steps"].astype(np.int64) - 1 - because) % RECENT
    return lists.item[number, at], np.where(because >= 0, back, -1)


def _measured(
    made: Removals, now_ms: np.ndarray, item: np.ndarray, checkpoint: Checkpoint
) -> tuple[np.ndarray, np.ndarray]:
    """Drops by the steps back at which events end, and where an event does: (Q, J) each."""
    score = np.concatenate(
        [
            item_scores(
                made.rows[part], now_ms[made.case[part]], item[made.case[part], None], checkpoint
            )[:, 0]
            for part in np.split(
                np.arange(len(made.case)), range(SCORED_TOGETHER, len(made.case), SCORED_TOGETHER)
            )
        ]
    ).astype(np.float64)
    whole = np.zeros(len(item))
    is_whole = made.removed == AS_IT_IS
    whole[made.case[is_whole]] = score[is_whole]
    drop, there = np.zeros((len(item), RECENT)), np.zeros((len(item), RECENT), dtype=bool)
    case, back = made.case[~is_whole], made.removed[~is_whole]
    drop[case, back] = whole[case] - score[~is_whole]
    there[case, back] = True
    return drop, there


def _event_of(step: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The place at which the event of each step back ends, -1 where there is none: (Q,)."""
    later = there & (np.arange(there.shape[1]) <= step[:, None])
    last = there.shape[1] - 1 - later[:, ::-1].argmax(1)
    return np.where(later.any(1) & (step >= 0), last, -1)


def compared(
    drop: np.ndarray, there: np.ndarray, named: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(drop, mean drop of others, larger than that, larger than each) of cases (M, 4), and which.

    Cases are those with a named event and another one.
    """
    of = np.flatnonzero((named >= 0) & (there.sum(1) > 1))
    own = drop[of, named[of]]
    others = there[of].copy()
    others[np.arange(len(of)), named[of]] = False
    mean = (drop[of] * others).sum(1) / others.sum(1)
    most = np.where(others, drop[of], -np.inf).max(1, initial=-np.inf)
    return np.stack((own, mean, own > mean, own > most), 1).astype(np.float64), of
