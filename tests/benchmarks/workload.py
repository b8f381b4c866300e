"""The events that every contender reads: the same generator, seeded, for each size of log.

A log of E events has E / 20 users, so that logs of different lengths ask for the same work per
event: the same share of first events, of recommendations and of users whom the drift test reaches.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app.events import Click, Event, Purchase, PurchaseItem, Search
from stream_app.lane.sender import NO_HEADERS, Record, Sender
from stream_app.partitioner import partitions_for
from stream_app.settings import Settings
from tests.checkpoints import tiny_checkpoint

ITEMS = 30_000
CATEGORIES = 1_000
EVENTS_PER_USER = 20
SPAN_MS = 30 * 86_400_000
START_MS = 1_750_000_000_000
SHARES = (0.87, 0.10, 0.03)
"""Of clicks, searches and purchases."""
TURN_EVENTS = 10**9
"""Between the first ids of logs that follow each other."""
OWN_CATEGORIES = 3
OWN_SHARE = 0.8
"""Of events in one of the user's own categories."""
MAX_LINES = 3
SEND_BATCH_BYTES = 900_000

_WORDS = ("blue", "running", "shoes", "Kinder", "Jacke", "robe", "été", "lamp", "coffee", "мяч")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class InputRecord:
    """One record of an input topic: where it goes, and what ``decode_batch`` reads."""

    event_type: EventType
    partition: int
    key: bytes
    value: bytes
    time_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def timestamp(self) -> int:
        """The Kafka timestamp: produced when it happened."""
        return self.time_ms


def bench_checkpoint() -> Checkpoint:
    """Random weights of the product's size: H = 64, 30,000 items, 1,000 categories."""
    return tiny_checkpoint(items=ITEMS, categories=CATEGORIES)


@dataclass(frozen=True)
class Population:
    """U users: the share of the events that each has (U,), and its own categories (U, 3)."""

    activity: np.ndarray
    own: np.ndarray


def population_of(events: int, seed: int = 0) -> Population:
    """Those of a log: a user for 20 events; activity is exponential, the busiest have about 200."""
    rng = np.random.default_rng(seed)
    users = max(events // EVENTS_PER_USER, 1)
    activity = rng.exponential(size=users)
    own = rng.integers(0, CATEGORIES, (users, OWN_CATEGORIES))
    return Population(activity / activity.sum(), own)


def make_records(
    events: int,
    partitions: int,
    seed: int = 0,
    population: Population | None = None,
    turn: int = 0,
) -> list[InputRecord]:
    """A log in event-time order; times rise evenly over 30 days.

    Items follow their popularity within a category.

    Args:
        population: whose events they are; those of `population_of` by default.
        turn: which of several logs that follow each other: ids and times are its own.
    """
    population = population or population_of(events, seed)
    users, own = len(population.activity), population.own
    rng = np.random.default_rng((seed, turn))
    user = rng.choice(users, events, p=population.activity)
    event_type = rng.choice(len(SHARES), events, p=SHARES)
    category = np.where(
        rng.random(events) < OWN_SHARE,
        own[user, rng.integers(0, OWN_CATEGORIES, events)],
        rng.integers(0, CATEGORIES, events),
    )
    per_category = ITEMS // CATEGORIES
    place = rng.geometric(0.15, (events, MAX_LINES)) - 1
    item = np.minimum(place, per_category - 1) * CATEGORIES + category[:, None]
    lines = rng.integers(1, MAX_LINES + 1, events)
    words = rng.integers(0, len(_WORDS), (events, 2))
    time_ms = START_MS + turn * SPAN_MS + np.arange(events) * (SPAN_MS // max(events, 1))
    keys = user_keys(users)
    place_of_user = partitions_for(keys, partitions)
    return [
        InputRecord(
            EventType(kind),
            int(place_of_user[u]),
            keys[u],
            _encode(_event(number, kind, u, time, c, row[:count], pair)),
            time,
        )
        for number, (kind, u, time, c, row, count, pair) in enumerate(
            zip(
                event_type.tolist(),
                user.tolist(),
                time_ms.tolist(),
                category.tolist(),
                item.tolist(),
                lines.tolist(),
                words.tolist(),
                strict=True,
            ),
            start=turn * TURN_EVENTS,
        )
    ]


def user_keys(users: int) -> list[bytes]:
    """The keys of users by their numbers."""
    return [f"user-{user:07d}".encode() for user in range(users)]


def _event(
    number: int,
    kind: int,
    user: int,
    time_ms: int,
    category: int,
    items: list[int],
    pair: list[int],
) -> Event:
    event_id, user_id, name = f"{kind}-{number:012d}", f"user-{user:07d}", f"category-{category}"
    if kind == EventType.CLICK:
        return Click(
            event_id=event_id,
            user_id=user_id,
            timestamp_ms=time_ms,
            item_id=f"item-{items[0]}",
            category=name,
            device_id=f"device-{user}",
            platform="web",
            locale="en-GB",
        )
    if kind == EventType.SEARCH:
        return Search(
            event_id=event_id,
            user_id=user_id,
            timestamp_ms=time_ms,
            query=" ".join(_WORDS[word] for word in pair),
            category=name,
            device_id=f"device-{user}",
            platform="web",
            locale="en-GB",
        )
    return Purchase(
        event_id=event_id,
        user_id=user_id,
        timestamp_ms=time_ms,
        items=tuple(PurchaseItem(item_id=f"item-{i}", category=name, price=9.5) for i in items),
        currency="EUR",
        platform="web",
    )


def produce(settings: Settings, records: list[InputRecord]) -> None:
    """Writes the records to the input topics of ``settings``, each topic in order."""
    asyncio.run(_produce(settings, records))


async def _produce(settings: Settings, records: list[InputRecord]) -> None:
    groups: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        place = (settings.input_topics[record.event_type], record.partition)
        groups[place].append((record.key, record.value, NO_HEADERS))
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, acks="all", max_batch_size=SEND_BATCH_BYTES
    )
    await producer.start()
    try:
        sender = Sender(producer)
        for (topic, partition), group in groups.items():
            await sender.send(topic, partition, group)
    finally:
        await producer.stop()
