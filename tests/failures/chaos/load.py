"""Sends events to the three input topics, and remembers every record that was acknowledged."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from kafka import KafkaProducer

from model.events import EventType
from stream_app.partitioner import partition_for
from stream_app.settings import Settings

START_MS = 1_735_689_600_000  # 2025-01-01
STEP_MS = 2_000
"""Event time between two events of the load."""
USERS = 300
SHARES = (0.7, 0.15, 0.15)
ITEMS, CATEGORIES = 200, 20
"""As in `tests.checkpoints.tiny_checkpoint`."""
ERA = 20_000
"""Events after which every user turns to another category."""
ACK_TIMEOUT_S = 120.0
CLIENT_ID = "chaos"
"""The proxy of the kit lets these clients through, see proxy.py."""
TICK_S = 0.02

Kind = Literal["event", "repeat", "broken"]


class Message(NamedTuple):
    """A record to send; `kind` is what the worker has to make of it.

    event    applied
    repeat   recognised: an event with this id of the same user came before
    broken   a dead letter
    """

    event_type: EventType
    key: bytes | None
    value: bytes | None
    partition: int
    event_id: str
    kind: Kind = "event"


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that the broker has acknowledged."""

    offset: int
    key: bytes | None
    event_id: str
    kind: Kind


class Load:
    """Good events of many users in the order of their times, and whatever else is to be sent.

    sent     per (topic, partition) the acknowledged records
    failed   records that the broker did not acknowledge; they may stand in the topic all the same
    """

    def __init__(self, settings: Settings, seed: int) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._number = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent: dict[tuple[str, int], list[Sent]] = defaultdict(list)
        self._ends: dict[tuple[str, int], int] = defaultdict(int)
        self.failed: list[BaseException] = []
        self._producer = KafkaProducer(
            **settings.kafka_python(),
            client_id=CLIENT_ID,
            acks="all",
            enable_idempotence=False,  # ids are lost when the broker starts again
            linger_ms=5,
            max_in_flight_requests_per_connection=1,
            max_request_size=20_000_000,
        )

    def event(self, event_type: EventType, user: str, **changes: Any) -> dict[str, Any]:
        """The JSON object of the next good event of a user; changes replace fields."""
        number, self._number = self._number, self._number + 1
        category = (hash_of(user) + number // ERA) % CATEGORIES
        item = category + CATEGORIES * int(number % (ITEMS // CATEGORIES))
        event: dict[str, Any] = {
            "event_id": f"event-{number}",
            "user_id": user,
            "timestamp": START_MS + STEP_MS * number,
        }
        if event_type is EventType.CLICK:
            event |= {"item_id": f"item-{item}", "category": f"category-{category}"}
        elif event_type is EventType.SEARCH:
            event |= {"query": f"blue shoes {number % 5}", "category": f"category-{category}"}
        else:
            event |= {"items": [{"item_id": f"item-{item}", "quantity": 1, "price": 9.5}]}
        return event | changes

    def message(self, event_type: EventType, user: str, **changes: Any) -> Message:
        """The next good event of a user as a message to its partition."""
        event = self.event(event_type, user, **changes)
        key, value = user.encode(), json.dumps(event).encode()
        place = partition_for(key, self._settings.partitions)
        return Message(event_type, key, value, place, str(event["event_id"]))

    def messages(self, count: int, users: str = "user") -> Iterator[Message]:
        """The next `count` good events, of random types and users (``user-0`` and so on)."""
        kinds = self._rng.choice(3, count, p=SHARES).tolist()
        numbers = self._rng.integers(USERS, size=count).tolist()
        for kind, number in zip(kinds, numbers, strict=True):
            yield self.message(EventType(kind), f"{users}-{number}")

    def send(self, count: int, users: str = "user") -> int:
        """Send good events, wait for their acknowledgements; how many are acknowledged in all."""
        self.send_messages(self.messages(count, users))
        return self.count

    def send_messages(self, messages: Iterable[Message]) -> None:
        """Send messages in their order, and wait for their acknowledgements."""
        for one in messages:
            self._hand_over(one)
        self._producer.flush(ACK_TIMEOUT_S)

    def start(self, rate: float) -> None:
        """Send good events at a rate (events a second) in a thread, until `stop`."""
        assert self._thread is None, "the load runs already"
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=[rate], daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End the thread, wait for acknowledgements; how many are acknowledged in all."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._producer.flush(ACK_TIMEOUT_S)
        return self.count

    @property
    def count(self) -> int:
        """Records that are acknowledged."""
        with self._lock:
            return sum(map(len, self.sent.values()))

    def ends(self) -> dict[tuple[str, int], int]:
        """Per (topic, partition) the offset after the last acknowledged record."""
        with self._lock:
            return dict(self._ends)

    def copy(self, topic: str, partition: int) -> list[Sent]:
        """What is acknowledged of a partition of a topic by now."""
        with self._lock:
            return list(self.sent[topic, partition])

    def all(self) -> list[Sent]:
        """All that is acknowledged by now."""
        with self._lock:
            return [one for sent in self.sent.values() for one in sent]

    def forget(self) -> None:
        """Forget what was sent, for topics that were made anew."""
        with self._lock:
            self.sent.clear()
            self._ends.clear()

    def close(self) -> None:
        """End the thread and the client, without waiting for what is not acknowledged."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)
        self._producer.close(1)

    def _run(self, rate: float) -> None:
        began, done = time.monotonic(), 0
        while not self._stop.wait(TICK_S):
            due = int((time.monotonic() - began) * rate) - done
            for one in self.messages(due):
                self._hand_over(one)
            done += due

    def _hand_over(self, one: Message) -> None:
        place = self._settings.input_topics[one.event_type], one.partition

        def note(acknowledged: Any) -> None:
            record = Sent(acknowledged.offset, one.key, one.event_id, one.kind)
            with self._lock:
                self.sent[place].append(record)
                self._ends[place] = max(self._ends[place], record.offset + 1)

        future = self._producer.send(place[0], one.value, one.key, partition=one.partition)
        future.add_callback(note)
        future.add_errback(self.failed.append)


def hash_of(user: str) -> int:
    """A number for a user, the same in every process."""
    return sum(user.encode())
