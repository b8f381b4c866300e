"""The events of a log file as a worker would apply them, had they come through the input topics.

A file that holds what a worker would refuse is refused as a whole: rows without those events would
not say which are missing. Dimensions: N rows of the file or steps, E events, U users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.errors import EventLogError
from model.event_log import AS_THEY_ARE, Columns, EventLog, read_event_log
from model.events import NO_OFFSET, EventBatch, EventType, Kind
from model.vocabulary import Vocabulary
from stream_app.events import (
    MAX_CATEGORY_LENGTH,
    MAX_ID_LENGTH,
    MAX_ITEMS,
    MAX_QUERY_LENGTH,
    MAX_TIMESTAMP_MS,
    MIN_TIMESTAMP_MS,
    RESERVED_KEY,
)
from stream_app.partitioner import partitions_for

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

TIME_BITS = 43
"""Of an event time in milliseconds; a group number fits above them."""


@dataclass(frozen=True)
class History:
    """The events of a file.

    steps       N steps; those of one partition stand in the order in which a worker applies them.
                `steps.user` counts into `users`, and no step has an offset
    users       user ids, (U,)
    partition   (U,) the partition that each user belongs to
    """

    steps: EventBatch
    users: list[str]
    partition: Ints

    @property
    def events(self) -> int:
        """Number of events."""
        return int(self.steps.last_line.sum())


def read_history(
    path: Path,
    partitions: int,
    vocabulary: Vocabulary,
    latest_ms: int,
    columns: Columns = AS_THEY_ARE,
) -> History:
    """The events of a log file.

    Args:
        path: the file, see `model.event_log`.
        partitions: partition count of the input topics.
        vocabulary: gives items, categories and query tokens their indices.
        latest_ms: a later event lies in the future.
        columns: what the file calls its columns and event types.

    Raises:
        EventLogError: the file cannot be read, has no event, or has one that a worker would refuse.
    """
    log = read_event_log(path, columns)
    check_events(log, str(path), latest_ms)
    return history_of(log, partitions, vocabulary)


def history_of(log: EventLog, partitions: int, vocabulary: Vocabulary) -> History:
    """The events of a log in which a worker would refuse none."""
    batch, users = as_sent(log).batch(vocabulary)
    partition = partitions_for([user.encode() for user in users], partitions)
    steps = batch.take(live_order(batch, partition))
    return History(
        replace(steps, offset=np.full(len(steps), NO_OFFSET, dtype=np.int64)), users, partition
    )


def check_events(log: EventLog, name: str, latest_ms: int) -> None:
    """Refuse a log with an event that would be a dead letter.

    Raises:
        EventLogError: with the first row that breaks a rule.
    """
    for what, wrong in _broken_rules(log, latest_ms):
        if wrong.any():
            raise EventLogError(
                f"{name} has {what} in row {int(wrong.argmax())}, which a worker would refuse; "
                "mend the row or leave it out."
            )


def _broken_rules(log: EventLog, latest_ms: int) -> Iterator[tuple[str, Bools]]:
    """What may be wrong, and (N,) with which rows."""
    head = _heads(log)
    event_type = log.event_type[head]
    is_search = event_type == EventType.SEARCH
    reserved = np.array([user.encode() == RESERVED_KEY for user in log.users])
    lines = np.bincount(head, minlength=len(log))
    is_query, is_item = is_search & (head == np.arange(len(log))), ~is_search
    yield (
        f"a user_id of more than {MAX_ID_LENGTH} characters",
        _longer(log.users, log.user, MAX_ID_LENGTH),
    )
    yield "the user_id that the local store keeps for itself", reserved[log.user]
    yield (
        f"an event_id of more than {MAX_ID_LENGTH} characters",
        _longer(log.event_ids, log.event, MAX_ID_LENGTH),
    )
    yield "a timestamp before 2000-01-01", log.time_ms < MIN_TIMESTAMP_MS
    yield "a timestamp in the future", log.time_ms > min(latest_ms, MAX_TIMESTAMP_MS)
    yield "no item_id", is_item & (log.item < 0)
    yield (
        f"an item_id of more than {MAX_ID_LENGTH} characters",
        is_item & _longer(log.items, log.item, MAX_ID_LENGTH),
    )
    yield "no query", is_query & (log.query < 0)
    yield (
        f"a query of more than {MAX_QUERY_LENGTH} characters",
        is_query & _longer(log.queries, log.query, MAX_QUERY_LENGTH),
    )
    yield (
        f"a category of more than {MAX_CATEGORY_LENGTH} characters",
        _longer(log.categories, log.category, MAX_CATEGORY_LENGTH),
    )
    yield (
        f"a purchase of more than {MAX_ITEMS} items",
        ((event_type == EventType.PURCHASE) & (lines[head] > MAX_ITEMS)),
    )


def _longer(names: Sequence[str], code: Ints, most: int) -> Bools:
    """(N,) whether a row names something of more characters than that."""
    long = np.fromiter((len(name) > most for name in names), np.bool_, len(names))
    return np.append(long, False)[code] if long.any() else np.zeros(len(code), dtype=np.bool_)


def _heads(log: EventLog) -> Ints:
    """(N,) the first row of each row's event."""
    first = np.ones(len(log), dtype=bool)
    first[1:] = log.event[1:] != log.event[:-1]
    return np.flatnonzero(first)[np.cumsum(first) - 1]


def as_sent(log: EventLog) -> EventLog:
    """The log as its records say it (see log_records.py).

    An event has the type and the time of its first row, only a purchase has more than one, a search
    has no item, and nothing else has a query.
    """
    head = _heads(log)
    event_type = log.event_type[head]
    is_purchase, is_search = event_type == EventType.PURCHASE, event_type == EventType.SEARCH
    sent = replace(
        log,
        event_type=event_type,
        time_ms=log.time_ms[head],
        kind=np.where(is_purchase, int(Kind.PURCHASE), log.kind[head]),
        item=np.where(is_search, -1, log.item),
        query=np.where(is_search, log.query, -1),
    )
    kept = is_purchase | (head == np.arange(len(log)))
    return sent if kept.all() else sent.take(kept)


def live_order(steps: EventBatch, partition: Ints) -> Ints:
    """(N,) the order in which a worker applies the steps of each partition.

    What lane/merge.py does with a log that has ended: by the running maximum of the event times of
    each topic partition; ties by topic, then by the order in the file.
    """
    topic_partition = partition[steps.user] * len(EventType) + steps.event_type
    by_group = np.argsort(topic_partition, kind="stable")
    lift = topic_partition[by_group] << TIME_BITS  # a maximum per group
    key = np.empty(len(steps), dtype=np.int64)
    key[by_group] = np.maximum.accumulate(steps.time_ms[by_group] + lift) - lift
    return np.lexsort((steps.event_type, key))
