"""Looks at the workers of a scenario every second: invariant 4."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream_app.settings import Settings
from tests.failures.chaos.load import CLIENT_ID
from tests.failures.chaos.workers import ChaosWorker

INTERVAL_S = 1.0
STUCK_AFTER_S = 45.0
"""A ready worker that leaves records lying for so long is stuck; /readyz says so after 30 s."""
TIMEOUT_MS = 5000

Place = tuple[str, int]


class Offsets:
    """The committed offsets of the worker's group, asked for over one connection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin: Any = None

    def committed(self) -> dict[Place, int]:
        """Per (topic, partition) of the input topics; KafkaError or OSError without a broker."""
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    **self._settings.kafka_python(),
                    client_id=CLIENT_ID,
                    bootstrap_timeout_ms=TIMEOUT_MS,
                    request_timeout_ms=TIMEOUT_MS,
                )
            app_id = self._settings.app_id
            found = self._admin.list_group_offsets(app_id).get(app_id, {})
        except Exception:
            self.close()
            raise
        inputs = set(self._settings.input_topics)
        return {
            (place.topic, place.partition): max(0, at.offset)
            for place, at in found.items()
            if place.topic in inputs
        }

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        admin, self._admin = self._admin, None
        if admin is not None:
            with suppress(KafkaError, OSError):
                admin.close()


class Watch:
    """The sampler thread.

    Args:
        settings: of the run.
        ends: per (topic, partition) the offset after the last acknowledged record.
        workers: the workers that there are now.

    broken holds what is wrong, one sentence each.
    """

    def __init__(
        self,
        settings: Settings,
        ends: Callable[[], Mapping[Place, int]],
        workers: Callable[[], list[ChaosWorker]],
    ) -> None:
        self._offsets = Offsets(settings)
        self._ends = ends
        self._workers = workers
        self._moved_at: dict[Place, float] = {}
        self._seen: dict[Place, int] = {}
        self._stopping = threading.Event()
        self.broken: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()
        self._offsets.close()

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL_S):
            with suppress(KafkaError, OSError):
                self._look(time.monotonic())

    def _look(self, now: float) -> None:
        running = [worker for worker in self._workers() if worker.status() is None]
        are_ready = bool(running) and all(worker.is_ready() for worker in running)
        ends, committed = self._ends(), self._offsets.committed()
        for place, end in ends.items():
            at = committed.get(place, 0)
            moves = at != self._seen.get(place) or at >= end
            self._seen[place] = at
            if moves or not are_ready or place not in self._moved_at:
                self._moved_at[place] = now
            elif now - self._moved_at[place] > STUCK_AFTER_S and not self.broken:
                names = ", ".join(worker.name for worker in running)
                self.broken.append(
                    f"silently stuck: ready ({names}), but {place[0]} partition {place[1]} stands "
                    f"at {at} of {end} for more than {STUCK_AFTER_S:g} s"
                )
