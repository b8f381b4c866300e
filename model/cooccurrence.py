"""What goes with what: how much oftener than by chance categories are touched near each other.

Dimensions: C categories, I items, E pairs, P length of a profile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from model.counting import TOGETHER_PRIOR, Pairs, near_categories, shares, together_pairs
from model.events import EventBatch

RATE_FLOOR = 1e-4
ITEM_PRIOR = 30.0
"""Added to what is near an item, which is seen less often than a category."""
POWER_ITERATIONS = 6
OVERSAMPLING = 8


@dataclass(frozen=True)
class CoOccurrence:
    """Pairs of categories that users touch near each other, and of items and categories.

    pairs       each in both directions; the weight (E,) is the target's share of what is near the
                source
    rate        (C,) the share of each category of what is near any
    item_pairs  the same from items to categories that are not theirs
    """

    pairs: Pairs
    rate: np.ndarray
    item_pairs: Pairs

    def neighbours(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k categories nearest to each, and their shares: (C, K) both, 0 = none."""
        return self.pairs.best(len(self.rate), k)

    def item_neighbours(self, items: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k categories nearest to each item, and their shares: (I, K) both, 0 = none."""
        return self.item_pairs.best(items, k)

    @property
    def lift(self) -> np.ndarray:
        """How much oftener than near any category the target is near the source, (E,)."""
        return np.asarray(self.pairs.weight / (self.rate + RATE_FLOOR)[self.pairs.target])

    def factors(self, level: float, size: int) -> tuple[np.ndarray, np.ndarray]:
        """(source, target), each (C, P) float32: what touching the one says of the other.

        The table ``source @ target.T`` is log(1 + e^level * lift), as near as P factors come: the
        smooth form of the shifted positive mutual information whose factors are word embeddings
        (Levy and Goldberg 2014). The mean of its rows over a user's categories is what naive Bayes
        adds to a log-odds.
        """
        categories = len(self.rate)
        rank = min(size, categories)
        source, target = (np.zeros((categories, size), np.float32) for _ in range(2))
        if len(self.pairs.weight) == 0:
            return source, target
        place = torch.from_numpy(np.stack((self.pairs.source, self.pairs.target)))
        table = torch.sparse_coo_tensor(
            place,
            torch.from_numpy(np.log1p(np.exp(level) * self.lift)),
            (categories, categories),
            check_invariants=True,
        ).coalesce()
        wide = min(rank + OVERSAMPLING, categories)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            left, values, right = torch.svd_lowrank(table, wide, POWER_ITERATIONS)
        # half to each side, so that neither leaves the bounds of a checkpoint's weights
        root = values[:rank].sqrt()
        source[:, :rank], target[:, :rank] = left[:, :rank] * root, right[:, :rank] * root
        source[0] = target[0] = 0.0
        return source, target


def count_together(steps: EventBatch, categories: int, items: int) -> CoOccurrence:
    """Which categories users touch within some steps of each other, or of an item, and how often.

    ``TOGETHER_PRIOR`` is added to what is near a category: a few sightings are no certainty.
    """
    named = steps.take(steps.category > 0)
    pairs = together_pairs(replace(named, item=named.category), categories)
    near = np.bincount(pairs.source, pairs.weight, minlength=categories)  # (C,)
    return CoOccurrence(
        shares(pairs, categories, TOGETHER_PRIOR),
        near / max(float(near.sum()), 1e-9),
        shares(near_categories(named, items, categories), items, ITEM_PRIOR),
    )
