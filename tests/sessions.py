"""Whether a broker ends the session of a consumer that died, which takeovers after kills need."""

from __future__ import annotations

import subprocess
import sys
import time

from kafka import KafkaConsumer

from stream_app.settings import Settings

SESSION_TIMEOUT_MS = 6000
GIVEN_UP_AFTER_S = 30.0
"""A broker that keeps to the session timeout needs about 6 s."""

MEMBER = """
import sys
from stream_app.settings import Settings
from tests.sessions import member

bootstrap, app_id, topic = sys.argv[1:]
consumer = member(Settings(kafka_bootstrap=bootstrap, app_id=app_id, clicks_topic=topic))
while not consumer.assignment():
    consumer.poll(100)
print("joined", flush=True)
while True:
    consumer.poll(100)
"""


def member(settings: Settings) -> KafkaConsumer:
    """A consumer of the clicks in a group of its own."""
    return KafkaConsumer(
        settings.clicks_topic,
        **settings.kafka_python(),
        group_id=settings.app_id,
        session_timeout_ms=SESSION_TIMEOUT_MS,
        heartbeat_interval_ms=500,
        max_poll_interval_ms=2 * SESSION_TIMEOUT_MS,
    )


def ends_dead_sessions(settings: Settings) -> bool:
    """Kill the only member of a group, and see whether another one gets its partitions."""
    place = [settings.kafka_bootstrap, settings.app_id, settings.clicks_topic]
    command = [sys.executable, "-c", MEMBER, *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline().strip() == "joined"
        first.kill()
    second = member(settings)
    deadline = time.monotonic() + GIVEN_UP_AFTER_S
    try:
        while time.monotonic() < deadline:
            second.poll(100)
            if len(second.assignment()) == settings.partitions:
                return True
        return False
    finally:
        second.close()
