"""The opponent from outside Faust: a Quix Streams application, as its documentation writes one.

The three topics are concatenated into one dataframe, so that the events of a user share a state. A
stateful function takes one event at a time: decode and validate it, read the user's row, move it
with the product's own ``transition`` on a batch of one, write it; ``--light`` calls the network
directly (light_model.py). What comes out goes to two topics. The row is bytes in the application's
RocksDB store, which has a changelog topic; Quix Streams writes both at a commit, and of each user
only the last row. As with the stock agents, repeats and dead letters are left out, and what is
written after the last event is not waited for: that is in its favour.

Run by the harness: ``python -m tests.benchmarks.quix_agent --events N --result FILE [--light]``,
with the worker's INTEREST_* variables.
"""

from __future__ import annotations

import argparse
from functools import reduce
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from quixstreams import Application, State, message_context
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.models import TopicAdmin, TopicConfig, TopicManager

from model.events import EventType
from stream_app.events import Event
from stream_app.settings import Settings
from tests.benchmarks.one_event import Progress, Step, decoder, step_of

POLL_S = 0.05
"""Quix's default of a second is waited for whenever one topic of a partition has run dry."""

ROW = "row"
"""The key, below the user's, of the row in the state."""


class UnreportedTopics(TopicManager):
    """Makes the changelog topic where the broker does not report how long its inputs are kept."""

    @classmethod
    def derive_topic_config(cls, topics: Any) -> TopicConfig:
        """As many partitions as the inputs have; the broker's own retention."""
        partitions = max(topic.broker_config.num_partitions for topic in topics)
        return TopicConfig(num_partitions=partitions, replication_factor=1, extra_config={})


def build_app(settings: Settings, step: Step, progress: Progress) -> Application:
    """An application with one stateful dataframe over the three input topics."""
    app = Application(
        broker_address=settings.kafka_bootstrap,
        consumer_group=settings.app_id,
        auto_offset_reset="earliest",
        commit_interval=settings.commit_interval_s,
        state_dir=settings.data_dir,
        consumer_poll_timeout=POLL_S,
        consumer_extra_config={
            "session.timeout.ms": int(1000 * settings.session_timeout_s),
            "heartbeat.interval.ms": int(1000 * settings.heartbeat_s),
        },
        topic_manager=UnreportedTopics(TopicAdmin(settings.kafka_bootstrap), settings.app_id),
        on_message_processed=lambda topic, partition, offset: progress.note(),
    )
    drifts = app.topic(settings.drift_topic, value_serializer="bytes")
    recommendations = app.topic(settings.recommendations_topic, value_serializer="bytes")

    def frame(event_type: EventType, name: str) -> StreamingDataFrame:
        read = decoder(event_type)
        values = app.dataframe(app.topic(name, value_deserializer="bytes"))
        return values.apply(lambda value: (event_type, read(value)))

    def move(
        value: tuple[EventType, Event], key: bytes, timestamp: int, headers: Any, state: State
    ) -> tuple[list[bytes], list[bytes]]:
        place = message_context()
        row, drift, recommended = step(*value, place.partition, place.offset, state.get_bytes(ROW))
        state.set_bytes(ROW, row)
        progress.drifts += len(drift)
        progress.recommendations += len(recommended)
        return drift, recommended

    frames = map(frame, EventType, settings.input_topics)
    moved = reduce(StreamingDataFrame.concat, frames).apply(move, stateful=True, metadata=True)
    moved.apply(itemgetter(0), expand=True).to_topic(drifts)
    moved.apply(itemgetter(1), expand=True).to_topic(recommendations)
    return app


def main() -> None:
    """Runs the application until it is ended from outside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--light", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = Settings()
    progress = Progress(arguments.events, arguments.result)
    build_app(settings, step_of(settings, arguments.light), progress).run()


if __name__ == "__main__":
    main()
