"""The order in which the records of the three input topics of one partition are applied.

A k-way merge, head by head: records of one topic keep the order of their offsets. The key of a
record is the running maximum of the event times in its topic, so that it never falls; ties go to
the topic that comes first in `EventType`, then to the lower offset. As the keys of a topic never
fall, the merge of any prefixes is the stable sort of their keys, and a log that has ended gives the
same order however it is cut.

Pure: no Kafka, no clock. Dimensions: T = 3 topics, N records of the cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

TOPICS = 3
NEVER = int(np.iinfo(np.int64).min)
"""The event time of a record that is no event: it takes the running maximum of its topic."""

Times = npt.NDArray[np.int64]
Triple = tuple[int, int, int]

NO_MAXIMA: Triple = (NEVER, NEVER, NEVER)


@dataclass(frozen=True)
class Cut:
    """The records that may be applied now, in their order.

    topic    (N,) int64 EventType of each record
    index    (N,) int64 its place among the pending records of its topic
    taken    pending records used up, per topic
    maxima   running maximum of each topic after the cut
    """

    topic: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    taken: Triple
    maxima: Triple

    @classmethod
    def none(cls, maxima: Triple) -> Cut:
        """No record at all."""
        nothing = np.zeros(0, np.int64)
        return cls(nothing, nothing, (0, 0, 0), maxima)

    def __len__(self) -> int:
        return len(self.topic)


def merge(
    times: Sequence[Times], maxima: Triple, awaited: Sequence[bool] = (False,) * 3, limit: int = 0
) -> Cut:
    """Merge what is pending as far as its order is certain.

    Args:
        times: per topic the event times of the pending records in offset order, `NEVER` for a
            record that is no event.
        maxima: running maximum of each topic over all records before the pending ones.
        awaited: per topic, whether more records are waited for. A record of another topic is only
            taken when it comes before whatever that topic can still bring.
        limit: records of the cut at most, 0 for no limit.
    """
    limit = limit or sum(len(part) for part in times)
    keys = [running_maximum(part[:limit], start) for part, start in zip(times, maxima, strict=True)]
    counts = [len(part) for part in keys]
    key = np.concatenate(keys)
    topic = np.repeat(np.arange(TOPICS), counts)
    order = np.argsort(key, kind="stable")  # stands topic by topic: ties by topic, then offset
    certain = np.ones(len(key), dtype=bool)
    for other in range(TOPICS):
        # Where `limit` cuts a topic short, its first `limit` records fill the cut by themselves.
        if awaited[other] and len(times[other]) == counts[other]:
            highest = keys[other][-1] if counts[other] else maxima[other]
            certain &= (topic == other) | (key < highest) | ((key == highest) & (topic < other))
    in_order = certain[order]
    stop = len(order) if in_order.all() else int(np.argmin(in_order))
    order = order[: min(stop, limit)]
    starts = np.cumsum([0, *counts[:-1]])
    taken = np.bincount(topic[order], minlength=TOPICS)
    after = [int(keys[t][taken[t] - 1]) if taken[t] else maxima[t] for t in range(TOPICS)]
    return Cut(
        topic=topic[order],
        index=order - starts[topic[order]],
        taken=(int(taken[0]), int(taken[1]), int(taken[2])),
        maxima=(after[0], after[1], after[2]),
    )


def running_maximum(times: Times, start: int) -> Times:
    """The merge keys of records in offset order, (N,): they never fall below `start`."""
    return np.maximum(np.maximum.accumulate(times), start) if len(times) else times


def awaited(next_offset: Triple, end_offset: Triple, given_up: Sequence[bool]) -> list[bool]:
    """Per topic, whether the merge waits for it: only when it has records that are not at hand.

    Args:
        next_offset: offset after the last record at hand, or after the last one applied.
        end_offset: offset that the topic's next record will get, as far as is known.
        given_up: whether the wait for the topic has lasted as long as it may.
    """
    return [
        end > after and not late
        for after, end, late in zip(next_offset, end_offset, given_up, strict=True)
    ]
