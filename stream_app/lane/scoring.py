"""Scores what the worker has said, with what users did next: before it learns from that.

Each event with an item is compared with the last list of its user, and with the items that are
popular anyway; so it is for a sample of users, whose last lists are kept in memory. A restart or
another assignment forgets them: a user then counts again from the next list on. Predictions of
categories are kept in the rows (model/kept_prediction.py) and come here when their window has
passed.

Dimensions: S users of the sample in a batch, E events with an item, L lists, P predictions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventBatch
from model.kept_prediction import Scored
from model.transition import Outputs
from stream_app.metrics import POPULARITY, WORKER, Metrics

USER_SAMPLE = 16
"""One of so many users, by a hash of the user id: the same ones for every worker."""
MAX_LISTS = 4096
"""Of a worker; the list that nobody has needed for longest goes first."""
LIST_ITEMS = 10


@dataclass(frozen=True)
class Scorable:
    """What batches bring of the users of the sample, in the order of their steps.

    users                       (S,) their keys
    place                       (S,) which users of the batches they are
    user, step, item            (E,) of each applied event: number in ``users``, step, first item
    list_user, list_step        (L,) of each list
    lists                       (L, 10) its items, 0 where there is none
    """

    users: list[bytes]
    place: np.ndarray
    user: np.ndarray
    step: np.ndarray
    item: np.ndarray
    list_user: np.ndarray
    list_step: np.ndarray
    lists: np.ndarray

    def between(self, users: slice, steps: slice) -> Scorable:
        """That of one of the batches, which has these users and steps."""
        first, stop = np.searchsorted(self.place, [users.start, users.stop]).tolist()
        events = slice(*np.searchsorted(self.step, [steps.start, steps.stop]).tolist())
        lists = slice(*np.searchsorted(self.list_step, [steps.start, steps.stop]).tolist())
        return Scorable(
            self.users[first:stop],
            self.place[first:stop] - users.start,
            self.user[events] - first,
            self.step[events] - steps.start,
            self.item[events],
            self.list_user[lists] - first,
            self.list_step[lists] - steps.start,
            self.lists[lists],
        )


def scorable(outputs: Outputs, steps: EventBatch, keys: Sequence[bytes]) -> Scorable:
    """Takes the sample out of batches; ``keys`` are those of ``steps.user``."""
    chosen = [at for at, number in enumerate(map(crc32, keys)) if number % USER_SAMPLE == 0]
    place = np.full(len(keys), -1)
    place[chosen] = np.arange(len(chosen))
    of_step = place[steps.user]  # (N,)
    is_event = (of_step >= 0) & (steps.line == 0) & (steps.item > 0) & ~outputs.duplicate
    step = np.flatnonzero(is_event)
    lists = np.flatnonzero(of_step[outputs.recommend_step] >= 0)
    list_step = outputs.recommend_step[lists]
    found = np.zeros((len(lists), LIST_ITEMS), np.int64)
    items = outputs.recommendations.item[lists, :LIST_ITEMS]
    found[:, : items.shape[1]] = items
    return Scorable(
        [keys[at] for at in chosen],
        np.array(chosen, dtype=np.int64),
        of_step[step],
        step,
        steps.item[step],
        of_step[list_step],
        list_step,
        found,
    )


def score(batch: Scorable, held: Sequence[np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
    """Which events (E,) have a list of their user before them, and whether it holds the item.

    Args:
        batch: the events and lists.
        held: the last list of each user (S,) before the batch, None where it is not known.
    """
    order = np.lexsort((batch.list_step, batch.list_user))
    own, at, lists = batch.list_user[order], batch.list_step[order], batch.lists[order]
    span = 1 + max(batch.step.max(initial=0), at.max(initial=0))
    # A list that follows the event itself is none that it can be compared with.
    last = np.searchsorted(own * span + at, batch.user * span + batch.step, side="left") - 1
    known = np.zeros(len(batch.user), dtype=bool)
    listed = np.zeros((len(batch.user), LIST_ITEMS), np.int64)
    if len(own):
        known = (last >= 0) & (own[last] == batch.user)
        listed[known] = lists[last[known]]
    before = np.zeros((len(held), LIST_ITEMS), np.int64)
    has_list = np.zeros(len(held), dtype=bool)
    for user, items in enumerate(held):
        if items is not None:
            before[user], has_list[user] = items, True
    earlier = ~known & has_list[batch.user]
    listed[earlier] = before[batch.user[earlier]]
    return known | earlier, (listed == batch.item[:, None]).any(1)


class Scoring:
    """Counts of one worker; it holds the last lists of the users of the sample.

    Args:
        checkpoint: whose popular items and base rates are the baseline.
        metrics: of the worker.
    """

    def __init__(self, checkpoint: Checkpoint, metrics: Metrics) -> None:
        named = checkpoint.statistics.item_log_popularity[: checkpoint.vocabulary.first_item_bucket]
        listed = min(LIST_ITEMS, checkpoint.top_k)
        self._popular = 1 + np.argsort(-named[1:], kind="stable")[:listed]
        self._rate = checkpoint.statistics.category_rate
        self._metrics = metrics
        self._lists: OrderedDict[bytes, np.ndarray] = OrderedDict()

    def forget(self) -> None:
        """Other workers may make lists of these users from now on."""
        self._lists.clear()

    def erase(self, key: bytes) -> None:
        """Nothing of a user stays."""
        self._lists.pop(key, None)

    def count_lists(self, batch: Scorable) -> None:
        """Compare the events of a batch with the lists before them, and keep its own."""
        known, hit = score(batch, [self._lists.get(key) for key in batch.users])
        metrics, popular = self._metrics, np.isin(batch.item, self._popular)
        metrics.scored_events_total.inc(int(known.sum()))
        metrics.list_hits_total.labels(WORKER).inc(int((hit & known).sum()))
        metrics.list_hits_total.labels(POPULARITY).inc(int((popular & known).sum()))
        for user, items in zip(batch.list_user.tolist(), batch.lists, strict=True):
            key = batch.users[user]
            self._lists[key] = items
            self._lists.move_to_end(key)
        while len(self._lists) > MAX_LISTS:
            self._lists.popitem(last=False)

    def count_predictions(self, scored: Scored) -> None:
        """Count predictions (P,) whose window has passed, beside the base rates."""
        named = scored.category > 0  # (P, 3)
        if not named.any():
            return
        happened = scored.happened[named]
        self._metrics.count_predictions(WORKER, scored.probability[named], happened)
        if self._rate is not None:
            rate = self._rate[scored.category[named]].astype(np.float64)
            self._metrics.count_predictions(POPULARITY, rate, happened)
