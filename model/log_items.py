"""Items of a log by numbers of their own, those included that share an index of the vocabulary.

A list may hold the index of such an item where it is that of the row's last step (ranking.py); a
log knows which item that was. Dimensions: N steps, R lists, K list length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.event_log import EventLog
from model.vocabulary import Vocabulary


@dataclass(frozen=True)
class LogItems:
    """Numbers and names of a log's items.

    number   (N,) the vocabulary's index, or one behind all of them for an item that it lacks;
             0 = none
    names    ``names[number - 1]`` is the name of an item
    buckets  the indices that items of the vocabulary share
    """

    number: np.ndarray
    names: list[str]
    buckets: range

    def completed(self, lists: np.ndarray, step: np.ndarray) -> np.ndarray:
        """The lists (R, K) with numbers of their own; each was made after a step (R,)."""
        last = self.number[step][:, None]
        shared = (lists >= self.buckets.start) & (lists < self.buckets.stop)
        return np.where(shared, last, lists)


def log_items(log: EventLog, item: np.ndarray, vocabulary: Vocabulary) -> LogItems:
    """The items of a log whose steps have these indices (N,)."""
    shared = item >= vocabulary.first_item_bucket
    nameless = [""] * vocabulary.item_buckets
    return LogItems(
        number=np.where(shared, vocabulary.items + log.item, item),
        names=[*vocabulary.item_names, *nameless, *log.items],
        buckets=range(vocabulary.first_item_bucket, vocabulary.items),
    )
