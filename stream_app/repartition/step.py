"""Maps mixed topics of other products to the input topics, in a thread of the worker.

One consumer group reads the mixed topics, whatever the application id: it is named after the clicks
topic, as what counts is that nothing comes to the input topics twice. A batch goes this way:

    1. adapted          its events and dead letters are sent and acknowledged; each carries its
                        place in the mixed topic
    2. adapter_offsets  the offsets after the batch are committed, and in their metadata how far
                        each output partition is

Who takes over begins at the committed offset, and looks through the output partitions from where
they were at that commit: what carries a place of the mixed partition is sent already and left out.

One writer: a request leaves only while the coordinator cannot have given the partitions to another,
see `group.py` and `sending.py`. A batch that was broken off has requests of which nothing is known;
the step leaves them a session timeout to arrive before it, or another, looks and goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from typing import Any

from kafka import TopicPartition
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    KafkaError,
    RebalanceInProgressError,
    RetriableError,
    UnknownMemberIdError,
)
from kafka.structs import OffsetAndMetadata

from stream_app import topics
from stream_app.errors import BrokerError, RecoveryError, TopicError, WorkerError
from stream_app.lane.fence import Lease
from stream_app.log_tail import Where, first_offsets, read_tail
from stream_app.repartition.group import SHARE, open_consumer
from stream_app.repartition.mapping import Mapper, Report
from stream_app.repartition.places import Seen, decode_ends, encode_ends, read_place
from stream_app.repartition.sending import Lapsed, Sending, Unsure
from stream_app.settings import Settings

logger = logging.getLogger(__name__)

STEPS = ("adapted", "adapter_offsets")
"""`at_step` is told "before <step>" and "after <step>", and "before request" in another thread."""
POLL_MS = 200
REFRESH_S = 30.0
"""An idle partition is committed again after this, so that who takes over has little to look at."""
STOP_TIMEOUT_S = 4.0
_LOST = (
    CommitFailedError,
    IllegalGenerationError,
    Lapsed,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
_PASSING = (BrokerError, RecoveryError, RetriableError, Unsure)


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
        self._report = report
        self._fail = fail
        self._at_step = at_step
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="adapters", daemon=True)
        self._member = Lease(settings.session_timeout_s * SHARE)
        self._polled = Lease(settings.rebalance_timeout_s * SHARE)
        self._epochs: dict[str, int] = {}
        self._order: list[Where] = []
        self._ends: dict[Where, int] = {}
        self._owned: frozenset[TopicPartition] | None = None
        self._assignments = 0
        self._next: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, Seen] = {}
        self._committed_at = 0.0
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
        self._owned = None
        self._forget()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """The next round takes them over."""
        self._forget()
        self._owned = frozenset(assigned)
        self._assignments += 1

    def _forget(self) -> None:
        self._next.clear()
        self._seen.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except KafkaError as error:
                failure = WorkerError(
                    f"The events of {', '.join(self._settings.adapters)} cannot be mapped on "
                    f"({type(error).__name__}); look at the rights of the user, and start the "
                    "worker again: what was sent is found and not sent again."
                )
                self._fail(failure)
                return
            except Exception as error:
                self._fail(error)
                return

    def _work(self) -> None:
        """Open the clients, and go on until the end, or until what the brokers have passes."""
        with ExitStack() as clients:
            try:
                self._begin()
                adapters = self._settings.adapters
                consumer = open_consumer(self._settings, adapters, self, self._member)
                clients.callback(consumer.close, autocommit=False)
                sending = Sending(self._settings, self._is_ours, self._at_step)
                clients.callback(sending.close)
                while not self._stopping.is_set():
                    self._round(consumer, sending)
            except _PASSING as error:
                logger.warning("The mixed topics have to wait: %s", error or type(error).__name__)
                self._polled = Lease(0.0)  # nothing of a batch that was broken off leaves any more
                self._stopping.wait(self._settings.session_timeout_s)

    def _begin(self) -> None:
        settings = self._settings
        self._polled = Lease(settings.rebalance_timeout_s * SHARE)
        self._owned = None
        self._forget()
        epochs = topics.adapter_epochs(settings)
        self._require_epochs(epochs)
        self._epochs = epochs
        letters = topics.partition_count(settings, settings.dead_letters_topic)
        counts = [*((topic, settings.partitions) for topic in settings.input_topics)]
        counts.append((settings.dead_letters_topic, letters))
        self._mapper = Mapper(settings, epochs, letters)
        self._order = [(topic, n) for topic, count in counts for n in range(count)]

    def _require_epochs(self, found: Mapping[str, int]) -> None:
        if self._epochs and found != self._epochs:
            raise TopicError(
                "A topic of INTEREST_ADAPTER_TOPICS was made anew while the worker ran; start "
                "the worker again, it begins the topic at its first record."
            )
        self._looked_at = time.monotonic()

    def _is_ours(self) -> bool:
        """Whether nobody else can have our partitions yet."""
        return self._member.holds() and self._polled.holds()

    def _poll(self, consumer: Any, timeout_ms: int) -> Any:
        self._polled.renew(time.monotonic())
        return consumer.poll(timeout_ms, max_records=self._settings.max_batch_events)

    def _round(self, consumer: Any, sending: Sending) -> None:
        self._look()
        found = self._poll(consumer, POLL_MS)
        if self._owned is None:
            return  # a rebalance is under way
        if self._owned != self._next.keys():
            self._take_over(consumer, self._owned)
            return  # everything was sought, and comes again
        report = Report()
        try:
            if found:
                self._batch(consumer, sending, found, report)
            elif self._owned and time.monotonic() - self._committed_at > REFRESH_S:
                self._commit(consumer)
        except _LOST as error:
            logger.warning("The partitions of mixed topics are lost (%s)", type(error).__name__)
            self._forget()
            return
        self._pass_over(consumer, found)
        report.progress = {
            (tp.topic, tp.partition): (at, max((consumer.highwater(tp) or 0) - at, 0))
            for tp, at in self._next.items()
        }
        self._report(report)

    def _pass_over(self, consumer: Any, found: Collection[TopicPartition]) -> None:
        """Go past offsets without a record: markers of transactions, what the retention took."""
        for tp, at in self._next.items():
            if tp not in found and at < (consumer.highwater(tp) or 0):
                self._next[tp] = max(at, consumer.position(tp, timeout_ms=POLL_MS) or 0)

    def _look(self) -> None:
        """Look every session timeout whether the topics are those that the step began with."""
        if time.monotonic() - self._looked_at > self._settings.session_timeout_s:
            try:
                self._require_epochs(topics.adapter_epochs(self._settings))
            except BrokerError as error:  # there will be another look
                self._looked_at = time.monotonic()
                logger.warning("The mixed topics cannot be looked at now: %s", error)

    def _take_over(self, consumer: Any, owned: Collection[TopicPartition]) -> None:
        """Seek to what is not mapped, and find out what of that is sent already."""
        self._forget()
        assignments = self._assignments
        starts: dict[Where, int] = {}
        offsets: dict[TopicPartition, int] = {}
        seen: dict[TopicPartition, Seen] = {}
        for tp in owned:
            committed = consumer.committed(tp, metadata=True)
            epoch, ends = decode_ends(committed.metadata if committed else None, self._order)
            if committed is not None and epoch in (None, self._epochs[tp.topic]):
                offsets[tp] = committed.offset
            seen[tp] = Seen(ends)
            for where, end in ends.items():
                starts[where] = min(starts.get(where, end), end)
        offsets |= first_offsets(self._settings, [tp for tp in owned if tp not in offsets])
        consumer.pause(*owned)

        def goes_on(timeout_ms: int) -> bool:
            self._poll(consumer, timeout_ms)  # stays in the group; nothing comes
            return self._assignments == assignments and not self._stopping.is_set()

        for records in read_tail(self._settings, starts, self._ends) if owned else ():
            for place in filter(None, (read_place(record.headers) for record in records)):
                tp = TopicPartition(*place.where)
                is_known = tp in seen and place.epoch == self._epochs[tp.topic]
                if is_known and place.offset >= offsets[tp]:
                    seen[tp].add(place.offset, place.number)
            if not goes_on(0):
                return
        while not self._is_ours():
            if not goes_on(POLL_MS):
                return
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        consumer.resume(*owned)
        self._next, self._seen = offsets, seen

    def _batch(
        self, consumer: Any, sending: Sending, found: Mapping[TopicPartition, Any], report: Report
    ) -> None:
        out = [
            one
            for tp, records in found.items()
            for one in self._mapper.map((tp.topic, tp.partition), records, self._seen[tp], report)
        ]
        self._at_step("before adapted")
        self._require_ours()
        ends = sending.send(out, self._settings.rebalance_timeout_s * SHARE)
        self._at_step("after adapted")
        for where, end in ends.items():
            self._ends[where] = max(self._ends.get(where, 0), end)
        for tp, records in found.items():
            self._next[tp] = records[-1].offset + 1
        self._at_step("before adapter_offsets")
        self._commit(consumer)
        self._at_step("after adapter_offsets")

    def _require_ours(self) -> None:
        if not self._is_ours():
            raise Lapsed("the coordinator was not heard of for too long")

    def _commit(self, consumer: Any) -> None:
        self._require_ours()
        offsets = {}
        for tp, at in self._next.items():
            ends = self._seen[tp].to_look_from(at, self._ends)
            metadata = encode_ends(self._epochs[tp.topic], ends, self._order)
            offsets[tp] = OffsetAndMetadata(at, metadata, -1)
        consumer.commit(offsets)
        self._committed_at = time.monotonic()
