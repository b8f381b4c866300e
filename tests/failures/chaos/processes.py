"""Workers that are killed, told to end, and joined by others."""

from __future__ import annotations

import signal
import time

from stream_app.lane.commit import STEPS
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run

SMALL_BATCH = 100
"""So that a little load makes many commits."""


@scenario("kill -9 at each step", kills=True)
def kill_at_each_step(run: Run) -> None:
    """Two workers are killed, before and after each step of their commits, and started again."""
    run.load.start(rate=300)
    for _ in range(4 if run.long else 1):
        for step in STEPS:
            steps = [f"before {step}", f"after {step}"]
            pair = [
                run.worker(
                    where.split()[0],
                    fault=("kill", where, str(run.rng.integers(1, 4))),
                    ready=False,
                    max_batch_events=SMALL_BATCH,
                )
                for where in steps
            ]
            for where, worker in zip(steps, pair, strict=True):
                run.wait_until(lambda w=worker: w.status() is not None, f"killed {where}")
                run.require(
                    worker.status() == -signal.SIGKILL,
                    f"{where}: the worker ended by itself: {worker.last_line()}",
                )
                run.note()
    run.check_committed()


@scenario("kill -9 at random under load", kills=True)
def kill_at_random(run: Run) -> None:
    """A worker under load is killed at random moments, and started again each time."""
    one = run.supervise(max_batch_events=SMALL_BATCH)
    run.load.start(rate=1000 if run.long else 500)
    for _ in range(50 if run.long else 5):
        run.wait_until(lambda: one.worker.is_ready(), "the worker is ready again")
        time.sleep(float(run.rng.uniform(0.0, 1.5)))
        one.kill()
        run.note()
    run.check_committed()


@scenario("SIGTERM under load")
def sigterm(run: Run) -> None:
    """A worker that is told to end under load ends in order, again and again."""
    run.load.start(rate=1000 if run.long else 500)
    for _ in range(20 if run.long else 2):
        worker = run.worker()
        run.wait_until(run.applied(run.load.count), "the worker applies what was sent")
        run.require(worker.stop() == 0, "the worker does not end in order")
        run.note()


@scenario("workers join and leave")
def join_and_leave(run: Run) -> None:
    """A second worker joins and leaves in order every 20 s under 10,000 events/s."""
    _join_and_leave(run, by_kill=False)


@scenario("workers join and are killed", kills=True)
def join_and_die(run: Run) -> None:
    """A second worker joins and is killed every 20 s under 10,000 events/s."""
    _join_and_leave(run, by_kill=True)


def _join_and_leave(run: Run, by_kill: bool) -> None:
    rate, every_s, rounds = (10_000, 20.0, 6) if run.long else (600, 4.0, 2)
    run.supervise()
    run.load.start(rate)
    for number in range(rounds):
        began = time.monotonic()
        other = run.worker(f"other-{number % 2}")
        time.sleep(max(0.0, every_s - (time.monotonic() - began)))
        if by_kill:
            other.kill()
        else:
            run.require(other.stop() == 0, "the worker that leaves does not end in order")
        run.note()
        time.sleep(every_s)
