"""What a Kafka transaction per batch costs, beside the same records without one.

Each batch is what the lane writes for so many events: outputs of 3 kB for a fifth of them, a
changelog row of 2,048 bytes per distinct user, and the source offsets of three topics. Four ways,
taken in turn in every round:

plain_one          what the worker does: one producer; outputs acknowledged, then rows; offsets are
                   committed once a second and do not count
plain_each         the same with a producer per partition
transaction_one    one producer, a transaction at a time, the partitions in turn
transaction_each   a producer per partition, transactions side by side

All four partitions write as fast as they can, so a batch's time has the waiting in it.

    python -m tests.benchmarks.transactions --bootstrap 127.0.0.1:9092

The broker has to have transactions; without --bootstrap noida-db is started for it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition
from kafka import KafkaConsumer
from kafka import TopicPartition as Place
from kafka.admin import KafkaAdminClient

from stream_app.lane.sender import NO_HEADERS, Record, Sender
from tests.noida import NoidaBroker

SIZES = (50, 500, 4000)
BATCHES = {50: 40, 500: 20, 4000: 5}
"""Batches of a partition and round, per size."""
PARTITIONS = 4
OUTPUT_BYTES = 3000
ROW_BYTES = 2048
EVENTS_PER_OUTPUT = 5
USERS = 4000
MAX_BATCH_BYTES = 1_000_000
WAYS = ("plain_one", "plain_each", "transaction_one", "transaction_each")


@dataclass
class Figures:
    """Seconds of each batch, records of all of them, and the seconds that the rounds took."""

    batch_s: list[float] = field(default_factory=list)
    records: int = 0
    wall_s: float = 0.0

    def summary(self) -> dict[str, float]:
        """p50 and p99 per batch in ms, and records a second over the whole time."""
        p50, p99 = np.percentile(self.batch_s, [50, 99]) * 1000
        return {
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
            "records_per_s": round(self.records / self.wall_s),
        }


@dataclass(frozen=True)
class Names:
    """Topics and group of the run."""

    sources: tuple[str, ...]
    outputs: str
    changelog: str
    group: str

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.sources, self.outputs, self.changelog)


@functools.cache
def batch(events: int) -> tuple[list[Record], list[Record]]:
    """Outputs and rows of a batch; the rows are those of the distinct users among the events."""
    random = np.random.default_rng(events)
    users = len(np.unique(random.zipf(1.3, events) % USERS))
    output, row = os.urandom(OUTPUT_BYTES), os.urandom(ROW_BYTES)
    outputs: list[Record] = [
        (b"user-%d" % i, output, NO_HEADERS) for i in range(events // EVENTS_PER_OUTPUT)
    ]
    return outputs, [(b"user-%d" % i, row, NO_HEADERS) for i in range(users)]


async def write(producer: Any, names: Names, partition: int, events: int, transacts: bool) -> int:
    """Write one batch in the lane's order, and return how many records it had."""
    outputs, rows = batch(events)
    sender = Sender(producer)
    if not transacts:
        await sender.send(names.outputs, partition, outputs)
        await sender.send(names.changelog, partition, rows)
        return len(outputs) + len(rows)
    async with producer.transaction():
        offsets = {TopicPartition(topic, partition): events for topic in names.sources}
        await asyncio.gather(  # nothing is seen before the commit, so there is no order to keep
            sender.send(names.outputs, partition, outputs),
            sender.send(names.changelog, partition, rows),
            producer.send_offsets_to_transaction(offsets, names.group),
        )
    return len(outputs) + len(rows)


async def run_round(
    producers: dict[str, list[Any]], names: Names, way: str, events: int, figures: Figures
) -> None:
    """One round of one way: all partitions write their batches, side by side where the way can."""
    transacts = way.startswith("transaction")
    # A producer has one transaction at a time.
    turn = asyncio.Semaphore(1 if way == "transaction_one" else PARTITIONS)

    async def partition(number: int) -> None:
        own = producers[way]
        producer = own[number % len(own)]
        for _ in range(BATCHES[events]):
            started = time.perf_counter()
            async with turn:
                records = await write(producer, names, number, events, transacts)
            figures.batch_s.append(time.perf_counter() - started)
            figures.records += records

    started = time.perf_counter()
    await asyncio.gather(*[partition(number) for number in range(PARTITIONS)])
    figures.wall_s += time.perf_counter() - started


async def start(bootstrap: str, transactional_id: str | None) -> Any:
    """A producer as the worker has it, or one with a transactional id."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        enable_idempotence=True,
        transactional_id=transactional_id,
        max_batch_size=MAX_BATCH_BYTES,
        max_request_size=2 * MAX_BATCH_BYTES,
    )
    await producer.start()
    return producer


async def costs(bootstrap: str, rounds: int) -> dict[str, Any]:
    """Figures of all sizes and ways."""
    group = f"bench-{uuid.uuid4().hex[:8]}"
    producers = {
        "plain_one": [await start(bootstrap, None)],
        "plain_each": [await start(bootstrap, None) for _ in range(PARTITIONS)],
        "transaction_one": [await start(bootstrap, f"{group}-one")],
        "transaction_each": [await start(bootstrap, f"{group}-{i}") for i in range(PARTITIONS)],
    }
    found: dict[str, Any] = {}
    for events in SIZES:
        figures = {way: Figures() for way in WAYS}
        for number in range(rounds):
            first = number % len(WAYS)
            with topics_of_its_own(
                bootstrap
            ) as names:  # small topics: noida-db keeps all in memory
                for way in WAYS:  # metadata
                    await run_round(producers, names, way, SIZES[0], Figures())
                for way in (*WAYS[first:], *WAYS[:first]):
                    await run_round(producers, names, way, events, figures[way])
        found[str(events)] = {way: figures[way].summary() for way in WAYS}
    for producer in [producer for own in producers.values() for producer in own]:
        await producer.stop()
    return found


async def cost_of_producers(bootstrap: str, names: Names, count: int = 32) -> dict[str, float]:
    """What one more producer costs: milliseconds to start, connections, resident memory."""
    spare = await start(bootstrap, f"{names.group}-spare")  # modules and metadata
    files, memory = _open_files(), _resident_kib()
    started = time.perf_counter()
    made = [await start(bootstrap, f"{names.group}-many-{i}") for i in range(count)]
    in_turn_s = time.perf_counter() - started
    for number, producer in enumerate(made):
        await write(producer, names, number % PARTITIONS, 50, True)
    result = {
        "start_ms": round(1000 * in_turn_s / count, 2),
        "connections": round((_open_files() - files) / count, 2),
        "resident_kib": round((_resident_kib() - memory) / count),
    }
    started = time.perf_counter()
    side_by_side = [start(bootstrap, f"{names.group}-again-{i}") for i in range(count)]
    made += await asyncio.gather(*side_by_side)
    result["start_of_32_side_by_side_ms"] = round(1000 * (time.perf_counter() - started), 1)
    for producer in [spare, *made]:
        await producer.stop()
    return result


async def visibility(bootstrap: str, names: Names, times: int = 100) -> dict[str, float]:
    """From the first send of a batch of 500 events until a committed reader has its last output."""
    producer = await start(bootstrap, f"{names.group}-seen")
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    place = Place(names.outputs, 0)
    consumer.assign([place])
    consumer.seek_to_end(place)
    consumer.position(place)
    taken, after_commit = [], []
    for _ in range(times):
        wanted = 500 // EVENTS_PER_OUTPUT
        reading = asyncio.create_task(asyncio.to_thread(_read, consumer, wanted))
        started = time.perf_counter()
        await write(producer, names, 0, 500, True)
        committed = time.perf_counter()
        seen = await reading
        taken.append(seen - started)
        after_commit.append(seen - committed)
    await asyncio.to_thread(consumer.close)
    await producer.stop()
    return {
        "from_send_p50_ms": _ms(taken, 50),
        "from_send_p99_ms": _ms(taken, 99),
        "from_commit_p50_ms": _ms(after_commit, 50),
        "from_commit_p99_ms": _ms(after_commit, 99),
    }


def _read(consumer: Any, wanted: int) -> float:
    """Poll until so many records have come; the time then."""
    while wanted > 0:
        wanted -= sum(len(records) for records in consumer.poll(1000).values())
    return time.perf_counter()


def _ms(seconds: list[float], percentile: int) -> float:
    return round(float(np.percentile(seconds, percentile)) * 1000, 2)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


@contextmanager
def topics_of_its_own(bootstrap: str) -> Iterator[Names]:
    """Topics that are gone afterwards. Not compacted, so that no cleaner is measured."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    sources = tuple(f"{name}.source-{i}" for i in range(3))
    names = Names(sources, f"{name}.outputs", f"{name}.changelog", name)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics(
            {
                topic: {"num_partitions": PARTITIONS, "replication_factor": 1}
                for topic in names.topics
            }
        )
        admin.wait_for_topics(list(names.topics))
        yield names
        admin.delete_topics(list(names.topics))
    finally:
        admin.close()


def main() -> None:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap", help="a cluster with transactions; noida-db by default")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        bootstrap = arguments.bootstrap
        if bootstrap is None:
            home = stack.enter_context(tempfile.TemporaryDirectory())
            bootstrap = stack.enter_context(NoidaBroker(Path(home))).bootstrap
        with topics_of_its_own(bootstrap) as names:
            figures = {
                "visibility": asyncio.run(visibility(bootstrap, names)),
                "producers": asyncio.run(cost_of_producers(bootstrap, names)),
            }
        figures["batches"] = asyncio.run(costs(bootstrap, arguments.rounds))
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
