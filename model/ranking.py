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
CHUNK_ROWS = 256
"""Rows ranked together: a block size, and small enough for the processor's cache."""
SCORED_TOGETHER = 1024
"""Candidates whose embeddings are gathered together: they stay within the processor's cache."""
_POSITION_BITS = 12
_STEP_BITS = 8
_STEPS = (1 << _STEP_BITS) - 1


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
    named = checkpoint.vocabulary.first_category_bucket
    likely = interests.top_interests(logits, named, LIKELY_CATEGORIES)
    recent, position = _recent_items(rows)  # (R, J)
    item, share, repeats, carrier = _candidates(recent, likely, checkpoint)  # (R, P)
    score = _scores(out, logits, item, share, repeats, checkpoint)  # (R, P), -inf where none
    chosen = _choose(score, item, checkpoint, k)  # (R, K) places, best first
    row = np.arange(len(rows))[:, None]
    top_item, top_score, step = item[row, chosen], score[row, chosen], carrier[row, chosen]
    again = repeats[row, chosen] > 0
    top_item[~np.isfinite(top_score)] = 0
    step[top_item == 0] = -1
    because = np.where(step >= 0, position[row, step], -1)
    reason = _reasons(top_item, step, again, likely, checkpoint)
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
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Distinct candidates of each row in item order, transition share and repeats of each, and the
    recent step that carries it (-1 for none): (R, P).

    A candidate of several sources stands once, with its shares added; the other places hold 0. It
    is carried by the newest step at which the user came to it, or else by the one that it follows
    most.
    """
    statistics = checkpoint.statistics
    count, steps = recent.shape
    neighbour, weight = _transition_parts(recent, checkpoint)
    popular = statistics.category_item[likely.category, :CATEGORY_ITEMS]
    trending = statistics.trending_item[:TRENDING_ITEMS]
    followers = neighbour[0].size
    known = followers + steps
    listed = known + popular[0].size
    places = listed + len(trending) + 1
    item = np.empty((count, places), np.int64)
    item[:, :followers] = neighbour.reshape(count, -1)
    item[:, followers:known] = recent
    item[:, known:listed] = popular.reshape(count, -1)
    item[:, listed:-1] = trending
    item[:, -1] = 0  # sorts to the front, where ``best`` points when no candidate is left
    item[item >= checkpoint.vocabulary.first_item_bucket] = 0  # buckets have no name
    item <<= _POSITION_BITS
    item |= np.arange(places)
    item.sort(axis=1)
    order = item & ((1 << _POSITION_BITS) - 1)
    item >>= _POSITION_BITS
    starts, first = _runs(item)
    amount = np.zeros((count, places), np.float32)
    amount[:, :followers] = weight.reshape(count, -1)
    amount[:, followers:known] = _recency(checkpoint)
    amount = amount[np.arange(count)[:, None], order]
    came = (order >= followers) & (order < known)
    share, repeats = (
        _at(starts, np.add.reduceat(np.where(part, amount, 0).ravel(), starts), item.shape)
        for part in (order < followers, came)
    )
    # What carries most has the highest key; the bits of a float above 0 order as it does.
    step = np.where(came, order - followers, order // neighbour.shape[2])
    key = (amount.view(np.uint32).astype(np.int64) << _STEP_BITS) | (_STEPS - step)
    key[came] += 1 << 40
    key[amount == 0] = 0
    best = np.maximum.reduceat(key.ravel(), starts)
    carrier = _at(starts, np.where(best > 0, _STEPS - (best & _STEPS), -1), item.shape)
    item[~first] = 0
    return item, share, repeats, carrier


def _runs(item: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal items begin in sorted rows: flat indices, and as a mask (R, P)."""
    first = np.empty(item.shape, dtype=bool)
    first[:, 0] = True
    np.not_equal(item[:, 1:], item[:, :-1], out=first[:, 1:])
    return np.flatnonzero(first), first


def _at(starts: np.ndarray, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The value of each run of places at its first place, 0 at the others."""
    spread = np.zeros(shape, values.dtype)
    spread.ravel()[starts] = values
    return spread


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
    place = np.flatnonzero(item)
    row = place // item.shape[1]
    ids = item.ravel()[place]
    table = network.item.weight.detach().numpy()
    bias = network.item_bias.detach().numpy()
    own = np.empty(len(ids), np.float32)
    for at in range(0, len(ids), SCORED_TOGETHER):
        part = slice(at, at + SCORED_TOGETHER)
        own[part] = np.einsum("mh,mh->m", table.take(ids[part], 0), out.take(row[part], 0))
    own += bias.take(ids)
    score.ravel()[place] = _fuse(
        own,
        share.ravel()[place],
        repeats.ravel()[place],
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
    if checkpoint.ranking.diversity <= 0:
        return interests.best(score, k)
    return _diversify(interests.best(score, POOL), score, item, checkpoint, k)[:, :k]


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


def _reasons(
    item: np.ndarray,
    step: np.ndarray,
    again: np.ndarray,
    likely: Interests,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """Reason of each listed item (R, K); ``step`` is the recent step that carries it or
    -1, ``again`` true where the user came to the item itself."""
    reason = np.full(item.shape, Reason.SEQUENCE)
    trending = checkpoint.statistics.trending_item[:TRENDING_ITEMS]
    reason[(item[:, :, None] == trending).any(2)] = Reason.TRENDING
    category = checkpoint.statistics.item_category[item]  # (R, K)
    liked = (category[:, :, None] == likely.category[:, None, :]).any(2) & (category > 0)
    reason[liked] = Reason.CATEGORY
    reason[step >= 0] = Reason.VIEWED_TOGETHER
    reason[again & (step >= 0)] = Reason.REPEATED
    return reason


def _diversity(item: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    category = checkpoint.statistics.item_category[item]  # (R, K)
    listed = item > 0
    same = (category[:, :, None] == category[:, None, :]) & listed[:, :, None] & listed[:, None, :]
    count = listed.sum(1)
    return np.asarray(1.0 - same.sum((1, 2)) / np.maximum(count, 1) ** 2)
