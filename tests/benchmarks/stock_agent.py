"""The opponent: a stock Faust agent, written as Faust's documentation writes one.

Three agents, one per input topic, each taking one event at a time: decode and validate it, read the
user's row from a Faust table, move it, write it, send what comes out. The full agent calls the
product's own ``transition`` on a batch of one; ``--light`` calls the network directly
(light_model.py). Repeats, dead letters, the merge by event time, and acknowledgement before commit
are left out in both: that is in their favour.

Run by the harness: ``python -m tests.benchmarks.stock_agent --events N --result FILE [--light]``,
with the worker's INTEREST_* variables.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import faust
import msgspec
import numpy as np
import torch

from model.checkpoint import Checkpoint, load
from model.events import EventType
from model.events import Source as Offsets
from model.state import pack, unpack
from model.transition import transition, warm_up
from stream_app.events import Click, Event, Purchase, Search
from stream_app.lane.assemble import assemble
from stream_app.outputs import encode
from stream_app.settings import Settings
from tests.benchmarks.light_model import LightModel

Step = Callable[
    [EventType, Event, int, int, "bytes | None"], tuple[bytes, list[bytes], list[bytes]]
]
"""(type, event, partition, offset, row or None) -> (new row, drift and recommendation values)."""

LINGER_S = 0.005
"""Faust's default of 0 sends nearly every record in a request of its own, which is slower."""

STRUCTS: dict[EventType, type[Event]] = {
    EventType.CLICK: Click,
    EventType.SEARCH: Search,
    EventType.PURCHASE: Purchase,
}


class Progress:
    """Counts processed events; at the last one writes the figures."""

    def __init__(self, events: int, result: Path) -> None:
        self._events = events
        self._result = result
        self._first = 0.0
        self._first_cpu = 0.0
        self._done = 0
        self.recommendations = 0
        self.drifts = 0

    def note(self) -> None:
        """One more event is processed; the time runs from the first to the last."""
        self._done += 1
        if self._done == 1:
            self._first, self._first_cpu = time.perf_counter(), time.process_time()
        if self._done == self._events:
            figures = {
                "events": self._done - 1,
                "seconds": time.perf_counter() - self._first,
                "cpu_seconds": time.process_time() - self._first_cpu,
                "recommendations": self.recommendations,
                "drifts": self.drifts,
            }
            unfinished = self._result.with_suffix(".part")
            unfinished.write_bytes(msgspec.json.encode(figures))
            unfinished.rename(self._result)


def full_step(checkpoint: Checkpoint, settings: Settings) -> Step:
    """The product's transition and outputs on a batch of one event."""
    offsets = Offsets(partitions=settings.partitions)

    def step(
        event_type: EventType, event: Event, partition: int, offset: int, row: bytes | None
    ) -> tuple[bytes, list[bytes], list[bytes]]:
        assembled = assemble(
            [event], np.array([int(event_type)]), np.array([offset]), checkpoint.vocabulary
        )
        states = unpack([row], checkpoint.hidden)
        moved, outputs = transition(states, assembled.steps, offsets, checkpoint)
        encoded = encode(
            outputs,
            assembled.steps,
            assembled.users,
            partition,
            settings.input_topics,
            checkpoint,
        )
        drift = [value for _, value in encoded.drift]
        return pack(moved)[0], drift, [value for _, value in encoded.recommendations]

    return step


def build_app(settings: Settings, step: Step, progress: Progress) -> faust.App:
    """A Faust app with one agent per input topic and one table."""
    app = faust.App(
        settings.app_id,
        broker=settings.faust_broker_url(),
        store="rocksdb://?driver=rocksdict",
        datadir=settings.data_dir,
        topic_partitions=settings.partitions,
        topic_disable_leader=True,
        web_enabled=False,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=settings.session_timeout_s,
        broker_rebalance_timeout=settings.rebalance_timeout_s,
        broker_heartbeat_interval=settings.heartbeat_s,
        broker_commit_interval=settings.commit_interval_s,
        producer_linger=LINGER_S,
    )
    rows = app.Table(
        "user_state",
        partitions=settings.partitions,
        key_type=bytes,
        value_type=bytes,
        schema=faust.Schema(
            key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        ),
    )

    def topic(name: str) -> Any:
        return app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw"
        )

    drifts, recommendations = topic(settings.drift_topic), topic(settings.recommendations_topic)

    def add_agent(event_type: EventType, name: str) -> None:
        decode = msgspec.json.Decoder(STRUCTS[event_type]).decode

        @app.agent(topic(name), name=event_type.name.lower())
        async def agent(stream: Any) -> None:
            async for message in stream.events():
                event = in_milliseconds(decode(message.value))
                place = message.message
                row, drift, recommended = step(
                    event_type, event, place.partition, place.offset, rows.get(message.key)
                )
                rows[message.key] = row
                for value in drift:
                    await drifts.send(key=message.key, value=value)
                for value in recommended:
                    await recommendations.send(key=message.key, value=value)
                progress.drifts += len(drift)
                progress.recommendations += len(recommended)
                progress.note()

    for event_type, name in zip(EventType, settings.input_topics, strict=True):
        add_agent(event_type, name)
    return app


def in_milliseconds(event: Event) -> Event:
    """The event with its timestamp as epoch milliseconds."""
    moment: int | datetime = event.timestamp_ms
    if isinstance(moment, int):
        return event
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    ms = int((moment - epoch).total_seconds() * 1000)
    return msgspec.structs.replace(event, timestamp_ms=ms)


def main() -> None:
    """Runs the agent until it is ended from outside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--light", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings()
    if settings.checkpoint is None:
        parser.error("INTEREST_CHECKPOINT names no checkpoint")
    checkpoint = replace(
        load(settings.checkpoint),
        recommend_every=settings.recommend_every,
        top_k=settings.top_k,
    )
    warm_up(checkpoint)
    light = LightModel(checkpoint, settings.input_topics).step
    step = light if arguments.light else full_step(checkpoint, settings)
    app = build_app(settings, step, Progress(arguments.events, arguments.result))
    # From level "warn" upwards Faust draws a spinner, for which every library logs at DEBUG.
    worker = faust.Worker(app, loglevel="info", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
