"""A process that sends events at an even rate, and writes down when each of them was due.

    python -m tests.benchmarks.paced_producer --rate N --seconds S --result FILE

The brokers and topics are those of the environment. It says "begins" on standard output when it
sends the first event, and ends early when its standard input ends.

An event is due at its place in the even rate, whether the producer is in time or not: what waits
because the machine is busy has waited. Its Kafka timestamp and its own are that time in ms.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import AIOKafkaProducer

from stream_app.lane.sender import NO_HEADERS
from stream_app.settings import Settings
from tests.benchmarks.ends import standard_input_ends
from tests.benchmarks.workload import InputRecord, make_records

TICK_S = 0.001
LINGER_MS = 5
"""The default of Kafka's own producer since its version 4."""
BATCH_BYTES = 256 * 1024
EVENTS = 200_000
"""Made in advance, of 10,000 users, and sent in turn; each turn has event ids of its own."""
LEAD_NS = 200_000_000


@dataclass(frozen=True)
class Sent:
    """What was sent: N events in the order of sending, over P partitions.

    kind, partition  (N,) where each event went: EventType and partition
    due_ns           (N,) nanoseconds of the wall clock at which it was to be sent
    handed_ns        (N,) when it was handed to the client
    base             (3, P) offset of the first event of each topic partition
    """

    kind: np.ndarray
    partition: np.ndarray
    due_ns: np.ndarray
    handed_ns: np.ndarray
    base: np.ndarray

    def save(self, file: Path) -> None:
        """Write the arrays; the file is there when it is whole."""
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **vars(self))
        partial.rename(file)

    @classmethod
    def load(cls, file: Path) -> Sent:
        """Read what `save` wrote."""
        with np.load(file) as arrays:
            return cls(**arrays)

    def due_at(self, kind: np.ndarray, partition: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """When the events at these places were due, (M,) nanoseconds."""
        due = np.zeros(len(kind), dtype=np.int64)
        for topic, number in np.argwhere(self.base >= 0).tolist():
            at = (kind == topic) & (partition == number)
            own = self.due_ns[(self.kind == topic) & (self.partition == number)]
            due[at] = own[offset[at] - self.base[topic, number]]
        return due


def template(record: InputRecord) -> bytes:
    """The value of a record with places for the number of the turn and for the time in ms."""
    value = record.value.replace(b"%", b"%%").replace(b'"event_id":"', b'"event_id":"%d-', 1)
    return value.replace(b"%d" % record.time_ms, b"%d", 1)


class PacedProducer:
    """Hands events to aiokafka as they fall due, in batches that stay open until they leave."""

    def __init__(self, settings: Settings, producer: AIOKafkaProducer) -> None:
        self._topics = settings.input_topics
        self._producer = producer
        self._open: dict[tuple[int, int], Any] = {}
        self.base = np.full((len(self._topics), settings.partitions), -1, dtype=np.int64)
        self.failure: BaseException | None = None

    async def hand_over(self, record: InputRecord, value: bytes, time_ms: int) -> None:
        """Put one event into the open batch of its topic partition, or into a new one."""
        place = (int(record.event_type), record.partition)
        event = {"timestamp": time_ms, "key": record.key, "value": value, "headers": NO_HEADERS}
        batch = self._open.get(place)
        if batch is None or batch.append(**event) is None:
            batch = self._open[place] = self._producer.create_batch()
            batch.append(**event)
            sent = await self._producer.send_batch(
                batch, self._topics[place[0]], partition=place[1]
            )
            sent.add_done_callback(lambda done: self._note(place, done))

    def _note(self, place: tuple[int, int], done: asyncio.Future[Any]) -> None:
        if done.cancelled() or done.exception() is not None:
            self.failure = self.failure or done.exception()
        elif self.base[place] < 0:
            self.base[place] = done.result().offset


async def send(settings: Settings, rate: float, seconds: float) -> Sent:
    """Send at `rate` events a second for so many seconds, or until standard input ends."""
    records = make_records(EVENTS, settings.partitions)
    templates = [template(record) for record in records]
    count = int(rate * seconds)
    handed_ns = np.zeros(count, dtype=np.int64)
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        acks="all",
        linger_ms=LINGER_MS,
        max_batch_size=BATCH_BYTES,
    )
    await producer.start()
    gc.freeze()
    ended = standard_input_ends()
    paced = PacedProducer(settings, producer)
    step_ns = 1e9 / rate
    start_ns = time.time_ns() + LEAD_NS
    print("begins", flush=True)
    try:
        done = 0
        while done < count and not ended.is_set() and paced.failure is None:
            now_ns = time.time_ns()
            due = min(max(int((now_ns - start_ns) / step_ns) + 1, 0), count)
            for number in range(done, due):
                turn, place = divmod(number, EVENTS)
                time_ms = int(start_ns + number * step_ns) // 1_000_000
                value = templates[place] % (turn, time_ms)
                await paced.hand_over(records[place], value, time_ms)
            handed_ns[done:due] = now_ns
            done = max(done, due)
            await asyncio.sleep(TICK_S)
    finally:
        await producer.stop()
    if paced.failure is not None:
        raise paced.failure
    order = np.arange(done) % EVENTS
    kind = np.array([record.event_type for record in records], dtype=np.int64)
    partition = np.array([record.partition for record in records], dtype=np.int64)
    return Sent(
        kind=kind[order],
        partition=partition[order],
        due_ns=(start_ns + np.arange(done) * step_ns).astype(np.int64),
        handed_ns=handed_ns[:done],
        base=paced.base,
    )


def main() -> None:
    """Send, and write the times down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, required=True, help="events a second")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(send(Settings(), arguments.rate, arguments.seconds)).save(arguments.result)


if __name__ == "__main__":
    sys.exit(main())
