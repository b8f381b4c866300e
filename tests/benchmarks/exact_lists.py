"""Exact lists over the whole catalogue: what candidates and indexes are measured against.

Dimensions: R rows, K list length, I items, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from model import interests
from model.checkpoint import Checkpoint
from model.ranking import catalogue_scores
from model.state import StateBatch

ITEMS_TOGETHER = 1 << 15
"""Items of one matrix product: with 256 rows its result stays within the processor's cache."""
SCORES_TOGETHER = 1 << 23
"""Scores held at once, which bounds the rows of ``exact_lists`` by the catalogue's size."""


@torch.inference_mode()
def network_top(
    out: np.ndarray, table: torch.Tensor, bias: torch.Tensor, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k items of highest network score of readouts (R, H): items and scores, (R, K).

    table, bias  (I, H) and (I,) of the items 1 to I; a table of 16 bits is widened part by part
    """
    rows = torch.from_numpy(out)
    items, scores = [], []
    for at in range(0, len(table), ITEMS_TOGETHER):
        part = slice(at, at + ITEMS_TOGETHER)
        logits = torch.addmm(bias[part], rows, table[part].float().T)
        top = torch.topk(logits, min(k, logits.shape[1]))
        items.append(top.indices + (at + 1))
        scores.append(top.values)
    best = torch.topk(torch.cat(scores, 1), min(k, len(table)))
    return torch.cat(items, 1).gather(1, best.indices).numpy(), best.values.numpy()


def exact_lists(
    rows: StateBatch,
    now_ms: np.ndarray,
    checkpoint: Checkpoint,
    k: int,
    among: Callable[[slice, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The k items of highest whole score, best first, ties to the lower item: (R, K).

    among  given a part of the rows and its scores (R, I): true where an item may be listed
    """
    height = max(1, SCORES_TOGETHER // checkpoint.vocabulary.items)
    lists = [np.zeros((0, k), np.int64)]
    for at in range(0, len(rows), height):
        part = slice(at, at + height)
        scores = catalogue_scores(rows[part], now_ms[part], checkpoint)
        if among is not None:
            scores[~among(part, scores)] = -np.inf
        lists.append(interests.best(scores, k))
    return np.concatenate(lists)


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Mean share of each exact list (R, K) that is found, (R, any); numbers below 1 count not."""
    hit = (exact[:, :, None] == found[:, None, :]).any(2) & (exact > 0)
    return float((hit.sum(1) / np.maximum((exact > 0).sum(1), 1)).mean())
