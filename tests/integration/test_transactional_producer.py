"""A producer with transactions: the ends of its transactions are no records, and no gap."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from model.checkpoint import Checkpoint
from stream_app import topics
from stream_app.replay import settings_beside
from stream_app.settings import Settings
from tests.conftest import own_settings
from tests.integration.test_replay import assert_exact, replay
from tests.noida import NoidaBroker
from tests.workers import overrides_of, start_worker, wait_until

EVENTS = 5
APART_S = 0.5
"""Between an event and the end of its transaction, and the next one, so that a poll finds the end
alone."""


async def produce(settings: Settings) -> None:
    """An event in each transaction."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id="a-shop", acks="all"
    )
    await producer.start()
    try:
        for number in range(EVENTS):
            event = {"event_id": str(number), "user_id": "ann", "item_id": "item-1"}
            event["timestamp"] = 1_772_360_000_000 + number  # type: ignore[assignment]
            async with producer.transaction():
                value = json.dumps(event).encode()
                await producer.send_and_wait(settings.clicks_topic, value, b"ann")
                await asyncio.sleep(APART_S)
            await asyncio.sleep(APART_S)
    finally:
        await producer.stop()


def test_every_event_is_applied_and_a_replay_ends(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("noida_db", reason="noida-db, a broker with transactions, is not installed")
    with NoidaBroker(tmp_path / "noida") as broker:
        settings = own_settings(broker.bootstrap, tmp_path)
        topics.create(settings)
        overrides = {**overrides_of(settings, checkpoint, tmp_path), "session_timeout_s": 6.0}
        worker = start_worker(overrides, tmp_path)
        try:
            asyncio.run(produce(settings))

            def figures() -> dict[str, float]:
                found: dict[str, float] = {"applied": 0.0, "lag": 0.0}
                for (name, labels), value in worker.metrics().items():
                    if name == "interest_events_total" and "applied" in labels:
                        found["applied"] += value
                    if name == "interest_consumer_lag_events":
                        found["lag"] += value
                return found

            wait_until(lambda: figures() == {"applied": EVENTS, "lag": 0.0}, worker)
            assert worker.is_ready()
            assert worker.stop() == 0
        finally:
            worker.kill()
        status, said = replay(overrides, "--from", "2026-01-01", "--as", f"{settings.app_id}-new")
        assert status == 0, said
        assert_exact(settings_beside(settings, f"{settings.app_id}-new"), checkpoint, EVENTS)
