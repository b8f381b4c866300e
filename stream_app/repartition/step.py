"""Maps mixed topics of other products to the input topics, in a thread of the worker.

One consumer group reads the mixed topics, whatever the application id: it is named after the clicks
topic, as what counts is that nothing comes to the input topics twice. A batch goes this way:

    1. adapted          its events and dead letters are sent and acknowledged; each carries its
                        place in the mixed topic
    2. adapter_offsets  the offsets after the batch are committed, and in their metadata how far
                        each output partition is

Who takes over begins at the committed offset, and looks through the output partitions from where
they were at that commit: what carries a place of the mixed partition is sent already and left out.

One writer: a batch is sent only within half a session timeout after a commit that the group's
coordinator took, which is the proof that the partition is ours; and what a process that was stopped
had not sent by then is dropped, as nothing waits in the producer for longer than a session timeout.
What had been handed to the network may come late and twice; it carries equal event ids, which the
lane recognises among the last 16 of a user.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from stream_app import topics
from stream_app.adapters.adapt import VENDORS, Refused, adapt
from stream_app.dead_letters import dead_letter
from stream_app.errors import TopicError, WorkerError
from stream_app.log_tail import Where, first_offsets, read_tail
from stream_app.repartition.places import (
    LETTER,
    Place,
    Seen,
    decode_ends,
    encode_ends,
    read_place,
)
from stream_app.settings import Settings

logger = logging.getLogger(__name__)

STEPS = ("adapted", "adapter_offsets")
"""`at_step` is told "before <step>" and "after <step>"."""
POLL_MS = 200
FETCH_BYTES = 2 * 1024 * 1024
HEADROOM_BYTES = 65_536
"""Of a record beside its value."""
REFRESH_S = 30.0
"""An idle partition is committed again after this, so that who takes over has little to look at."""
STOP_TIMEOUT_S = 4.0
_LOST = (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


@dataclass
class Report:
    """What a round tells the worker.

    progress   per partition that is ours, its next offset and how many records wait
    letters    reasons of the dead letters that were written
    events     per topic, events that were mapped
    """

    progress: Mapping[Where, tuple[int, int]] = field(default_factory=dict)
    letters: list[str] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Out:
    """A record to be sent."""

    where: Where
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int | None


class Repartition(ConsumerRebalanceListener):  # type: ignore[misc]
    """The step of one worker.

    Args:
        settings: of the worker; names the mixed topics.
        report: called after each round, in the step's thread.
        fail: called once in that thread, with what ends the worker.
        at_step: told every step, see STEPS; for tests.
    """

    def __init__(
        self,
        settings: Settings,
        report: Callable[[Report], None],
        fail: Callable[[Exception], None],
        at_step: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._settings = settings
        self._vendors = {topic: VENDORS[name] for topic, name in settings.adapters.items()}
        self._report = report
        self._fail = fail
        self._at_step = at_step
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
        self._epochs: dict[str, int] = {}
        self._order: list[Where] = []
        self._ends: dict[Where, int] = {}
        self._next: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, Seen] = {}
        self._assignments = 0
        self._confirmed_at = -1.0
        self._looked_at = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch in flight, and wait for that."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_TIMEOUT_S)

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing is in flight: this is called within a poll."""
        self._forget()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """The next round takes them over."""
        self._forget()
        self._assignments += 1

    def _forget(self) -> None:
        self._next.clear()
        self._seen.clear()
        self._confirmed_at = -1.0

    def _run(self) -> None:
        try:
            self._begin()
            with self._clients() as (consumer, producer):
                while not self._stopping.is_set():
                    self._round(consumer, producer)
        except KafkaError as error:
            failure = WorkerError(
                f"The events of {', '.join(self._vendors)} cannot be mapped on "
                f"({type(error).__name__}); look at the brokers and the rights of the user, and "
                "start the worker again: what was sent is found and not sent again."
            )
            self._fail(failure)
        except Exception as error:
            self._fail(error)

    def _begin(self) -> None:
        settings = self._settings
        self._epochs = topics.adapter_epochs(settings)
        self._looked_at = time.monotonic()
        letters = topics.partition_count(settings, settings.dead_letters_topic)
        counts = [*((topic, settings.partitions) for topic in settings.input_topics)]
        counts.append((settings.dead_letters_topic, letters))
        self._letters = letters
        self._order = [(topic, n) for topic, count in counts for n in range(count)]

    @contextmanager
    def _clients(self) -> Iterator[tuple[Any, Any]]:
        settings = self._settings
        session_ms = int(settings.session_timeout_s * 1000)
        consumer = KafkaConsumer(
            **settings.kafka_python(),
            group_id=group_of(settings),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=int(settings.heartbeat_s * 1000),
            # A broker waits so long for members that died, and the poll must not be later.
            max_poll_interval_ms=int(settings.rebalance_timeout_s * 1000),
            max_poll_records=settings.max_batch_events,
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=POLL_MS // 2,
            # All partitions are given back at each rebalance, see on_partitions_revoked.
            partition_assignment_strategy=[RoundRobinPartitionAssignor],
        )
        try:
            producer = KafkaProducer(
                **settings.kafka_python(),
                acks="all",
                max_in_flight_requests_per_connection=1,  # offsets in the order of sending
                delivery_timeout_ms=session_ms,
                request_timeout_ms=session_ms,
                max_block_ms=session_ms,
                max_request_size=settings.max_event_bytes + HEADROOM_BYTES,
            )
            try:
                consumer.subscribe(list(self._vendors), listener=self)
                yield consumer, producer
            finally:
                producer.close(0)
        finally:
            consumer.close(autocommit=False)

    def _round(self, consumer: Any, producer: Any) -> None:
        found = consumer.poll(POLL_MS, max_records=self._settings.max_batch_events)
        self._look()
        assigned = consumer.assignment()
        if assigned != self._next.keys():
            self._take_over(consumer, assigned)
            return  # everything was sought, and comes again
        report = Report()
        try:
            if found:
                self._batch(consumer, producer, found, report)
            elif assigned and self._confirmed_s() > REFRESH_S:
                self._commit(consumer)
        except _LOST as error:
            logger.warning("The partitions of mixed topics are lost (%s)", type(error).__name__)
            self._forget()
            return
        report.progress = {
            (tp.topic, tp.partition): (at, max((consumer.highwater(tp) or 0) - at, 0))
            for tp, at in self._next.items()
        }
        self._report(report)

    def _look(self) -> None:
        """Look every session timeout whether the topics are those that the step began with."""
        if time.monotonic() - self._looked_at > self._settings.session_timeout_s:
            if topics.adapter_epochs(self._settings) != self._epochs:
                raise TopicError(
                    "A topic of INTEREST_ADAPTER_TOPICS was made anew while the worker ran; start "
                    "the worker again, it begins the topic at its first record."
                )
            self._looked_at = time.monotonic()

    def _take_over(self, consumer: Any, assigned: Collection[TopicPartition]) -> None:
        """Seek to what is not mapped, and find out what of that is sent already."""
        self._forget()
        assignments = self._assignments
        starts: dict[Where, int] = {}
        offsets: dict[TopicPartition, int] = {}
        for tp in assigned:
            committed = consumer.committed(tp, metadata=True)
            epoch, ends = decode_ends(committed.metadata if committed else None, self._order)
            if committed is not None and epoch in (None, self._epochs[tp.topic]):
                offsets[tp] = committed.offset
            for where, end in ends.items():
                starts[where] = min(starts.get(where, end), end)
        unknown = [tp for tp in assigned if tp not in offsets]
        offsets.update(first_offsets(self._settings, unknown))
        seen = {tp: Seen() for tp in assigned}
        consumer.pause(*assigned)
        for records in read_tail(self._settings, starts, self._ends) if assigned else ():
            for place in filter(None, (read_place(record.headers) for record in records)):
                tp = TopicPartition(*place.where)
                if tp in seen and place.epoch == self._epochs[tp.topic]:
                    seen[tp].add(place.offset, place.number)
            consumer.poll(0)  # stays in the group; nothing comes
            if self._assignments != assignments or self._stopping.is_set():
                return
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        consumer.resume(*assigned)
        self._next, self._seen = offsets, seen

    def _batch(
        self, consumer: Any, producer: Any, found: Mapping[TopicPartition, Any], report: Report
    ) -> None:
        out = [one for tp, records in found.items() for one in self._map(tp, records, report)]
        self._at_step("before adapted")
        if self._confirmed_s() > self._settings.session_timeout_s / 2:
            self._commit(consumer)
        futures = [
            producer.send(
                one.where[0],
                one.value,
                one.key,
                headers=one.headers,
                partition=one.where[1],
                timestamp_ms=one.timestamp_ms,
            )
            for one in out
        ]
        producer.flush(self._settings.session_timeout_s)
        for one, future in zip(out, futures, strict=True):
            self._ends[one.where] = max(self._ends.get(one.where, 0), future.get(0).offset + 1)
        self._at_step("after adapted")
        for tp, records in found.items():
            self._next[tp] = records[-1].offset + 1
        self._at_step("before adapter_offsets")
        self._commit(consumer)
        self._at_step("after adapter_offsets")

    def _map(self, tp: TopicPartition, records: Any, report: Report) -> Iterator[_Out]:
        settings, vendor, seen = self._settings, self._vendors[tp.topic], self._seen[tp]
        epoch = self._epochs[tp.topic]
        where = (tp.topic, tp.partition)
        for record in records:
            produced_ms = record.timestamp if record.timestamp is not None else -1
            adapted = adapt(
                vendor,
                record.value,
                produced_ms,
                partitions=settings.partitions,
                future_allowance_ms=settings.future_allowance_ms,
                max_value_bytes=settings.max_event_bytes,
            )
            is_new = seen.is_past(record.offset)
            for number, one in enumerate(adapted.events):
                if is_new or (record.offset, number) not in seen:
                    place = Place(where, epoch, record.offset, number)
                    to = settings.input_topics[one.event_type], one.partition
                    timestamp_ms = produced_ms if produced_ms >= 0 else None
                    yield _Out(to, one.key, one.value, [place.header()], timestamp_ms)
                    report.events[tp.topic] = report.events.get(tp.topic, 0) + 1
            if adapted.refused is not None and (is_new or (record.offset, LETTER) not in seen):
                place = Place(where, epoch, record.offset, LETTER)
                yield self._letter(place, record, adapted.refused)
                report.letters.append(str(adapted.refused.reason))

    def _letter(self, place: Place, record: Any, refused: Refused) -> _Out:
        topic, partition = place.where
        letter = dead_letter(
            topic,
            partition,
            place.offset,
            record.key,
            record.value,
            refused.reason,
            refused.message,
            self._settings.dead_letter_max_bytes,
            refused.user,
        )
        to = self._settings.dead_letters_topic, partition % self._letters
        return _Out(to, letter.key, letter.value, [*letter.headers, place.header()], None)

    def _confirmed_s(self) -> float:
        """Seconds since the last commit that the coordinator took was sent."""
        return time.monotonic() - self._confirmed_at if self._confirmed_at >= 0 else float("inf")

    def _commit(self, consumer: Any) -> None:
        began = time.monotonic()
        consumer.commit(
            {
                tp: OffsetAndMetadata(
                    at, encode_ends(self._epochs[tp.topic], self._ends, self._order), -1
                )
                for tp, at in self._next.items()
            }
        )
        self._confirmed_at = began


def group_of(settings: Settings) -> str:
    """The consumer group of the mixed topics: one for all application ids of the same inputs."""
    return f"{settings.clicks_topic}.adapters"
