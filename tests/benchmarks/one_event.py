"""What the agents that take one event at a time share: the step, and how its progress is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np

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

_STRUCTS: dict[EventType, type[Event]] = {
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


def decoder(event_type: EventType) -> Callable[[bytes], Event]:
    """Decodes and validates the values of a topic; timestamps become epoch milliseconds."""
    decode = msgspec.json.Decoder(_STRUCTS[event_type]).decode

    def read(value: bytes) -> Event:
        return _in_milliseconds(decode(value))

    return read


def _in_milliseconds(event: Event) -> Event:
    moment: int | datetime = event.timestamp_ms
    if isinstance(moment, int):
        return event
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    ms = int((moment - epoch).total_seconds() * 1000)
    return msgspec.structs.replace(event, timestamp_ms=ms)


def step_of(settings: Settings, light: bool = False) -> Step:
    """The step that an agent calls per event, with the checkpoint of the settings, warmed up.

    Args:
        light: the network alone, see light_model.py; or else the product's transition.

    Raises:
        ValueError: the settings name no checkpoint.
    """
    if settings.checkpoint is None:
        raise ValueError("INTEREST_CHECKPOINT names no checkpoint")
    checkpoint = replace(
        load(settings.checkpoint),
        recommend_every=settings.recommend_every,
        top_k=settings.top_k,
    )
    warm_up(checkpoint)
    if light:
        return LightModel(checkpoint, settings.input_topics).step
    return _full_step(checkpoint, settings)


def _full_step(checkpoint: Checkpoint, settings: Settings) -> Step:
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
            assembled.item_id,
            partition,
            settings.input_topics,
            checkpoint,
        )
        drift = [value for _, value in encoded.drift]
        return pack(moved)[0], drift, [value for _, value in encoded.recommendations]

    return step
