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
from pathlib import Path
from typing import Any

import faust
import torch

from model.events import EventType
from stream_app.settings import Settings
from tests.benchmarks.one_event import Progress, Step, decoder, step_of

LINGER_S = 0.005
"""Faust's default of 0 sends nearly every record in a request of its own, which is slower."""


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
        read = decoder(event_type)

        @app.agent(topic(name), name=event_type.name.lower())
        async def agent(stream: Any) -> None:
            async for message in stream.events():
                event = read(message.value)
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


def main() -> None:
    """Runs the agent until it is ended from outside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--light", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings()
    step = step_of(settings, arguments.light)
    app = build_app(settings, step, Progress(arguments.events, arguments.result))
    # From level "warn" upwards Faust draws a spinner, for which every library logs at DEBUG.
    worker = faust.Worker(app, loglevel="info", redirect_stdouts=False)
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
