"""The real worker with one thing broken inside, run as a program by tests and scenarios.

python -m tests.failures.chaos.faults kill "after changelog" 3   dies there at the third time
python -m tests.failures.chaos.faults stop "before store" 3      stops itself there (SIGSTOP)
python -m tests.failures.chaos.faults refuse TOPIC               TOPIC refuses writes
python -m tests.failures.chaos.faults stall                      the changelog is never fetched
python -m tests.failures.chaos.faults full                       the store cannot be written

With --with-parent as the last argument it ends in order when standard input ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from aiokafka.errors import TopicAuthorizationFailedError
from faust.types import TP

from stream_app import worker
from stream_app.cli import end_with_input
from stream_app.data_folder import store_error
from stream_app.health import WorkerHealth
from stream_app.lane import recovery
from stream_app.lane.commit import AtStep
from stream_app.lane.sender import Receipt, Record, Sender, refused
from stream_app.lane.table import RowTable
from stream_app.lane.transport import LaneConsumer
from stream_app.settings import Settings
from stream_app.worker import run

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def signal_at(step: str, time: int, number: signal.Signals) -> AtStep:
    """A seam that sends the process a signal when a commit comes to a step for the n-th time."""
    seen = 0

    def at_step(name: str) -> None:
        nonlocal seen
        if name == step:
            seen += 1
            if seen == time:
                os.kill(os.getpid(), number)

    return at_step


def refuse(topic: str) -> None:
    """From now on one topic refuses writes."""
    send = Sender.send

    async def send_or_refuse(
        self: Sender, name: str, partition: int, records: Iterable[Record]
    ) -> Receipt:
        found = list(records)
        if name == topic and found:
            raise refused(topic, TopicAuthorizationFailedError(topic))
        return await send(self, name, partition, found)

    Sender.send = send_or_refuse  # type: ignore[assignment, method-assign]


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


def full() -> int:
    """Run a worker whose disk is full."""

    def write(_rows: RowTable, partition: int, *_arguments: object, **_options: object) -> None:
        raise store_error(Path(f"{partition}.db"), OSError("No space left on device"))

    RowTable.write = write  # type: ignore[assignment, method-assign]
    return worker.run(Settings())


def main(fault: str, *arguments: str) -> int:
    """Run a worker with the fault; the exit code."""
    if fault == "stall":
        return stall()
    if fault == "full":
        return full()
    if arguments[-1] == "--with-parent":
        threading.Thread(target=end_with_input, daemon=True).start()
    if fault == "refuse":
        refuse(arguments[0])
        return run(Settings())
    return run(Settings(), signal_at(arguments[0], int(arguments[1]), SIGNALS[fault]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
