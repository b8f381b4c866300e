"""Lists of items against what came: hits, ranks, and intervals over users.

Dimensions: Q targets, U users, K list length, P predictors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from model.evaluation.report import Cell, Figures

LIST_ITEMS = 20
"""Length of the lists that a protocol writes; figures are at 10 or 20."""
RESAMPLES = 1000
_RESAMPLED_TOGETHER = 50


@dataclass(frozen=True)
class Measure:
    """Two figures of a list: whether the item is among the first ``at``, and how high."""

    hits: str
    gain: str
    at: int

    def values(self, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hit, gain) of the 0-based places (Q,), -1 where the list lacks the item."""
        hit = (place >= 0) & (place < self.at)
        rank = np.maximum(place, 0) + 1.0
        gain = 1 / rank if self.gain.startswith("MRR") else 1 / np.log2(rank + 1)
        return hit.astype(np.float64), np.where(hit, gain, 0.0)


NDCG_10 = Measure("HR@10", "NDCG@10", 10)
MRR_20 = Measure("P@20", "MRR@20", 20)


def places(lists: np.ndarray, item: np.ndarray) -> np.ndarray:
    """0-based place of each target's item in its list (Q, K), -1 where it is not listed or 0."""
    hit = (lists == item[:, None]) & (item > 0)[:, None]
    return np.asarray(np.where(hit.any(1), hit.argmax(1), -1))


def mean_intervals(values: np.ndarray, user: np.ndarray, seed: int = 0) -> np.ndarray:
    """95 % intervals of the means over targets of ``values`` (Q, P), by resampling users: (P, 2).

    A user's targets stay together, and the columns share the resamples: a column may hold the
    differences of two predictors.
    """
    if len(values) == 0:
        return np.full((values.shape[1], 2), np.nan)
    _, index, count = np.unique(user, return_inverse=True, return_counts=True)
    total = np.stack([np.bincount(index, column) for column in values.T], 1)  # (U, P)
    total = np.concatenate((total, count[:, None]), 1)
    random = np.random.default_rng(seed)
    users, means = len(count), []
    for _ in range(RESAMPLES // _RESAMPLED_TOGETHER):
        drawn = random.integers(0, users, (_RESAMPLED_TOGETHER, users))
        drawn += np.arange(_RESAMPLED_TOGETHER)[:, None] * users
        weight = np.bincount(drawn.ravel(), minlength=_RESAMPLED_TOGETHER * users)
        summed = weight.reshape(-1, users) @ total
        means.append(summed[:, :-1] / summed[:, -1:])
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975), axis=0)
    return np.stack((low, high), 1)


def list_tables(
    title: str,
    found: Mapping[str, np.ndarray],
    user: np.ndarray,
    groups: Mapping[str, np.ndarray],
    measure: Measure = NDCG_10,
    seed: int = 0,
    note: str = "",
) -> tuple[list[Figures], dict[str, float]]:
    """A table per group of targets, predictors as rows, and the figures by name.

    found   predictor -> 0-based places (Q,); the first is the model, the others stand beside it
    groups  group -> mask (Q,)
    The last column is what the model gains on a predictor, paired, with its 95 % interval.
    """
    tables, figures = [], {}
    columns = ("predictor", measure.hits, "95 %", measure.gain, "95 %", "the model gains")
    for group, mask in groups.items():
        names = list(found)
        both = [measure.values(found[name][mask]) for name in names]
        hits = np.stack([hit for hit, _ in both], 1)
        gains = np.stack([gain for _, gain in both], 1)
        values = np.concatenate((hits, gains, gains[:, :1] - gains), 1)
        mean = values.mean(0) if len(values) else np.full(values.shape[1], np.nan)
        interval = mean_intervals(values, user[mask], seed)
        count = len(names)
        rows: list[Sequence[Cell]] = []
        for i, name in enumerate(names):
            gain_at = 2 * count + i
            gained: Cell = "" if i == 0 else _signed(float(mean[gain_at]), interval[gain_at])
            rows.append(
                (
                    name,
                    float(mean[i]),
                    _range(interval[i]),
                    float(mean[count + i]),
                    _range(interval[count + i]),
                    gained,
                )
            )
            figures[f"{group}, {name}, {measure.hits}"] = float(mean[i])
            figures[f"{group}, {name}, {measure.gain}"] = float(mean[count + i])
        targets, users = int(mask.sum()), len(np.unique(user[mask]))
        heading = f"{title}, {group}: {targets:,} of {users:,} users"
        tables.append(Figures(heading, columns, rows, note))
    return tables, figures


def _range(interval: np.ndarray) -> str:
    return f"{interval[0]:.4f} to {interval[1]:.4f}"


def _signed(mean: float, interval: np.ndarray) -> str:
    return f"{mean:+.4f} ({interval[0]:+.4f} to {interval[1]:+.4f})"


def list_table(
    lists: np.ndarray, names: Sequence[str], columns: Mapping[str, pa.Array]
) -> pa.Table:
    """The lists (Q, K) as rows ``..., item_id, rank``, best first; item 0 ends a list.

    names    of the items from index 1 on
    columns  what stands before: name -> one value per list
    """
    row, place = np.nonzero(lists > 0)
    item = pa.array((lists[row, place] - 1).astype(np.int32))
    return pa.table(
        {
            **{name: values.take(pa.array(row)) for name, values in columns.items()},
            "item_id": pa.DictionaryArray.from_arrays(item, pa.array(names, pa.string())),
            "rank": pa.array(place + 1, pa.int32()),
        }
    )
