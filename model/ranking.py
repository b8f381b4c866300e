"""Top-K items of a row: candidates, score, filter, diversify, explain.

Candidates are the neighbours of the recent items (what follows them and what stands beside them in
users' sequences), these items themselves, the popular items of the likeliest categories and the
trending ones. ``catalogue_scores`` scores every item the same way: the reference that candidates
are measured against.

An item that the vocabulary lacks shares an index with others, so nobody can name it. The one
exception is the item of the last step, for who has the event at hand. The network has learned
nothing of it: in place of its next-item logit stands the mean of the list's candidates, and its
category is that of the step.

score = lstm * (next-item logit) + transition * log(1 + amount)
        + category * (logit of the item's category) + alike * (it is the last step's category)
        + popularity * log(share of all steps) + trend * log(share of late steps)
        + seen * (the user came to it among the recent steps)
        + last * (it is the last step's item)

amount = sum over the recent steps j, newest first, of follows[j] * (share of what followed it)
         + together[j] * (cosine with it) + again[j] * (it is the item itself)

So what a step carries of an item's amount is exact. Fusion weights are learned (fusion.py).

With a diversity lambda above 0 the list is a calibrated one (Steck, Calibrated Recommendations,
RecSys 2018): of the best candidates, greedily, that of the highest

(1 - lambda) * sum of scores - lambda * KL(p || q)

where p is the user's interests as a distribution over categories, and q the list's: each item
counts 1/K, and a hundredth of p is mixed in. The sum is submodular, so greedy is near the best.

Dimensions: R rows, K list length, J recent steps looked at, N neighbour places of a row,
P candidate places of a row, E entries: the candidates of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from model import interests
from model.blocks import in_blocks
from model.checkpoint import LOOK_BACK, Checkpoint
from model.interests import Interests
from model.state import RECENT, StateBatch

NEIGHBOURS_OF_STEP = (64, 32, 20, 20, 10, 10, 10, 10)
"""Neighbours looked at of each recent step, newest first: older steps say less."""
LIKELY_CATEGORIES = 5
CATEGORY_PLACES = 50
"""Popular items of likely categories: ten of each of five, or fewer of more where categories are
small (a brand that is an item and its own category: one of each of fifty)."""
TRENDING_ITEMS = 20
POOL = 50
"""Candidates that a calibrated list is chosen from."""
SMOOTHING = 0.01
"""Share of the user's interests that is mixed into a list's, so that no divergence is infinite."""
CHUNK_ROWS = 256
"""Rows ranked together: a block size, and small enough for the processor's cache."""
SCORED_TOGETHER = 1024
"""Candidates whose embeddings are gathered together: they stay within the processor's cache."""
_POSITION_BITS = 12
_LAST_PLACE = (1 << _POSITION_BITS) - 1


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

    item, score    (R, K) vocabulary index, that of a bucket for the last step's item alone; score
                   in logits
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


def rank(
    rows: StateBatch,
    now_ms: np.ndarray,
    checkpoint: Checkpoint,
    k: int,
    last_is_known: bool = False,
) -> Recommendations:
    """The k best candidates of each row at event time ``now_ms`` (R,).

    last_is_known  the item of a row's last step may be listed though the vocabulary lacks it
    """
    if len(rows) == 0:
        none = np.zeros((0, k), np.int64)
        nothing = Interests(none, none.astype(np.float64), none.astype(np.float64))
        return Recommendations(none, none.astype(np.float32), none, none, nothing, np.zeros(0))
    chunks = [slice(at, at + CHUNK_ROWS) for at in range(0, len(rows), CHUNK_ROWS)]
    parts = [_rank(rows[part], now_ms[part], checkpoint, k, last_is_known) for part in chunks]

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


def _rank(
    rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint, k: int, last_is_known: bool
) -> Recommendations:
    out = interests.hidden_readout(rows, checkpoint)  # (R, H)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)  # (R, C)
    named = checkpoint.vocabulary.first_category_bucket
    looked_at, _ = category_places(checkpoint)
    likely = interests.top_interests(logits, named, looked_at)
    recent, position = recent_items(rows)  # (R, J)
    found = candidates(recent, likely.category, checkpoint, last_is_known)  # (R, P)
    likely = likely.first(LIKELY_CATEGORIES)
    item, carrier = found.item, found.carrier
    score = _scores(rows, out, logits, found, checkpoint)  # (R, P), -inf where none
    chosen = _choose(score, item, logits, checkpoint, k)  # (R, K) places, best first
    row = np.arange(len(rows))[:, None]
    top_item, top_score, step = item[row, chosen], score[row, chosen], carrier[row, chosen]
    again = found.own[row, chosen]
    top_item[~np.isfinite(top_score)] = 0
    step[top_item == 0] = -1
    because = np.where(step >= 0, position[row, step], -1)
    reason = _reasons(top_item, step, again, likely, checkpoint)
    return Recommendations(
        top_item, top_score, reason, because, likely, _diversity(top_item, checkpoint)
    )


def recent_items(rows: StateBatch, count: int = LOOK_BACK) -> tuple[np.ndarray, np.ndarray]:
    """Items of the last ``count`` steps, newest first, 0 = none, and their ring positions: (R, J)
    each."""
    steps = rows["steps"].astype(np.int64)[:, None]
    back = np.arange(count)
    position = (steps - 1 - back) % RECENT
    item = np.take_along_axis(rows["recent_item"], position, 1).astype(np.int64)
    return np.where(back < steps, item, 0), position


@dataclass(frozen=True)
class Candidates:
    """Distinct candidates of R rows in item order, at P places; 0 where a place holds none.

    item     (R, P) int64
    amount   (R, P) float32 what the recent steps give it
    seen     (R, P) bool: it is among the recent items
    carrier  (R, P) the recent step that gives most, -1 for none
    own      (R, P) bool: it gives most because it is the item itself
    order    (R, P) the place that stood here before the places were sorted
    starts   flat indices of the first places of runs of equal items
    """

    item: np.ndarray
    amount: np.ndarray
    seen: np.ndarray
    carrier: np.ndarray
    own: np.ndarray
    order: np.ndarray
    starts: np.ndarray


def neighbour_places(checkpoint: Checkpoint) -> list[int]:
    """How many neighbours are looked at of each recent step, (J,); N is their sum."""
    kept = checkpoint.statistics.neighbour_item.shape[1]
    return [min(count, kept) for count in NEIGHBOURS_OF_STEP]


def category_places(checkpoint: Checkpoint) -> tuple[int, int]:
    """How many likely categories are looked at, and how many popular items of each."""
    held = checkpoint.statistics.longest_category
    items = min(max(held, 1), CATEGORY_PLACES // LIKELY_CATEGORIES)
    return CATEGORY_PLACES // items, items


def neighbours_of(
    recent: np.ndarray, checkpoint: Checkpoint
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours of the recent items, their shares of what followed, their cosines: (R, N)."""
    statistics = checkpoint.statistics
    places = neighbour_places(checkpoint)
    total = sum(places)
    item = np.empty((len(recent), total), np.int64)
    follows = np.empty((len(recent), total), np.float32)
    together = np.empty((len(recent), total), np.float32)
    end = 0
    for step, count in enumerate(places):
        part, end = slice(end, end + count), end + count
        of = recent[:, step]
        item[:, part] = statistics.neighbour_item[of, :count]
        follows[:, part] = statistics.neighbour_follows[of, :count]
        together[:, part] = statistics.neighbour_together[of, :count]
    return item, follows, together


def _amounts(
    recent: np.ndarray, follows: np.ndarray, together: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """What each neighbour place, and behind them each recent item itself, adds: (R, N + J)."""
    weights = checkpoint.ranking
    places = neighbour_places(checkpoint)
    of_step = [np.array(w, np.float32) for w in (weights.follows, weights.together, weights.again)]
    total = follows.shape[1]
    amount = np.empty((len(recent), total + LOOK_BACK), np.float32)
    np.multiply(follows, np.repeat(of_step[0], places), out=amount[:, :total])
    amount[:, :total] += together * np.repeat(of_step[1], places)
    amount[:, total:] = of_step[2] + of_step[0] * checkpoint.statistics.item_again[recent]
    return amount


def candidates(
    recent: np.ndarray, likely: np.ndarray, checkpoint: Checkpoint, last_is_known: bool = False
) -> Candidates:
    """The candidates of rows with these recent items (R, J) and likely categories, best first.

    A candidate of several sources stands once, with its amounts added.
    """
    statistics = checkpoint.statistics
    count, steps = recent.shape
    neighbour, follows, together = neighbours_of(recent, checkpoint)
    popular = statistics.category_item[likely, : category_places(checkpoint)[1]]
    trending = statistics.trending_item[:TRENDING_ITEMS]
    near = neighbour.shape[1]
    known = near + steps
    listed = known + popular[0].size
    places = listed + len(trending) + 1
    item = np.empty((count, places), np.int64)
    item[:, :near] = neighbour
    item[:, near:known] = recent
    item[:, known:listed] = popular.reshape(count, -1)
    item[:, listed:-1] = trending
    item[:, -1] = 0  # sorts to the front, where ``best`` points when no candidate is left
    unnamed = item >= checkpoint.vocabulary.first_item_bucket
    if last_is_known:
        unnamed &= item != recent[:, :1]
    item[unnamed] = 0
    item <<= _POSITION_BITS
    item |= np.arange(places)
    item.sort(axis=1)
    order = item & _LAST_PLACE
    item >>= _POSITION_BITS
    starts, first = _runs(item)
    amount = np.zeros((count, places), np.float32)
    amount[:, :known] = _amounts(recent, follows, together, checkpoint)
    amount = np.take_along_axis(amount, order, 1)
    came = (order >= near) & (order < known)
    total = _at(starts, np.add.reduceat(amount.ravel(), starts), item.shape)
    seen = _at(starts, np.logical_or.reduceat(came.ravel(), starts), item.shape)
    # What carries most has the highest key; the bits of a float above 0 order as it does.
    place = (amount.view(np.uint32).astype(np.int64) << _POSITION_BITS) | (_LAST_PLACE - order)
    place[amount == 0] = 0
    best = _at(starts, np.maximum.reduceat(place.ravel(), starts), item.shape)
    heaviest = _LAST_PLACE - (best & _LAST_PLACE)
    of_place = np.full(_LAST_PLACE + 1, -1)
    of_place[:known] = np.r_[np.repeat(np.arange(steps), neighbour_places(checkpoint)), :steps]
    carrier = np.where(best > 0, of_place[heaviest], -1)
    own = (best > 0) & (heaviest >= near)
    item[~first] = 0
    return Candidates(item, total, seen, carrier, own, order, starts)


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


@dataclass(frozen=True)
class Parts:
    """What a score is fused of, each (E,) float32 but ``row`` and ``item``; see above."""

    row: np.ndarray
    item: np.ndarray
    lstm: np.ndarray
    category: np.ndarray
    alike: np.ndarray
    popularity: np.ndarray
    trend: np.ndarray
    seen: np.ndarray
    last: np.ndarray

    LINEAR: ClassVar = ("lstm", "category", "alike", "popularity", "trend", "seen", "last")


def score_parts(
    rows: StateBatch,
    out: np.ndarray,
    logits: np.ndarray,
    found: Candidates,
    checkpoint: Checkpoint,
) -> tuple[np.ndarray, Parts]:
    """Flat places of the candidates that are there, (E,), and what their scores are fused of.

    out     (R, H) what the heads read of each row
    logits  (R, C) category logits
    """
    network, statistics = checkpoint.network, checkpoint.statistics
    place = np.flatnonzero(found.item)
    row = place // found.item.shape[1]
    item = found.item.ravel()[place]
    table = network.item.weight.detach().numpy()
    own = np.empty(len(item), np.float32)
    for at in range(0, len(item), SCORED_TOGETHER):
        part = slice(at, at + SCORED_TOGETHER)
        own[part] = np.einsum("mh,mh->m", table.take(item[part], 0), out.take(row[part], 0))
    own += network.item_bias.detach().numpy().take(item)
    category = statistics.item_category[item]
    last_item, last_category = interests.last_step(rows)
    unnamed = np.flatnonzero(item >= checkpoint.vocabulary.first_item_bucket)
    if len(unnamed):
        of = row[unnamed]
        mean = np.bincount(row, own) / np.maximum(np.bincount(row), 1)
        own[unnamed], category[unnamed] = mean[of], last_category[of]
    return place, Parts(
        row,
        item,
        own,
        logits[row, category],
        (category == last_category[row]) & (category > 0),
        statistics.item_log_popularity[item],
        statistics.item_log_trend[item],
        found.seen.ravel()[place],
        item == last_item[row],
    )


def _scores(
    rows: StateBatch,
    out: np.ndarray,
    logits: np.ndarray,
    found: Candidates,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """Scores of the candidates (R, P), -inf where the place holds none."""
    score = np.full(found.item.shape, -np.inf, np.float32)
    place, parts = score_parts(rows, out, logits, found, checkpoint)
    amount = found.amount.ravel()[place]
    score.ravel()[place] = _fuse(
        amount,
        parts.lstm,
        parts.category,
        parts.alike,
        parts.popularity,
        parts.trend,
        parts.seen,
        parts.last,
        checkpoint,
    )
    return score


def _fuse(
    amount: np.ndarray,
    lstm: np.ndarray,
    category: np.ndarray,
    alike: np.ndarray,
    popularity: np.ndarray,
    trend: np.ndarray,
    seen: np.ndarray,
    last: np.ndarray,
    checkpoint: Checkpoint,
) -> np.ndarray:
    weights = checkpoint.ranking
    return np.asarray(
        weights.lstm * lstm
        + weights.transition * np.log1p(amount)
        + weights.category * category
        + weights.alike * alike
        + weights.popularity * popularity
        + weights.trend * trend
        + weights.seen * seen
        + weights.last * last,
        dtype=np.float32,
    )


def catalogue_scores(rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint) -> np.ndarray:
    """Scores of every item for each row, (R, I); -inf for index 0 and the unnamed buckets."""
    statistics = checkpoint.statistics
    out = interests.hidden_readout(rows, checkpoint)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)
    own = in_blocks(checkpoint.network.item_logits, out)  # (R, I)
    recent, _ = recent_items(rows)
    neighbour, follows, together = neighbours_of(recent, checkpoint)
    amount = np.zeros(own.shape, np.float32)
    row = np.arange(len(rows))[:, None]
    np.add.at(
        amount,
        (row, np.concatenate((neighbour, recent), 1)),
        _amounts(recent, follows, together, checkpoint),
    )
    seen = np.zeros(own.shape, dtype=bool)
    seen[row, recent] = True
    last = interests.last_step(rows)[1][:, None]
    scores = _fuse(
        amount,
        own,
        logits[:, statistics.item_category],
        (statistics.item_category == last) & (last > 0),
        statistics.item_log_popularity,
        statistics.item_log_trend,
        seen,
        np.arange(own.shape[1]) == recent[:, :1],
        checkpoint,
    )
    scores[:, 0] = -np.inf
    scores[:, checkpoint.vocabulary.first_item_bucket :] = -np.inf
    return scores


def item_scores(
    rows: StateBatch, now_ms: np.ndarray, item: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """Scores of some items of each row, (R, K) as ``item``: those of ``catalogue_scores``."""
    network, statistics = checkpoint.network, checkpoint.statistics
    out = interests.hidden_readout(rows, checkpoint)
    logits = interests.category_logits(rows, out, now_ms // 1000, checkpoint)
    recent, _ = recent_items(rows)
    neighbour, follows, together = neighbours_of(recent, checkpoint)
    near = np.concatenate((neighbour, recent), 1)  # (R, N + J)
    amounts = _amounts(recent, follows, together, checkpoint)
    amount = np.stack([(amounts * (near == each[:, None])).sum(1) for each in item.T], 1)
    own = np.einsum("rkh,rh->rk", network.item.weight.detach().numpy()[item], out)
    category = statistics.item_category[item]
    last = interests.last_step(rows)[1][:, None]
    return _fuse(
        amount,
        own + network.item_bias.detach().numpy()[item],
        np.take_along_axis(logits, category, 1),
        (category == last) & (last > 0),
        statistics.item_log_popularity[item],
        statistics.item_log_trend[item],
        (item[:, :, None] == recent[:, None, :]).any(2),
        item == recent[:, :1],
        checkpoint,
    )


def _choose(
    score: np.ndarray, item: np.ndarray, logits: np.ndarray, checkpoint: Checkpoint, k: int
) -> np.ndarray:
    """Places of the k best of each row, best first; ties go to the lower item (R, K)."""
    if checkpoint.ranking.diversity <= 0:
        return interests.best(score, k)
    top = interests.best(score, max(POOL, k))
    return _calibrated(top, score, item, logits, checkpoint, k)


def _calibrated(
    top: np.ndarray,
    score: np.ndarray,
    item: np.ndarray,
    logits: np.ndarray,
    checkpoint: Checkpoint,
    k: int,
) -> np.ndarray:
    """Greedy choice from the pool of places ``top``: what an item adds to scores less divergence.

    An item moves its category's share of the list alone, so the divergence falls by p times the
    log of what that share grows by.
    """
    weight = checkpoint.ranking.diversity
    category = checkpoint.statistics.item_category[np.take_along_axis(item, top, 1)]  # (R, POOL)
    liked = interests.shares(logits, checkpoint.vocabulary.first_category_bucket)
    liked = np.take_along_axis(liked, category, 1)
    relevance = (1 - weight) * np.take_along_axis(score, top, 1).astype(np.float64)
    step = (1 - SMOOTHING) / k
    share = np.maximum(SMOOTHING * liked, 1e-12)  # of the category in the list, smoothed
    row = np.arange(len(top))
    picked = np.empty((len(top), min(k, top.shape[1])), np.int64)
    for place in range(picked.shape[1]):
        best = (relevance + weight * liked * np.log1p(step / share)).argmax(1)
        picked[:, place] = top[row, best]
        share += step * (category == category[row, best][:, None])
        relevance[row, best] = -np.inf
    return picked


def _reasons(
    item: np.ndarray,
    step: np.ndarray,
    again: np.ndarray,
    likely: Interests,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """Reason of each listed item (R, K); ``step`` is the recent step that carries it or
    -1, ``again`` true where that is because the user came to the item itself."""
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
