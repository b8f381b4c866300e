"""The connection between worker and broker, broken by a proxy in between."""

from __future__ import annotations

import time

from tests.failures.chaos.brokers import proxied
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run
from tests.workers import SESSION_TIMEOUT_S

RATE = 500
LONGER_THAN_THE_SESSION_S = 2.5 * SESSION_TIMEOUT_S


@scenario("connection cut", broker=proxied)
def cut(run: Run) -> None:
    """All connections of the worker are reset, and new ones for a second, again and again."""
    _begin(run)
    for _ in range(20 if run.long else 3):
        run.broker.proxy.cut()
        time.sleep(1.0)
        run.broker.proxy.heal()
        run.note()
        _goes_on(run)


@scenario("broker out of reach", broker=proxied)
def out_of_reach(run: Run) -> None:
    """Connections of the worker are reset for longer than its session."""
    _begin(run)
    run.broker.proxy.cut()
    run.note()
    time.sleep(60.0 if run.long else LONGER_THAN_THE_SESSION_S)
    run.broker.proxy.heal()
    _goes_on(run)


@scenario("connection delayed by 2 s", broker=proxied)
def delayed(run: Run) -> None:
    """Every answer of the broker arrives 2 s later."""
    _begin(run)
    run.broker.proxy.delay(2.0)
    run.note()
    time.sleep(60.0 if run.long else 12.0)
    run.broker.proxy.heal()
    _goes_on(run)


@scenario("connection half open", broker=proxied)
def half_open(run: Run) -> None:
    """What the broker answers is swallowed, while it still gets what the worker sends."""
    _begin(run)
    for _ in range(3 if run.long else 1):
        run.broker.proxy.swallow()
        run.note()
        time.sleep(60.0 if run.long else LONGER_THAN_THE_SESSION_S)
        run.broker.proxy.heal()
        _goes_on(run)


@scenario("connection black-holed", broker=proxied)
def black_hole(run: Run) -> None:
    """Nothing passes in either direction for longer than the session."""
    _begin(run)
    run.broker.proxy.hold()
    run.note()
    time.sleep(60.0 if run.long else LONGER_THAN_THE_SESSION_S)
    run.broker.proxy.heal()
    _goes_on(run)


def _begin(run: Run) -> None:
    run.supervise()
    run.load.start(RATE)
    run.wait_until(run.applied(RATE), "the worker is under load")


def _goes_on(run: Run) -> None:
    """The worker applies again, what it had at the end of the fault."""
    run.wait_until(run.applied(run.load.count), "the worker goes on after the fault")
