"""How long the sweep of expired rows holds up a worker: 100,000 rows of one partition expire.

A worker applies an event of each user, then two events from after the time to live; meanwhile its
event loop is asked every millisecond how long it was held up. Run as ``python -m
tests.benchmarks.sweep``, which takes about a minute.

wall   of the clock, with what other processes of the machine took
cpu    of the thread of the event loop alone
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from kafka import KafkaProducer

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.cli import end_with_input
from stream_app.demo.processes import WorkerProcess
from stream_app.lane.lane import Lane
from stream_app.settings import Settings
from stream_app.worker import run
from tests.checkpoints import tiny_checkpoint
from tests.conftest import own_settings
from tests.failures.chaos.load import START_MS
from tests.workers import committed_events, overrides_of, wait_until

ROWS = 100_000
TTL_DAYS = 3
DAY_MS = 86_400_000
TICK_S = 0.001
EXPIRED = ("interest_expired_rows_total", ())
Held = tuple[float, float, float]
"""When it ended (monotonic seconds), and seconds by wall and by CPU."""


def main() -> None:
    """Fill a partition with rows, let them expire, and print the longest pauses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder, EmbeddedBroker() as broker:
        home = Path(folder)
        settings = own_settings(broker.bootstrap, home).model_copy(
            update={"partitions": 1, "state_ttl": f"{TTL_DAYS}d"}
        )
        topics.create(settings)
        overrides = overrides_of(settings, tiny_checkpoint(), home)
        result = home / "result.json"
        program = ("tests.benchmarks.sweep", "--worker", str(result))
        worker = WorkerProcess(overrides, home, "worker", program)
        try:
            worker.wait_until_ready()
            _click(settings, [(f"user-{number}", START_MS + number) for number in range(rows)])
            wait_until(lambda: committed_events(settings) == rows, worker)
            later_ms = START_MS + 2 * TTL_DAYS * DAY_MS
            _click(settings, [("later", later_ms)])
            wait_until(lambda: committed_events(settings) == rows + 1, worker)
            _click(settings, [("later", later_ms + 1)])  # the journal has the expiry with this one
            wait_until(lambda: worker.metrics().get(EXPIRED, 0) >= rows, worker)
            worker.stop()
        finally:
            worker.kill()
        _print(rows, **json.loads(result.read_text()))


def _print(rows: int, steps: list[float], held: list[Held]) -> None:
    first, last = steps[0] - 1.0, steps[-1] + 1.0
    within = [(wall, cpu) for ended, wall, cpu in held if first <= ended <= last]
    wall, cpu = (1000 * max(column) for column in zip(*within, strict=True))
    sys.stdout.write(
        f"{rows:,} rows expired in {steps[-1] - steps[0]:.2f} s, {len(steps) // 2} slices; "
        f"longest pause {wall:.1f} ms wall, {cpu:.1f} ms cpu\n"
    )


def _click(settings: Settings, clicks: list[tuple[str, int]]) -> None:
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
    for user, time_ms in clicks:
        event = {"event_id": f"{user}-{time_ms}", "user_id": user, "timestamp": time_ms}
        value = json.dumps(event | {"item_id": f"item-{time_ms % 200}"}).encode()
        producer.send(settings.clicks_topic, value, user.encode(), partition=0)
    producer.flush()
    producer.close()


def measured_worker(result: Path) -> int:
    """Run a worker, and write down how long its event loop was held up."""
    held: list[Held] = []
    steps: list[float] = []
    watch = Lane.watch

    async def measure() -> None:
        wall, cpu = time.monotonic(), time.thread_time()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic(), time.thread_time()
            held.append((now[0], now[0] - wall - TICK_S, now[1] - cpu))
            wall, cpu = now

    async def watch_and_measure(self: Lane) -> None:
        await asyncio.gather(watch(self), measure())

    def at_step(name: str) -> None:
        if name.endswith("expiry"):
            steps.append(time.monotonic())

    Lane.watch = watch_and_measure  # type: ignore[method-assign]
    threading.Thread(target=end_with_input, daemon=True).start()
    status = run(Settings(), at_step)
    result.write_text(json.dumps({"steps": steps, "held": held}))
    return status


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(measured_worker(Path(sys.argv[2])))
    main()
