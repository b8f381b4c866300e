"""The broker itself ends and starts again with its data."""

from __future__ import annotations

import signal
import time

from tests.failures.chaos.brokers import DiskBroker
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run

DOWN_S = 2.0
WRITTEN_AFTER_S = 5.0
"""The broker writes its data every 2 s or so, and loses what it acknowledged since when killed."""


@scenario("broker restarted in order", broker=DiskBroker)
def in_order(run: Run) -> None:
    """The broker ends by SIGTERM and starts again with its data."""
    _restart(run, signal.SIGTERM)


@scenario("broker killed and restarted", broker=DiskBroker)
def killed(run: Run) -> None:
    """The broker is killed and starts again with its data."""
    _restart(run, signal.SIGKILL)


def _restart(run: Run, number: signal.Signals) -> None:
    run.supervise()
    run.load.send(2000)
    run.wait_until(run.applied(2000), "the worker applies what was sent")
    for _ in range(10 if run.long else 1):
        run.wait_until(run.is_settled, "all is applied")
        time.sleep(WRITTEN_AFTER_S)
        run.broker.stop(number)
        time.sleep(DOWN_S)
        run.broker.start()
        run.note()
        run.wait_until(run.applied(run.load.send(2000)), "the worker goes on after the restart")
