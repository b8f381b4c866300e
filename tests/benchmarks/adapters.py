"""What the adapter step takes: GA4 rows through it, beside the same events on the input topics.

    python -m tests.benchmarks.adapters [--events N] [--rounds N]

In each round, in an order that turns, each on a broker of its own:

sent      the mapped records by the step's producer alone, in batches as the step has them
mapped    the step alone: reads the rows, maps them, sends them, commits
plain     a worker without adapters, whose input topics hold the events already
adapted   the same worker, which maps them from a mixed topic meanwhile

All have the same users, items and types of events. Rates are events per second.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from rich.table import Table

from model.events import EventType
from stream_app import topics
from stream_app.admin import admin_client
from stream_app.lane.reading import stream_records
from stream_app.repartition.mapping import Mapper, Report
from stream_app.repartition.places import Seen
from stream_app.repartition.sending import Out, Sending
from stream_app.repartition.step import Repartition
from stream_app.settings import Settings
from tests.benchmarks.cluster import cluster, worker_overrides
from tests.benchmarks.command_line import ending, positive
from tests.benchmarks.contenders import Place, measure_worker
from tests.benchmarks.figures import Spread
from tests.benchmarks.processes import WAIT_S, BenchmarkError
from tests.benchmarks.workload import InputRecord, make_records, produce
from tests.command_line import make_console
from tests.unit.adapters.examples import ga4_item, ga4_row

EVENTS = 120_000
ROUNDS = 3
PARTITIONS = 8
ACTIONS = {"view": "view_item", "cart": "add_to_cart", "favourite": "add_to_wishlist"}


@dataclass(frozen=True)
class Ready:
    """A broker with the events on its topics, and a folder."""

    settings: Settings
    home: Path
    events: int


def ga4(record: InputRecord) -> bytes:
    """The row of an export that is mapped to this event."""
    event = json.loads(record.value)
    more: dict[str, Any] = {
        "user_id": event["user_id"],
        "user_pseudo_id": event.get("device_id", event["user_id"]),
        "event_timestamp": str(record.time_ms * 1000),
    }
    if record.event_type is EventType.SEARCH:
        term = {"key": "search_term", "value": {"string_value": event["query"]}}
        return json.dumps(ga4_row("search", **more, event_params=[term])).encode()
    is_click = record.event_type is EventType.CLICK
    items = [event] if is_click else event["items"]
    name = ACTIONS[event.get("action", "view")] if is_click else "purchase"
    more["items"] = [ga4_item(item["item_id"], item["category"]) for item in items]
    return json.dumps(ga4_row(name, **more)).encode()


@contextmanager
def place(records: list[InputRecord], is_mixed: bool) -> Iterator[Ready]:
    """The events on their input topics, or as rows on a mixed topic."""
    with (
        tempfile.TemporaryDirectory(prefix="interest-bench-") as folder,
        cluster(None, Path(folder), PARTITIONS) as (settings, _),
    ):
        if not is_mixed:
            produce(settings, records)
        else:
            topic = f"{settings.app_id}.mixed"
            settings = settings.model_copy(update={"adapter_topics": f"{topic}=ga4"})
            with admin_client(settings) as admin:
                admin.create_topics(
                    {topic: {"num_partitions": PARTITIONS, "replication_factor": 1}}
                )
                admin.wait_for_topics([topic])
            producer = KafkaProducer(**settings.kafka_python(), linger_ms=20, batch_size=500_000)
            for record in records:
                producer.send(topic, ga4(record), record.key, timestamp_ms=record.time_ms)
            producer.close()
        yield Ready(settings, Path(folder), len(records))


def measure_plain(ready: Ready) -> float:
    """Of the worker, from the first decoded event to the last that is committed."""
    overrides = worker_overrides(ready.settings, ready.home)
    home = ready.home / "worker"
    home.mkdir()
    return measure_worker(Place(overrides, home, ready.events)).events_per_second


def measure_mapped(ready: Ready) -> float:
    """Of the step, from its first batch to its last, the first not counted."""
    ended = threading.Event()
    seen: list[tuple[float, int]] = []
    failures: list[Exception] = []

    def note(report: Report) -> None:
        if mapped := sum(report.events.values()):
            seen.append((time.monotonic(), mapped))
        if sum(count for _, count in seen) >= ready.events:
            ended.set()

    def fail(error: Exception) -> None:
        failures.append(error)
        ended.set()

    step = Repartition(ready.settings, note, fail)
    step.start()
    ended.wait(WAIT_S)
    step.stop()
    mapped = sum(count for _, count in seen)
    if failures or mapped != ready.events:
        raise BenchmarkError(f"The step mapped {mapped:,} of {ready.events:,} events: {failures}.")
    return (mapped - seen[0][1]) / (seen[-1][0] - seen[0][0])


def measure_sent(ready: Ready) -> float:
    """Of the step's producer, with records that are mapped before the time runs."""
    settings = ready.settings
    mapper = Mapper(settings, topics.adapter_epochs(settings), PARTITIONS)
    batches: list[list[Out]] = []
    for topic in settings.adapters:
        for partition in range(PARTITIONS):
            records = list(stream_records(settings, topic, partition))
            for at in range(0, len(records), settings.max_batch_events):
                some = records[at : at + settings.max_batch_events]
                batches.append(mapper.map((topic, partition), some, Seen({}), Report()))
    with closing(Sending(settings, lambda: True, lambda name: None)) as sending:
        sending.send(batches[0], WAIT_S)
        began = time.monotonic()
        for out in batches[1:]:
            sending.send(out, WAIT_S)
        return sum(map(len, batches[1:])) / (time.monotonic() - began)


WAYS: dict[str, tuple[Callable[[Ready], float], bool]] = {
    "sent": (measure_sent, True),
    "mapped": (measure_mapped, True),
    "plain": (measure_plain, False),
    "adapted": (measure_plain, True),
}
"""How each is measured, and whether the events are on a mixed topic."""


def main() -> None:
    """Measure, and show medians with their extremes."""
    parser = argparse.ArgumentParser(description="Measure the adapter step.")
    parser.add_argument("--events", type=positive, default=EVENTS, metavar="N")
    parser.add_argument("--rounds", type=positive, default=ROUNDS, metavar="N")
    arguments = parser.parse_args()
    console = make_console()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    records = make_records(arguments.events, PARTITIONS)
    with ending(console):
        for number in range(arguments.rounds):
            turn = number % len(WAYS)
            for name in [*list(WAYS)[turn:], *list(WAYS)[:turn]]:
                measure, is_mixed = WAYS[name]
                with place(records, is_mixed) as ready:
                    rates[name].append(measure(ready))
                console.print(f"Round {number + 1}: {name} {rates[name][-1]:,.0f} events/s")
    table = Table("", "events/s", "lowest", "highest")
    for name, values in rates.items():
        spread = Spread.of(values)
        table.add_row(name, *(f"{v:,.0f}" for v in (spread.median, spread.lowest, spread.highest)))
    console.print(table)


if __name__ == "__main__":
    main()
