"""The real worker with one thing broken, run as a program by the tests of the worker.

python -m tests.integration.lane_worker kill "after changelog" 3   dies there at the third time
python -m tests.integration.lane_worker refuse TOPIC               TOPIC refuses writes
python -m tests.integration.lane_worker stall                      the changelog is never fetched
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from functools import partial

from aiokafka.errors import TopicAuthorizationFailedError
from faust.types import TP

from stream_app import worker
from stream_app.health import WorkerHealth
from stream_app.lane import recovery
from stream_app.lane.sender import Receipt, Record, Sender, refused
from stream_app.lane.transport import LaneConsumer
from stream_app.settings import Settings
from stream_app.worker import run


def kill_at(step: str, time: int) -> int:
    """Run a worker that kills itself when it comes to a step of a commit for the n-th time."""
    seen = 0

    def at_step(name: str) -> None:
        nonlocal seen
        seen += name == step
        if seen == time:
            os.kill(os.getpid(), signal.SIGKILL)

    return run(Settings(), at_step)


def refuse(topic: str) -> int:
    """Run a worker to which one topic refuses writes."""
    send = Sender.send

    async def send_or_refuse(
        self: Sender, name: str, partition: int, records: Iterable[Record]
    ) -> Receipt:
        found = list(records)
        if name == topic and found:
            raise refused(topic, TopicAuthorizationFailedError(topic))
        return await send(self, name, partition, found)

    Sender.send = send_or_refuse  # type: ignore[method-assign]
    return run(Settings())


def stall() -> int:
    """Run a worker that never fetches its changelog, and is told so sooner than others."""
    settings = Settings()
    resume = LaneConsumer.resume_partitions

    def resume_but_the_changelog(self: LaneConsumer, tps: Iterable[TP]) -> None:
        resume(self, {tp for tp in tps if tp.topic != settings.changelog_topic})

    LaneConsumer.resume_partitions = resume_but_the_changelog  # type: ignore[method-assign]
    recovery.STALLED_S = 8.0
    worker.WorkerHealth = partial(  # type: ignore[misc, assignment]
        WorkerHealth, recovery_stalled_after_seconds=1.0
    )
    return worker.run(settings)


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "kill":
        sys.exit(kill_at(arguments[0], int(arguments[1])))
    sys.exit(refuse(arguments[0]) if what == "refuse" else stall())
