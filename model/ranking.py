"""Top-K items of a row: candidates, score, filter, diversify, explain.

Candidates are what followed the recent items (transition neighbours), these items themselves, the
popular items of the likeliest categories and the trending ones. ``catalogue_scores`` scores every
item the same way: the reference that candidates are measured against.

score = lstm * (next-item logit) + transition * log(1 + 100 * share of what followed)
        + category * (logit of the item's category) + popularity * log(share of all steps)
        + repeat * (sum of recency ** steps back, where the user came to the item)

Dimensions: R rows, K list length, J recent steps looked at, N neighbours of an item,
P candidate places of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from model import interests
from model.blocks import in_blocks
from model.checkpoint import Checkpoint
from model.interests import Interests
from model.state import RECENT, StateBatch

LOOK_BACK = 8
LIKELY_CATEGORIES = 5
CATEGORY_ITEMS = 10
TRENDING_ITEMS = 20
TRANSITION_SCALE = 100.0
POOL = 50
CHUNK_ROWS = 128
"""Rows ranked together: their candidates' embeddings stay within the processor's cache."""
_POSITION_BITS = 12


class Reason(IntEnum):
    """Why an item is on the list; the first that holds."""

    REPEATED = 0
    VIEWED_TOGETHER = 1
    CATEGORY = 2
    TRENDING = 3
    SEQUENCE = 4


@dataclass(frozen=True)
class Recommendations:
    """Lists of R rows, best first; item 0 fills a list that is shorter than K.

    item, score    (R, K) vocabulary index; score in logits
    reason         (R, K) Reason
    because        (R, K) ring position of the recent step that carries a REPEATED or
                   VIEWED_TOGETHER, else -1
    interests      the likeliest categories behind them
    diversity      (R,) 1 - sum of squared category shares of the list: 0 one category
    """

    item: np.ndarray
    score: np.ndarray
    reason: np.ndarray
    because: np.ndarray
    interests: Interests
    diversity: np.ndarray


def rank(rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint, k: int) -> Recommendations:
    """The k best candidates of each row at event time ``now_ms`` (R,)."""
    if len(rows) == 0:
        none = np.zeros((0, k), np.int64)
        nothing = Interests(none, none.astype(np.float64), none.astype(np.float64))
        return Recommendations(none, none.astype(np.float32), none, none, nothing, np.zeros(0))
    parts = [
        _rank(rows[at : at + CHUNK_ROWS], now_ms[at : at + CHUNK_ROWS], checkpoint, k)
        for at in range(0, len(rows), CHUNK_ROWS)
    ]

    def joined(column: Callable[[Recommendations], np.ndarray]) -> np.ndarray:
        return np.concatenate([column(part) for part in parts])

    return Recommendations(
        item=joined(lambda part: part.item),
        score=joined(lambda part: part.score),
        reason=joined(lambda part: part.reason),
        because=joined(lambda part: part.because),
        interests=Interests(
            category=joined(lambda part: part.interests.category),
            probability=joined(lambda part: part.interests.probability),
            uncertainty=joined(lambda part: part.interests.uncertainty),
        ),
        diversity=joined(lambda part: part.diversity),
    )


def _rank(rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint, k: int) -> Recommendations:
    out = interests.hidden_readout(rows, checkpoint)  # (R, H)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)  # (R, C)
    named = np.arange(logits.shape[1]) < checkpoint.vocabulary.first_category_bucket
    named[0] = False
    likely = interests.top_interests(logits, named, LIKELY_CATEGORIES)
    recent, position = _recent_items(rows)  # (R, J)
    item, share, repeats = _candidates(recent, likely, checkpoint)  # (R, P)
    score = _scores(out, logits, item, share, repeats, checkpoint)  # (R, P), -inf where none
    chosen = _choose(score, item, checkpoint, k)  # (R, K) places, best first
    top_item = np.take_along_axis(item, chosen, 1)
    top_score = np.take_along_axis(score, chosen, 1)
    top_item[~np.isfinite(top_score)] = 0
    reason, because = _explain(top_item, recent, position, likely, checkpoint)
    return Recommendations(
        top_item, top_score, reason, because, likely, _diversity(top_item, checkpoint)
    )


def _recent_items(rows: StateBatch) -> tuple[np.ndarray, np.ndarray]:
    """Items of the last J steps, newest first, 0 = none, and their ring positions: (R, J)."""
    steps = rows["steps"].astype(np.int64)[:, None]
    back = np.arange(LOOK_BACK)
    position = (steps - 1 - back) % RECENT
    item = np.take_along_axis(rows["recent_item"], position, 1).astype(np.int64)
    return np.where(back < steps, item, 0), position


def _transition_parts(recent: np.ndarray, checkpoint: Checkpoint) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of the recent items and what each adds: (R, J, N), item 0 adds nothing."""
    statistics = checkpoint.statistics
    item = statistics.neighbour_item[recent]  # (R, J, N)
    weight = statistics.neighbour_weight[recent] * _recency(checkpoint)[:, None]
    return item, weight


def _recency(checkpoint: Checkpoint) -> np.ndarray:
    """What a step counts by how far it lies back, (J,)."""
    return np.asarray(checkpoint.ranking.recency ** np.arange(LOOK_BACK), dtype=np.float32)


def _candidates(
    recent: np.ndarray, likely: Interests, checkpoint: Checkpoint
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct candidates of each row in item order, transition share and repeats of each: (R, P).

    A candidate of several sources stands once, with its shares added; the other places hold 0.
    """
    statistics = checkpoint.statistics
    count = len(recent)
    neighbour, weight = _transition_parts(recent, checkpoint)
    popular = statistics.category_item[likely.category][:, :, :CATEGORY_ITEMS]
    trending = np.broadcast_to(
        statistics.trending_item[:TRENDING_ITEMS],
        (count, len(statistics.trending_item[:TRENDING_ITEMS])),
    )
    item = np.concatenate(
        (neighbour.reshape(count, -1), recent, popular.reshape(count, -1), trending), 1
    )  # (R, P)
    neighbours = neighbour[0].size
    share = np.zeros(item.shape, np.float32)
    share[:, :neighbours] = weight.reshape(count, -1)
    repeats = np.zeros(item.shape, np.float32)
    repeats[:, neighbours : neighbours + LOOK_BACK] = _recency(checkpoint)
    item = np.where(item < checkpoint.vocabulary.first_item_bucket, item, 0)  # buckets have no name
    places = item.shape[1]
    key = np.sort((item << _POSITION_BITS) | np.arange(places), axis=1)
    order = key & ((1 << _POSITION_BITS) - 1)
    item = key >> _POSITION_BITS
    first = np.ones(item.shape, dtype=bool)
    first[:, 1:] = item[:, 1:] != item[:, :-1]
    starts = np.flatnonzero(first.ravel())
    share, repeats = (
        _summed(np.take_along_axis(part, order, 1), starts) for part in (share, repeats)
    )
    return np.where(first, item, 0), share, repeats


def _summed(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The sum of each run of places at its first place, 0 at the others."""
    total = np.zeros(values.shape, np.float32)
    total.ravel()[starts] = np.add.reduceat(values.ravel(), starts)
    return total


def _scores(
    out: np.ndarray,
    logits: np.ndarray,
    item: np.ndarray,
    share: np.ndarray,
    repeats: np.ndarray,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """Scores of the candidates (R, P), -inf where the place holds none."""
    network, statistics = checkpoint.network, checkpoint.statistics
    score = np.full(item.shape, -np.inf, np.float32)
    row, place = np.nonzero(item)
    ids = item[row, place]
    table = network.item.weight.detach().numpy()
    bias = network.item_bias.detach().numpy()
    own = np.einsum("mh,mh->m", table.take(ids, 0), out.take(row, 0)) + bias[ids]
    score[row, place] = _fuse(
        own,
        share[row, place],
        repeats[row, place],
        logits[row, statistics.item_category[ids]],
        statistics.item_log_popularity[ids],
        checkpoint,
    )
    return score


def _fuse(
    own: np.ndarray,
    share: np.ndarray,
    repeats: np.ndarray,
    category_logit: np.ndarray,
    log_popularity: np.ndarray,
    checkpoint: Checkpoint,
) -> np.ndarray:
    weights = checkpoint.ranking
    return np.asarray(
        weights.lstm * own
        + weights.transition * np.log1p(TRANSITION_SCALE * share)
        + weights.category * category_logit
        + weights.popularity * log_popularity
        + weights.repeat * repeats,
        dtype=np.float32,
    )


def catalogue_scores(rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """Scores of every item for each row, (R, I); -inf for index 0 and the unnamed buckets."""
    statistics = checkpoint.statistics
    out = interests.hidden_readout(rows, checkpoint)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)
    own = in_blocks(checkpoint.network.item_logits, out)  # (R, I)
    recent, _ = _recent_items(rows)
    neighbour, weight = _transition_parts(recent, checkpoint)
    share = np.zeros(own.shape, np.float32)
    row = np.broadcast_to(np.arange(len(rows))[:, None, None], neighbour.shape)
    np.add.at(share, (row, neighbour), weight)
    repeats = np.zeros(own.shape, np.float32)
    np.add.at(repeats, (np.arange(len(rows))[:, None], recent), _recency(checkpoint))
    scores = _fuse(
        own,
        share,
        repeats,
        logits[:, statistics.item_category],
        statistics.item_log_popularity,
        checkpoint,
    )
    scores[:, 0] = -np.inf
    scores[:, checkpoint.vocabulary.first_item_bucket :] = -np.inf
    return scores


def _choose(score: np.ndarray, item: np.ndarray, checkpoint: Checkpoint, k: int) -> np.ndarray:
    """Places of the k best of each row, best first; ties go to the lower item (R, K)."""
    pool = min(POOL if checkpoint.ranking.diversity > 0 else k, score.shape[1])
    top = np.argpartition(-score, pool - 1, axis=1)[:, :pool]
    top.sort(axis=1)
    order = np.argsort(-np.take_along_axis(score, top, 1), axis=1, kind="stable")
    top = np.take_along_axis(top, order, 1)
    if checkpoint.ranking.diversity > 0:
        top = _diversify(top, score, item, checkpoint, k)
    return top[:, :k]


def _diversify(
    top: np.ndarray, score: np.ndarray, item: np.ndarray, checkpoint: Checkpoint, k: int
) -> np.ndarray:
    """Greedy choice from the pool: each listed item of a category costs the next ones of it."""
    values = np.take_along_axis(score, top, 1).astype(np.float64)  # (R, POOL)
    category = checkpoint.statistics.item_category[np.take_along_axis(item, top, 1)]
    row = np.arange(len(top))
    picked = []
    for _ in range(min(k, top.shape[1])):
        best = values.argmax(1)
        picked.append(top[row, best])
        same = category == category[row, best][:, None]
        values = values - checkpoint.ranking.diversity * same
        values[row, best] = -np.inf
    return np.stack(picked, 1)


def _explain(
    item: np.ndarray,
    recent: np.ndarray,
    position: np.ndarray,
    likely: Interests,
    checkpoint: Checkpoint,
) -> tuple[np.ndarray, np.ndarray]:
    """Reason of each listed item and the ring position of the step that carries it: (R, K)."""
    neighbour, weight = _transition_parts(recent, checkpoint)  # (R, J, N)
    reason = np.full(item.shape, Reason.SEQUENCE)
    because = np.full(item.shape, -1)
    trending = np.isin(item, checkpoint.statistics.trending_item[:TRENDING_ITEMS])
    reason[trending] = Reason.TRENDING
    category = checkpoint.statistics.item_category[item]  # (R, K)
    liked = (category[:, :, None] == likely.category[:, None, :]).any(2) & (category > 0)
    reason[liked] = Reason.CATEGORY
    for column in range(item.shape[1]):
        same = (neighbour == item[:, column, None, None]) & (weight > 0)
        part = np.where(same, weight, 0).max(2, initial=0.0)  # (R, J)
        best = part.argmax(1)
        row = np.flatnonzero(part.max(1, initial=0.0) > 0)
        reason[row, column] = Reason.VIEWED_TOGETHER
        because[row, column] = position[row, best[row]]
        again = recent == item[:, column, None]  # (R, J), newest first
        row = np.flatnonzero(again.any(1) & (item[:, column] > 0))
        reason[row, column] = Reason.REPEATED
        because[row, column] = position[row, again.argmax(1)[row]]
    return reason, because


def _diversity(item: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    category = checkpoint.statistics.item_category[item]  # (R, K)
    listed = item > 0
    same = (category[:, :, None] == category[:, None, :]) & listed[:, :, None] & listed[:, None, :]
    count = listed.sum(1)
    return np.asarray(1.0 - same.sum((1, 2)) / np.maximum(count, 1) ** 2)
