"""What a log can be counted for: the frozen statistics of a checkpoint.

Dimensions: N steps, I items, C categories, K neighbours, T top items.
"""

from __future__ import annotations

import numpy as np

from model.checkpoint import TEMPERATURES, Statistics
from model.events import EventBatch
from model.grouping import category_groups
from model.vocabulary import Vocabulary

NEIGHBOURS = 20
TOP_ITEMS = 20
NEIGHBOUR_STEPS = 5
"""An item counts as followed by the items of so many next steps of the user, each step less."""
STEP_DECAY = 0.6
PRIOR_WEIGHT = 1.0
"""Added to what followed an item: a single sighting is no certainty."""


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
    neighbour_item, neighbour_weight = count_neighbours(named, items, horizon_s)
    return Statistics(
        item_category=item_category,
        category_group=category_groups(steps.user, steps.category, categories),
        item_log_popularity=np.log(count / count.sum()).astype(np.float32),
        neighbour_item=neighbour_item,
        neighbour_weight=neighbour_weight,
        category_item=_top_of_categories(recent, item_category, categories),
        trending_item=_best(latest, np.arange(items), TOP_ITEMS),
        half_life_s=half_life_s,
        temperature=np.ones(TEMPERATURES, dtype=np.float32),
    )


def count_neighbours(
    named: EventBatch, items: int, horizon_s: int, k: int = NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Items that followed each item in users' sequences, best first: (I, K) indices and shares.

    An item may follow itself. Pairs weigh ``STEP_DECAY`` less per step between them and half as
    much when they are three horizons older.
    """
    steps = by_user(named)
    item, user = steps.item, steps.user
    age_s = (steps.time_ms.max(initial=0) - steps.time_ms) / 1000
    weight = np.exp2(-age_s / (3 * horizon_s))
    keys, weights = [], []
    for distance in range(1, NEIGHBOUR_STEPS + 1):
        same = np.flatnonzero(user[distance:] == user[:-distance])
        keys.append(item[same] * items + item[same + distance])
        weights.append(weight[same + distance] * STEP_DECAY ** (distance - 1))
    pairs, where = np.unique(np.concatenate(keys), return_inverse=True)
    total = np.bincount(where, np.concatenate(weights), minlength=len(pairs))
    source, target = np.divmod(pairs, items)
    followed = np.bincount(source, total, minlength=items) + PRIOR_WEIGHT
    order = np.lexsort((target, -total, source))
    source, target, total = source[order], target[order], total[order]
    starts = np.searchsorted(source, np.arange(items))
    place = np.arange(len(source)) - starts[source]
    kept = place < k
    neighbour_item = np.zeros((items, k), dtype=np.int64)
    neighbour_weight = np.zeros((items, k), dtype=np.float32)
    neighbour_item[source[kept], place[kept]] = target[kept]
    neighbour_weight[source[kept], place[kept]] = total[kept] / followed[source[kept]]
    return neighbour_item, neighbour_weight


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
