"""A consumer process: writes down when it has read each recommendation, by its source event.

    python -m tests.benchmarks.output_reader --result FILE [--inputs]

The brokers and topics are those of the environment. With --inputs it reads the input topics
themselves: the same way through the broker without a worker between. It says "reads" on standard
output when it has begun, and writes its file when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.lane.transport import paced
from stream_app.settings import Settings
from tests.benchmarks.ends import standard_input_ends

FETCH_WAIT_MS = 50
"""How long the broker may hold a fetch that finds nothing.

The embedded broker holds every fetch for all of it, whether it finds something or not, and walks
through all partitions for each: asked every 2 ms it has no time for anything else.
"""
FETCH_INTERVAL_S = 0.005
"""Between two fetches at least: one broker does not hold fetches, and would be asked endlessly."""
POLL_MS = 100


class _Source(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Output(msgspec.Struct):
    source: _Source


_decode = msgspec.json.Decoder(_Output).decode


@dataclass(frozen=True)
class Seen:
    """What was read: M records, by their source events.

    kind, partition, offset  (M,) the source: EventType, partition and offset
    seen_ns                  (M,) nanoseconds of the wall clock
    """

    kind: np.ndarray
    partition: np.ndarray
    offset: np.ndarray
    seen_ns: np.ndarray

    @classmethod
    def load(cls, file: Path) -> Seen:
        """Read what the process wrote."""
        with np.load(file) as arrays:
            return cls(*arrays["seen"].T)


async def read(settings: Settings, inputs: bool) -> np.ndarray:
    """Read until standard input ends: kind, partition, offset and time, (M, 4)."""
    topics = settings.input_topics if inputs else (settings.recommendations_topic,)
    kinds = {topic: kind for kind, topic in enumerate(settings.input_topics)}
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    await consumer.start()
    consumer._fetcher._get_actions_per_node = paced(
        consumer._fetcher._get_actions_per_node, lambda: FETCH_INTERVAL_S
    )
    consumer.assign([TopicPartition(t, n) for t in topics for n in range(settings.partitions)])
    ended = standard_input_ends()
    seen: list[tuple[int, int, int, int]] = []
    gc.freeze()
    gc.disable()  # what is kept are tuples of numbers
    print("reads", flush=True)
    try:
        while not ended.is_set():
            found = await consumer.getmany(timeout_ms=POLL_MS)
            now_ns = time.time_ns()
            for records in found.values():
                if inputs:
                    seen += [(kinds[r.topic], r.partition, r.offset, now_ns) for r in records]
                else:
                    seen += [_by_source(record.value, kinds, now_ns) for record in records]
    finally:
        await consumer.stop()
    return np.array(seen, dtype=np.int64).reshape(-1, 4)


def _by_source(value: Any, kinds: dict[str, int], now_ns: int) -> tuple[int, int, int, int]:
    source = _decode(value).source
    return kinds[source.topic], source.partition, source.offset, now_ns


def main() -> None:
    """Read, and write down what came when."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--inputs", action="store_true", help="read the input topics themselves")
    arguments = parser.parse_args()
    np.savez(arguments.result, seen=asyncio.run(read(Settings(), arguments.inputs)))


if __name__ == "__main__":
    main()
