"""What a log can be counted for: the frozen statistics of a checkpoint.

Dimensions: N steps, I items, C categories, K neighbours, T top items, E pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.checkpoint import Statistics
from model.events import SESSION_GAP_S, EventBatch
from model.grouping import category_groups
from model.vocabulary import Vocabulary
from model.windows import Decay, UserSteps

NEIGHBOURS = 64
TOP_ITEMS = 20
TREND_PRIOR = 0.02
FOLLOW_STEPS = 5
"""An item counts as followed by the items of so many next steps of the user, each step less."""
FOLLOW_DECAY = 0.6
FOLLOW_HORIZONS = 12
"""A pair weighs half as much when it is so many horizons older."""
APART = 0.1
"""What a pair with a longer gap between its steps counts as following."""
PRIOR_WEIGHT = 1.0
"""Added to what followed an item: a single sighting is no certainty."""
RATE_WINDOWS = 10_000
"""Windows that the base rates of categories are counted in, at most."""
TOGETHER_STEPS = 20
TOGETHER_DECAY = 0.95
TOGETHER_PRIOR = 10.0
TOGETHER_MERIT = 3.0
"""What the cosine of a pair counts beside its share when neighbours are put in order."""


def by_user(steps: EventBatch) -> EventBatch:
    """The steps with each user's own standing together, in replay order."""
    return steps.take(np.argsort(steps.user, kind="stable"))


def count_statistics(
    steps: EventBatch, vocabulary: Vocabulary, half_life_s: np.ndarray, horizon_s: int
) -> Statistics:
    """Counts of a log's steps; recent ones weigh more, by half-lives derived from the horizon."""
    items, categories = vocabulary.items, vocabulary.categories
    named = steps.take(steps.item > 0)
    age_s = (named.time_ms.max(initial=0) - named.time_ms) / 1000
    item_category = _main_category(named, items, categories)
    count = np.bincount(named.item, minlength=items).astype(np.float64)
    recent = np.bincount(named.item, np.exp2(-age_s / horizon_s), minlength=items)
    latest = np.bincount(named.item, np.exp2(-age_s / (horizon_s / 10)), minlength=items)
    count += 0.1
    count[0] = 0.1
    neighbours = count_neighbours(named, items, horizon_s)
    shown = np.log((recent + TREND_PRIOR) / (recent + TREND_PRIOR).sum())
    return Statistics(
        item_category=item_category,
        category_group=category_groups(steps.user, steps.category, categories),
        item_log_popularity=np.log(count / count.sum()).astype(np.float32),
        item_log_trend=shown.astype(np.float32),
        item_again=neighbours.again,
        neighbour_item=neighbours.item,
        neighbour_follows=neighbours.follows,
        neighbour_together=neighbours.together,
        category_item=_top_of_categories(recent, item_category, categories),
        trending_item=_best(latest, np.arange(items), TOP_ITEMS),
        half_life_s=half_life_s,
        category_rate=category_rates(steps, categories, half_life_s, horizon_s),
    )


def category_rates(
    steps: EventBatch, categories: int, half_life_s: np.ndarray, horizon_s: int
) -> np.ndarray | None:
    """How often a user touches each category within the horizon after a step, (C,) float32.

    Counted in windows at steps, evenly drawn from the last horizon of them that the log sees the
    end of; None when it sees the end of none.
    """
    users = UserSteps(by_user(steps))
    last_s = int(users.clock_s.max(initial=0)) - horizon_s
    step = np.flatnonzero((users.clock_s <= last_s) & (users.clock_s > last_s - horizon_s))
    if len(step) == 0:
        return None
    chosen = step[:: -(-len(step) // RATE_WINDOWS)]
    windows = users.windows(chosen, users.clock_s[chosen], Decay(half_life_s), horizon_s)
    touched = np.bincount(windows.labels.category, minlength=categories)
    rate = (touched + 0.1) / (len(windows) + 1.0)
    rate[0] = 0.0
    return np.minimum(rate, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Pairs:
    """E ordered pairs of items that users have near each other, each once, with a weight."""

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def best(self, items: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k heaviest targets of each source, best first: (I, K) items and weights, 0 = none."""
        kept, at = _heaviest(self.source, self.target, self.weight, k)
        item = np.zeros((items, k), dtype=np.int64)
        weight = np.zeros((items, k), dtype=np.float32)
        item[at] = self.target[kept]
        weight[at] = self.weight[kept]
        return item, weight


@dataclass(frozen=True)
class Neighbours:
    """What a checkpoint keeps of the pairs; see ``Statistics``."""

    item: np.ndarray
    follows: np.ndarray
    together: np.ndarray
    again: np.ndarray


def count_neighbours(
    named: EventBatch, items: int, horizon_s: int, k: int = NEIGHBOURS
) -> Neighbours:
    """The k best neighbours of each item by both kinds of pairs; an item is none of itself."""
    return neighbours(follow_pairs(named, items, horizon_s), together_pairs(named, items), items, k)


def neighbours(follow: Pairs, together: Pairs, items: int, k: int = NEIGHBOURS) -> Neighbours:
    """The same from the summed weights of ``follow_pairs`` and ``together_pairs``."""
    kinds = follow_shares(follow, items), together_cosines(together, items)
    keys = [pairs.source * items + pairs.target for pairs in kinds]
    key = np.union1d(*keys)
    both = np.zeros((2, len(key)))
    for column, (of, pairs) in enumerate(zip(keys, kinds, strict=True)):
        both[column, np.searchsorted(key, of)] = pairs.weight
    source, target = np.divmod(key, items)
    again = np.zeros(items, dtype=np.float32)
    itself = source == target
    again[source[itself]] = both[0, itself]
    source, target, both = source[~itself], target[~itself], both[:, ~itself]
    kept, at = _heaviest(source, target, both[0] + TOGETHER_MERIT * both[1], k)
    item = np.zeros((items, k), dtype=np.int64)
    item[at] = target[kept]
    weights = np.zeros((2, items, k), dtype=np.float32)
    weights[:, at[0], at[1]] = both[:, kept]
    return Neighbours(item, weights[0], weights[1], again)


def follow_pairs(named: EventBatch, items: int, horizon_s: int) -> Pairs:
    """What came after each item in users' sequences, an item itself among them.

    Pairs weigh ``FOLLOW_DECAY`` less per step between them, and ``APART`` where the user was away
    in between.
    """
    steps = by_user(named)
    age_s = (steps.time_ms.max(initial=0) - steps.time_ms) / 1000
    weight = np.exp2(-age_s / (FOLLOW_HORIZONS * horizon_s))
    key, weights = _pairs(steps, steps.item, items, weight, FOLLOW_STEPS, FOLLOW_DECAY, APART)
    return _summed(key, weights, items)


def follow_shares(pairs: Pairs, items: int) -> Pairs:
    """Each pair's share of what came after its source."""
    return shares(pairs, items, PRIOR_WEIGHT)


def shares(pairs: Pairs, sources: int, prior: float) -> Pairs:
    """Each pair's share of all that its source has, and of ``prior`` besides."""
    total = np.bincount(pairs.source, pairs.weight, minlength=sources) + prior
    return replace(pairs, weight=pairs.weight / total[pairs.source])


def together_pairs(named: EventBatch, items: int) -> Pairs:
    """What users have beside each item, in both directions, whichever came first.

    Pairs weigh ``TOGETHER_DECAY`` less per step between them, and as much whenever they came.
    """
    steps = by_user(named)
    weight = np.ones(len(steps))
    key, weights = _pairs(steps, steps.item, items, weight, TOGETHER_STEPS, TOGETHER_DECAY)
    one, other = np.divmod(key, items)
    apart = one != other
    key = np.concatenate((key[apart], other[apart] * items + one[apart]))
    return _summed(key, np.tile(weights[apart], 2), items)


def near_categories(named: EventBatch, items: int, categories: int) -> Pairs:
    """Which other categories users have beside each item, whichever came first: item, category.

    Weighted as in ``together_pairs``.
    """
    steps = by_user(named)
    keys, weights = [], []
    for way in (steps, steps.take(np.arange(len(steps))[::-1])):
        weight = np.ones(len(way))
        found = _pairs(way, way.category, categories, weight, TOGETHER_STEPS, TOGETHER_DECAY)
        keys.append(found[0])
        weights.append(found[1])
    pairs = _summed(np.concatenate(keys), np.concatenate(weights), categories)
    own = np.zeros(items, np.int64)
    own[steps.item] = steps.category
    other = (pairs.source > 0) & (pairs.target != own[pairs.source])
    return Pairs(pairs.source[other], pairs.target[other], pairs.weight[other])


def together_cosines(pairs: Pairs, items: int) -> Pairs:
    """Each pair's weight over the root of what its two items have in all."""
    norm = np.sqrt(np.bincount(pairs.source, pairs.weight, minlength=items) + TOGETHER_PRIOR)
    return replace(pairs, weight=pairs.weight / (norm[pairs.source] * norm[pairs.target]))


def merged(older: Pairs, newer: Pairs, fade: float, items: int, k: int) -> Pairs:
    """Both sums with the older one times ``fade``, the k heaviest pairs of each source."""
    source = np.concatenate((older.source, newer.source))
    key = source * items + np.concatenate((older.target, newer.target))
    pairs = _summed(key, np.concatenate((fade * older.weight, newer.weight)), items)
    kept = np.sort(_heaviest(pairs.source, pairs.target, pairs.weight, k)[0])
    return Pairs(pairs.source[kept], pairs.target[kept], pairs.weight[kept])


def _pairs(
    steps: EventBatch,
    target: np.ndarray,
    size: int,
    weight: np.ndarray,
    distances: int,
    decay: float,
    apart: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """What one user has up to so many steps after each item; the later step weighs.

    target  (N,) of the steps, below ``size``: item * size + target is the key of a pair

    Returns (keys, weights), a pair as often as it is there.
    """
    item, user = steps.item, steps.user
    keys, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for distance in range(1, distances + 1):
        same = np.flatnonzero(user[distance:] == user[:-distance])
        later = same + distance
        keys.append(item[same] * size + target[later])
        away = steps.time_ms[later] - steps.time_ms[same] > SESSION_GAP_S * 1000
        weights.append(weight[later] * decay ** (distance - 1) * np.where(away, apart, 1.0))
    return np.concatenate(keys), np.concatenate(weights)


def _summed(key: np.ndarray, weight: np.ndarray, items: int) -> Pairs:
    keys, where = np.unique(key, return_inverse=True)
    return Pairs(*np.divmod(keys, items), np.bincount(where, weight, minlength=len(keys)))


def _heaviest(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, k: int
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """The pairs that are among the k heaviest of their source, and (source, place) of each."""
    order = np.lexsort((target, -weight, source))
    place = np.arange(len(order)) - np.searchsorted(source[order], source[order])
    kept = order[place < k]
    return kept, (source[kept], place[place < k])


def _main_category(named: EventBatch, items: int, categories: int) -> np.ndarray:
    """The category an item mostly comes with, (I,); ties go to the lower index."""
    with_category = named.category > 0
    pairs, count = np.unique(
        named.item[with_category] * categories + named.category[with_category], return_counts=True
    )
    item, category = np.divmod(pairs, categories)
    order = np.lexsort((-category, count))  # the last assignment of an index holds
    main = np.zeros(items, dtype=np.int64)
    main[item[order]] = category[order]
    return main


def _top_of_categories(
    weight: np.ndarray, item_category: np.ndarray, categories: int
) -> np.ndarray:
    """The heaviest items of each category, best first, (C, T); 0 = none."""
    seen = np.flatnonzero(weight > 0)
    order = seen[np.lexsort((seen, -weight[seen], item_category[seen]))]
    category = item_category[order]
    place = np.arange(len(order)) - np.searchsorted(category, np.arange(categories))[category]
    kept = (place < TOP_ITEMS) & (category > 0)
    top = np.zeros((categories, TOP_ITEMS), dtype=np.int64)
    top[category[kept], place[kept]] = order[kept]
    return top


def _best(weight: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The k heaviest items, best first, 0 where there are fewer: (k,)."""
    order = items[np.lexsort((items, -weight))][:k]
    best = np.zeros(k, dtype=np.int64)
    best[: len(order)] = np.where(weight[order] > 0, order, 0)
    return best
