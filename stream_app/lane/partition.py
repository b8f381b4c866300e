"""One partition of the lane: the decoded records that wait, and what may be applied next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from faust.types import TP

from model.events import EventType
from stream_app.control import Erase, decode_request
from stream_app.errors import WorkerError
from stream_app.events import Event, Rejection
from stream_app.lane.fence import Fence
from stream_app.lane.intake import Poll
from stream_app.lane.journal import JournalEntry
from stream_app.lane.merge import NEVER, NO_MAXIMA, TOPICS, Cut, Triple, awaited, merge
from stream_app.lane.stored_rows import Markers, user_hash
from stream_app.lane.sweep import swept_after

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass
class Pending:
    """Decoded records of one topic partition, in offset order, that are not merged yet.

    P records: `events` is None where a record is refused, and `rejections` has why, by offset.
    """

    next_offset: int
    records: list[Any]
    events: list[Event | None]
    rejections: dict[int, Rejection]
    offsets: Ints
    times: Ints
    fetched_s: Floats

    @classmethod
    def at(cls, offset: int) -> Pending:
        """Nothing pending; the next record has this offset or a higher one."""
        none = np.zeros(0, np.int64)
        return cls(offset, [], [], {}, none, none, np.zeros(0))

    def add(self, poll: Poll, events: list[Event | None], rejections: list[Rejection]) -> None:
        """Append the decoded records of a poll, which may have none and move the offset alone.

        Raises:
            WorkerError: the poll does not go on where the one before it ended.
        """
        records = poll.records
        begins = records[0].offset if records else poll.end
        skipped = poll.start is not None and poll.start > self.next_offset
        if skipped or begins < self.next_offset:
            first = records[0] if records else None
            where = f"{first.topic} partition {first.partition}" if first else "An input topic"
            raise WorkerError(
                f"{where} went on with offset {begins} where {self.next_offset} was due; start the "
                "worker again, it goes on from the committed offsets."
            )
        self.next_offset = max(poll.end, records[-1].offset + 1 if records else 0)
        if not records:
            return
        offsets = np.array([record.offset for record in records], dtype=np.int64)
        times = np.array(
            [NEVER if event is None else event.timestamp_ms for event in events], dtype=np.int64
        )
        for rejection in rejections:
            self.rejections[records[rejection.index].offset] = rejection
        self.records += records
        self.events += events
        self.offsets = np.concatenate((self.offsets, offsets))
        self.times = np.concatenate((self.times, times))
        fetched_s = np.full(len(records), poll.fetched_s)
        self.fetched_s = np.concatenate((self.fetched_s, fetched_s))

    def drop(self, count: int) -> None:
        """Remove the first `count` records."""
        del self.records[:count], self.events[:count]
        self.offsets, self.times = self.offsets[count:], self.times[count:]
        self.fetched_s = self.fetched_s[count:]

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Refused:
    """A record that is no event, and the topic it comes from."""

    topic: EventType
    record: Any
    rejection: Rejection


@dataclass(frozen=True)
class Batch:
    """Records taken out of a partition, in the order in which they are applied.

    events, event_type, offset   the events and their places, (E,)
    produced_ms                  (E,) when the record was produced
    fetched_s                    (E,) when it was fetched, in seconds of the wall clock
    refused                      the records that are no events
    entry                        what the journal says of the batch
    replayed                     the entry stands in the journal already
    sizes                        per topic the number of records and their bytes
    """

    events: list[Event]
    event_type: Ints
    offset: Ints
    produced_ms: Ints
    fetched_s: Floats
    refused: list[Refused]
    entry: JournalEntry
    replayed: bool
    sizes: list[tuple[int, int]]


@dataclass(frozen=True)
class Erasure:
    """A user who is to be erased between two batches.

    offset     of the request in the control topic
    request    None when its record is gone, because its receipt has been written
    entry      what the journal says of it
    replayed   the entry stands in the journal already
    """

    offset: int
    request: Erase | None
    entry: JournalEntry
    replayed: bool


@dataclass(frozen=True)
class Origin:
    """Where the lane begins with a partition.

    start      offset of the first record to apply, per topic
    maxima     running maxima of the event times before `start`
    replay     entries of the journal that reach beyond `start`
    control    offset of the first request of the control topic
    swept_ms   rows whose last event is older have expired
    epochs     of the input topics
    term       of the entries that are written from here on, see journal.py
    until      offset per topic at which the lane ends, None where it goes on
    """

    start: Triple
    maxima: Triple = NO_MAXIMA
    replay: Sequence[JournalEntry] = ()
    control: int = 0
    swept_ms: int = NEVER
    epochs: Triple = (0, 0, 0)
    until: Triple | None = None
    term: int = 0


class Partition:
    """What waits of the three topics of one partition, and how far they are applied.

    Args:
        number: the partition.
        topics: the input topics by `EventType`.
        fence: the assignment under which the partition is worked on.
        origin: where the lane begins.
        writer, partitions: go into the journal entries, see journal.py.
        ttl_ms: age at which rows expire, None for never.
    """

    def __init__(
        self,
        number: int,
        topics: tuple[str, str, str],
        fence: Fence,
        origin: Origin,
        writer: int,
        partitions: int,
        ttl_ms: int | None = None,
    ) -> None:
        start = origin.start
        self.number = number
        self.tps = tuple(TP(topic, number) for topic in topics)
        self.fence = fence
        self.markers: Markers = {}
        self.requests: deque[tuple[int, Erase]] = deque()
        self.control = origin.control
        self.epochs = origin.epochs
        self.swept_ms = origin.swept_ms
        self.inbox: list[tuple[EventType, Poll]] = []
        self.arrived = asyncio.Event()
        self.pending = [Pending.at(offset) for offset in start]
        self.position = start
        self.ends = start
        self.replay = deque(origin.replay)
        self.until = origin.until
        self._maxima = origin.maxima
        self._swept_at_last_ms = origin.swept_ms
        self._ttl_ms = ttl_ms
        self._writer = writer
        self._term = origin.term
        self._partitions = partitions
        self._given_up = [False] * TOPICS
        self._waits_since: float | None = None

    def accept(self, topic: EventType, poll: Poll) -> None:
        """Take a poll in; it is decoded when the partition's turn comes."""
        self.inbox.append((topic, poll))
        self.arrived.set()

    def add(
        self,
        topic: EventType,
        poll: Poll,
        events: list[Event | None],
        rejections: list[Rejection],
    ) -> None:
        """Take a decoded poll in."""
        self.pending[topic].add(poll, events, rejections)
        self._given_up[topic] = False

    def add_requests(self, records: Sequence[Any]) -> None:
        """Take records of the control topic in."""
        for record in records:
            request = decode_request(record.value)
            if request is not None:
                self.requests.append((record.offset, request))
            self.control = record.offset + 1
        self.arrived.set()

    def note_ends(self, ends: Sequence[int | None]) -> None:
        """Note the offset that each topic's next record will get; ends never fall."""
        a, b, c = (max(old, new or 0) for old, new in zip(self.ends, ends, strict=True))
        self.ends = (a, b, c)

    @property
    def latest_ms(self) -> int:
        """The latest event time of what is applied, `NEVER` where nothing is."""
        return max(self._maxima)

    @property
    def reached(self) -> Triple:
        """How far each topic is taken, what is no record for readers included."""
        a, b, c = (
            position if len(pending) else pending.next_offset
            for pending, position in zip(self.pending, self.position, strict=True)
        )
        return a, b, c

    @property
    def reach(self) -> Triple:
        """How far each topic is going to be applied, as far as is known."""
        if self.until is None:
            return self.ends
        a, b, c = map(min, self.ends, self.until)
        return a, b, c

    def next_batch(self, now: float, wait_s: float, limit: int) -> Batch | Erasure | float | None:
        """What comes next; or how many seconds to wait for records, None when as long as it takes.

        Args:
            now: a clock in seconds that stands still while nothing could arrive.
            wait_s: how long a topic that has records elsewhere is waited for.
            limit: records of a batch at most; batches of the journal are as they were.
        """
        while self.replay:
            entry = self.replay[0]
            if self._has_gap_before(entry):
                break
            if entry.is_erasure:
                if self.control <= entry.control:
                    return None
                self.replay.popleft()
                return self._erasure_again(entry)
            short = [p.next_offset < end for p, end in zip(self.pending, entry.end, strict=True)]
            if any(short):
                return None
            self.replay.popleft()
            stops = [
                int(np.searchsorted(p.offsets, end))
                for p, end in zip(self.pending, entry.end, strict=True)
            ]
            times = [p.times[:stop] for p, stop in zip(self.pending, stops, strict=True)]
            self._maxima, self.swept_ms = entry.after, entry.swept_ms
            if sum(stops):
                return self._take(merge(times, entry.maxima), entry)
        if self.requests and not self.replay:
            offset, request = self.requests.popleft()
            here = replace(
                self._entry(Cut.none(self._maxima)),
                control=offset,
                erased=user_hash(request.user_id),
            )
            return Erasure(offset, request, here, replayed=False)
        cut = self._merge(limit)
        if len(cut):
            self._waits_since = None
            entry = self._entry(cut)
            self._maxima = cut.maxima
            if not entry.between:
                self._expire()
            return self._take(cut, entry, replayed=False)
        if not any(map(len, self._times())):
            self._waits_since = None
            return None
        if self._waits_since is None:
            self._waits_since = now
        left = self._waits_since + wait_s - now
        if left > 0:
            return left
        self._given_up = [not len(pending) for pending in self.pending]
        return self.next_batch(now, wait_s, limit)

    def _has_gap_before(self, entry: JournalEntry) -> bool:
        """Whether records come first that are in no entry: offsets were set forwards once."""
        return any(
            pending.next_offset < start or (len(pending) and pending.offsets[0] < start)
            for pending, start in zip(self.pending, entry.start, strict=True)
        )

    def _times(self) -> list[Ints]:
        """Event times of what is pending: before the next entry of the journal, or of all."""
        if not self.replay:
            return [pending.times for pending in self.pending]
        return [
            pending.times[: int(np.searchsorted(pending.offsets, start))]
            for pending, start in zip(self.pending, self.replay[0].start, strict=True)
        ]

    def _merge(self, limit: int) -> Cut:
        a, b, c = (pending.next_offset for pending in self.pending)
        stop = self.replay[0].start if self.replay else self.reach
        waits = awaited((a, b, c), stop, self._given_up)
        return merge(self._times(), self._maxima, waits, limit)

    def _entry(self, cut: Cut) -> JournalEntry:
        a, b, c = (
            int(pending.offsets[taken - 1]) + 1 if taken else position
            for pending, taken, position in zip(self.pending, cut.taken, self.position, strict=True)
        )
        return JournalEntry(
            self._writer,
            self._partitions,
            self.position,
            (a, b, c),
            self._maxima,
            cut.maxima,
            self.epochs,
            self._swept_at_last_ms if self.replay else self.swept_ms,
            between=bool(self.replay),
            term=self._term,
        )

    def _erasure_again(self, entry: JournalEntry) -> Erasure:
        """An erasure of the journal, with its request if that is still there."""
        request = None
        if self.requests and self.requests[0][0] == entry.control:
            _, request = self.requests.popleft()
        return Erasure(entry.control, request, entry, replayed=True)

    def _expire(self) -> None:
        """Let rows expire by event time."""
        if self._ttl_ms is not None:
            self.swept_ms = swept_after(max(self._maxima), self._ttl_ms, self.swept_ms)

    def _take(self, cut: Cut, entry: JournalEntry, replayed: bool = True) -> Batch:
        topic, index = cut.topic.tolist(), cut.index.tolist()
        records = [self.pending[t].records[i] for t, i in zip(topic, index, strict=True)]
        events = [self.pending[t].events[i] for t, i in zip(topic, index, strict=True)]
        refused = [
            Refused(EventType(t), record, self.pending[t].rejections.pop(record.offset))
            for t, record, event in zip(topic, records, events, strict=True)
            if event is None
        ]
        good = np.ones(len(records), dtype=bool)
        if refused:
            good = np.array([event is not None for event in events], dtype=bool)
            records = [record for record, event in zip(records, events, strict=True) if event]
        fetched_s = np.zeros(len(topic))
        sizes = []
        for kind, pending, taken in zip(EventType, self.pending, cut.taken, strict=True):
            of_kind = cut.topic == kind
            fetched_s[of_kind] = pending.fetched_s[cut.index[of_kind]]
            size = sum(record.serialized_value_size for record in pending.records[:taken])
            sizes.append((taken, size))
            pending.drop(taken)
        self.position = entry.end
        return Batch(
            events=[event for event in events if event is not None] if refused else events,
            event_type=cut.topic[good],
            offset=np.array([record.offset for record in records], dtype=np.int64),
            produced_ms=np.array([record.timestamp for record in records], dtype=np.int64),
            fetched_s=fetched_s[good],
            refused=refused,
            entry=entry,
            replayed=replayed,
            sizes=sizes,
        )


def maxima_after(entries: Sequence[JournalEntry], start: Triple) -> Triple:
    """The running maxima that hold at `start`, where the entries' end or one of them begins."""
    maxima: Triple = (NEVER, NEVER, NEVER)
    for entry in entries:
        if any(end > offset for end, offset in zip(entry.end, start, strict=True)):
            break
        maxima = entry.after
    return maxima
