"""The limit: what the worker's own code does per event when there is no Kafka and no store.

Decode, assemble, transition and encoding of rows and outputs, partition by partition in batches of
4,000, rows kept as bytes in a dict. Run as a process of its own: ``python -m
tests.benchmarks.limit --result FILE``.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch

from model.checkpoint import Checkpoint, load
from model.events import EventType, Source
from model.state import pack, unpack
from model.transition import transition, warm_up
from stream_app.events import decode_batch
from stream_app.lane.assemble import assemble
from stream_app.outputs import encode
from stream_app.settings import Settings
from tests.benchmarks.workload import InputRecord, make_records

BATCH_EVENTS = 4000
STAGES = ("decode", "assemble", "read", "transition", "encode", "pack")


@dataclass
class Run:
    """What one pass over the log took, and what came out."""

    events: int = 0
    recommendations: int = 0
    drifts: int = 0
    stage_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time of the body to a stage."""
        started = time.perf_counter()
        yield
        self.stage_s[name] += time.perf_counter() - started


@dataclass(frozen=True)
class RawBatch:
    """Records of one partition in merged order, and the same by topic, as polls bring them.

    place  (E,) where each record of the three topics, one after the other, stands in merged order
    """

    partition: int
    by_topic: tuple[list[InputRecord], ...]
    event_type: np.ndarray
    offset: np.ndarray
    place: np.ndarray


def batches(records: list[InputRecord], partitions: int) -> list[RawBatch]:
    """The log cut into batches, partition by partition."""
    cut = []
    for partition in range(partitions):
        own = [record for record in records if record.partition == partition]
        kinds = np.array([record.event_type for record in own], dtype=np.int64)
        offset = np.zeros(len(own), dtype=np.int64)
        for kind in EventType:
            offset[kinds == kind] = np.arange((kinds == kind).sum())
        for start in range(0, len(own), BATCH_EVENTS):
            part = slice(start, start + BATCH_EVENTS)
            by_topic = tuple([r for r in own[part] if r.event_type == kind] for kind in EventType)
            place = np.argsort(kinds[part], kind="stable")
            cut.append(RawBatch(partition, by_topic, kinds[part], offset[part], place))
    return cut


def run(log: list[RawBatch], checkpoint: Checkpoint, settings: Settings) -> Run:
    """One pass over the log from empty rows."""
    done = Run()
    rows: dict[bytes, bytes] = {}
    source = Source(partitions=settings.partitions)
    for batch in log:
        _step(batch, rows, source, checkpoint, settings, done)
    return done


def _step(
    batch: RawBatch,
    rows: dict[bytes, bytes],
    source: Source,
    checkpoint: Checkpoint,
    settings: Settings,
    done: Run,
) -> None:
    with done.stage("decode"):
        decoded = []
        for kind in EventType:
            events, _ = decode_batch(
                kind,
                batch.by_topic[kind],
                partition=batch.partition,
                partitions=settings.partitions,
                future_allowance_ms=settings.future_allowance_ms,
                max_value_bytes=settings.max_event_bytes,
            )
            decoded += events
        merged = np.empty(len(decoded), dtype=object)
        merged[batch.place] = decoded
        in_order = merged.tolist()
    with done.stage("assemble"):
        assembled = assemble(in_order, batch.event_type, batch.offset, checkpoint.vocabulary)
    with done.stage("read"):
        keys = [user.encode() for user in assembled.users]
        states = unpack([rows.get(key) for key in keys], checkpoint.hidden)
    with done.stage("transition"):
        moved, outputs = transition(states, assembled.steps, source, checkpoint)
    with done.stage("encode"):
        encoded = encode(
            outputs,
            assembled.steps,
            assembled.users,
            assembled.item_id,
            batch.partition,
            settings.input_topics,
            checkpoint,
        )
    with done.stage("pack"):
        rows.update(zip(keys, pack(moved), strict=True))
    done.events += len(decoded)
    done.recommendations += len(encoded.recommendations)
    done.drifts += len(encoded.drift)


def main() -> None:
    """Measures one pass and writes the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--result", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings()
    if settings.checkpoint is None:
        parser.error("INTEREST_CHECKPOINT names no checkpoint")
    checkpoint = load(settings.checkpoint)
    log = batches(make_records(arguments.events, settings.partitions), settings.partitions)
    warm_up(checkpoint)
    run(log[:1], checkpoint, settings)
    gc.freeze()  # the log would not lie in memory
    started, started_cpu = time.perf_counter(), time.process_time()
    done = run(log, checkpoint, settings)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    result = {
        "events": done.events,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "recommendations": done.recommendations,
        "drifts": done.drifts,
        "stages_us": {name: 1e6 * s / done.events for name, s in done.stage_s.items()},
    }
    arguments.result.write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
