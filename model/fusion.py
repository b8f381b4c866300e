"""Fusion weights of the ranking, learned from what came next.

A softmax regression over each row's candidates: the likelihood of the item that came next, where it
is among them. Whether the last step's item comes again is a question of its own (as in RepeatNet,
Ren et al., AAAI 2019): in some shops it does nearly always, and the other weights would bend to
tell when. So they are learned twice, all together, and apart: where another item came, among the
others, and the weight of the last item then by itself. The better lists decide. The weights of the
steps are exponentials, so that none is negative, and are held to their start values by a Gaussian,
whose say fades with the number of lists.

Dimensions: R rows, E entries (candidates of all rows), J recent steps, F linear parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import interests, ranking
from model.checkpoint import LOOK_BACK, Checkpoint, RankingSettings
from model.held_lists import HeldLists
from model.learning import Progress
from model.metrics import DISCOUNT, TOP
from model.ranking import Parts
from model.state import StateBatch

CURVES = ("follows", "together", "again")
LAST = "last"
WEIGHTS = (*Parts.LINEAR, "transition")
OF_OTHERS = tuple(name for name in (*WEIGHTS, *CURVES) if name != LAST)
"""What is learned where another item than the last one came."""
START = RankingSettings(
    lstm=0.3,
    transition=1.0,
    category=0.2,
    popularity=0.1,
    follows=tuple(100 * 0.7**j for j in range(LOOK_BACK)),
    together=tuple(200 * 0.85**j for j in range(LOOK_BACK)),
    again=tuple(30 * 0.7**j for j in range(LOOK_BACK)),
)
CURVE_SPREAD = 1.0
"""Standard deviation of the log of a step's weight around its start value."""
LINEAR_SPREAD = 3.0
MAX_ITERATIONS = 80
ROWS_TOGETHER = 512
DIGITS = 4


def fit_ranking(checkpoint: Checkpoint, held: HeldLists, progress: Progress) -> RankingSettings:
    """The settings under which the items that came next are likeliest."""
    rows, now_ms, target = held.rows, held.now_ms, held.target
    start = replace(START, diversity=checkpoint.ranking.diversity)
    lists = []
    for at in range(0, len(rows), ROWS_TOGETHER):
        part = slice(at, at + ROWS_TOGETHER)
        lists.append(_entries(replace(checkpoint, ranking=start), rows[part], now_ms[part]))
        progress("ranking", min(at + ROWS_TOGETHER, len(rows)), len(rows))
    offsets = range(0, len(rows), ROWS_TOGETHER)
    row = np.concatenate([o + parts.row for o, (parts, _) in zip(offsets, lists, strict=True)])
    hit = np.concatenate([parts.item for parts, _ in lists]) == target[row]
    found = np.bincount(row[hit], minlength=len(rows)) > 0
    if not found.any():
        return checkpoint.ranking
    kept = found[row]
    linear = np.concatenate([linear_parts(parts) for parts, _ in lists])[kept]
    steps = np.concatenate([steps for _, steps in lists])[kept]
    row, hit = _renumbered(row[kept], found), hit[kept]
    is_last = linear[:, Parts.LINEAR.index(LAST)] > 0
    came_again = np.bincount(row[hit & is_last], minlength=int(found.sum())) > 0
    settings, other = start, ~is_last & ~came_again[row]
    if other.any():
        settings = _fit(
            linear[other],
            steps[other],
            _renumbered(row[other], ~came_again),
            hit[other],
            start,
            OF_OTHERS,
        )
    apart = _fit(linear, steps, row, hit, settings, (LAST,))
    together = _fit(linear, steps, row, hit, start, (*WEIGHTS, *CURVES))
    return max((apart, together), key=lambda found: _ndcg(linear, steps, row, hit, found))


def _ndcg(
    linear: np.ndarray, steps: np.ndarray, row: np.ndarray, hit: np.ndarray, found: RankingSettings
) -> float:
    """Mean NDCG@10 of lists that hold their target; arguments as in ``_fit``."""
    weight = torch.tensor([getattr(found, name) for name in WEIGHTS])
    of_step = torch.tensor([getattr(found, name) for name in CURVES]).ravel()
    score = _scores(torch.from_numpy(linear), torch.from_numpy(steps), weight, of_step).numpy()
    of_target = np.zeros(int(row.max()) + 1, np.float32)
    of_target[row[hit]] = score[hit]
    above = np.bincount(row[score > of_target[row]], minlength=len(of_target))
    return float(np.append(DISCOUNT, 0.0)[np.minimum(above, TOP)].mean())


def _scores(linear: Tensor, steps: Tensor, weight: Tensor, of_step: Tensor) -> Tensor:
    """Score of each entry (E,), by the weights of WEIGHTS (F + 1,) and of the steps (3J,)."""
    return linear @ weight[:-1] + weight[-1] * torch.log1p(steps @ of_step)


def _renumbered(row: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Rows counted without those that are not kept."""
    return (np.cumsum(kept) - 1)[row]


def linear_parts(parts: Parts) -> np.ndarray:
    """The parts that enter a score as they are, (E, F) float32."""
    return np.stack([getattr(parts, name) for name in Parts.LINEAR], 1).astype(np.float32)


def _entries(
    checkpoint: Checkpoint, rows: StateBatch, now_ms: np.ndarray
) -> tuple[Parts, np.ndarray]:
    """Parts of the candidates, and what each step gives them before its weight: (E, 3J)."""
    out = interests.hidden_readout(rows, checkpoint)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)
    named = checkpoint.vocabulary.first_category_bucket
    looked_at, _ = ranking.category_places(checkpoint)
    likely = interests.top_interests(logits, named, looked_at)
    recent, _ = ranking.recent_items(rows)
    found = ranking.candidates(recent, likely.category, checkpoint)
    place, parts = ranking.score_parts(rows, out, logits, found, checkpoint)
    _, follows, together = ranking.neighbours_of(recent, checkpoint)
    near, known = follows.shape[1], follows.shape[1] + LOOK_BACK
    value = np.zeros((3, len(rows), known), np.float32)
    value[0, :, :near], value[1, :, :near] = follows, together
    value[0, :, near:] = checkpoint.statistics.item_again[recent]
    value[2, :, near:] = 1
    step = np.r_[np.repeat(np.arange(LOOK_BACK), ranking.neighbour_places(checkpoint)), :LOOK_BACK]
    # the run of equal items that each place went to, and the entry of that run
    opens = np.zeros(found.item.size, np.int64)
    opens[found.starts[1:]] = 1
    run = np.cumsum(opens).reshape(found.item.shape)
    entry = np.full(len(found.starts), -1)
    entry[run.ravel()[place]] = np.arange(len(place))
    of_sorted = entry[run]  # (R, P)
    of_place = np.empty_like(of_sorted)
    np.put_along_axis(of_place, found.order, of_sorted, 1)
    of_place = of_place[:, :known]
    there = of_place >= 0
    key = of_place[there] * LOOK_BACK + np.broadcast_to(step, of_place.shape)[there]
    size = len(place) * LOOK_BACK
    summed = [
        np.bincount(key, values[there], minlength=size).reshape(-1, LOOK_BACK) for values in value
    ]
    return parts, np.concatenate(summed, 1).astype(np.float32)


def _fit(
    linear: np.ndarray,
    steps: np.ndarray,
    row: np.ndarray,
    hit: np.ndarray,
    start: RankingSettings,
    learned: Sequence[str],
) -> RankingSettings:
    """Maximum a posteriori over lists that hold their target; ``row`` (E,) counts from 0.

    learned  names of the settings to move; the others stay as they are in ``start``
    """
    lists = int(row.max()) + 1
    x, amount = torch.from_numpy(linear), torch.from_numpy(steps)
    owner, hits = torch.from_numpy(row), torch.from_numpy(np.flatnonzero(hit))
    middle = torch.tensor([getattr(start, name) for name in CURVES])
    middle = middle.clamp(min=10.0**-DIGITS).log()  # what was rounded to nothing can come back
    first = torch.tensor([getattr(start, name) for name in WEIGHTS])
    free_curve = torch.tensor([[name in learned] for name in CURVES])
    free_weight = torch.tensor([name in learned for name in WEIGHTS])
    curve, weight = (each.clone().requires_grad_(True) for each in (middle, first))
    optimiser = torch.optim.LBFGS(
        [curve, weight], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        of_step = torch.where(free_curve, curve, middle).exp().ravel()
        of_part = torch.where(free_weight, weight, first)
        score = _scores(x, amount, of_part, of_step)
        highest = torch.full((lists,), -torch.inf).scatter_reduce(0, owner, score.detach(), "amax")
        total = torch.zeros(lists).index_add(0, owner, torch.exp(score - highest[owner]))
        likelihood = score[hits] - highest[owner[hits]] - torch.log(total[owner[hits]])
        held = ((curve - middle) / CURVE_SPREAD).square().sum()
        held = held + ((weight - first) / LINEAR_SPREAD).square().sum()
        loss = held / (2 * lists) - likelihood.sum() / lists
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {
        name: round(value, DIGITS)
        for name, value in zip(WEIGHTS, weight.detach().tolist(), strict=True)
    }
    for name, values in zip(CURVES, curve.detach().exp().tolist(), strict=True):
        found[name] = tuple(round(value, DIGITS) for value in values)
    return replace(start, **{name: found[name] for name in learned})
