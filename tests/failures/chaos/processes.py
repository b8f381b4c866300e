"""Workers that are killed, stopped and joined by others."""

from __future__ import annotations

from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run


@scenario("SIGTERM under load")
def sigterm(run: Run) -> None:
    """A worker that is told to end under load ends in order, again and again."""
    run.load.start(rate=1000)
    for _ in range(20 if run.long else 4):
        worker = run.worker()
        run.wait_until(run.applied(run.load.count), "the worker applies what was sent")
        run.require(worker.stop() == 0, "the worker does not end in order")
        run.note()
