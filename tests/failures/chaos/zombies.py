"""Workers that stand still in the middle of a commit while others take over, and then wake up."""

from __future__ import annotations

import time

from stream_app.lane.commit import STEPS
from tests.failures.chaos.invariants import check
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run
from tests.failures.chaos.workers import ChaosWorker
from tests.workers import SESSION_TIMEOUT_S

EVENTS = 3000
SMALL_BATCH = 100
REPAIRED_IN_S = 3 * SESSION_TIMEOUT_S
SHORT_STEPS = ("before outputs", "before changelog")


@scenario("a stopped worker wakes up", kills=True)
def wakes_up(run: Run) -> None:
    """SIGSTOP in each step, a takeover, SIGCONT: stale rows do not outlive the owner's next."""
    owner = run.worker("owner")
    steps = [f"{when} {step}" for step in STEPS for when in ("before", "after")]
    for number, step in enumerate(steps if run.long else SHORT_STEPS):
        stopped = _stop_at(run, step, number)
        run.wait_until(run.is_settled, f"the owner takes over what was stopped {step}")
        _wake(run, stopped)
        # Users of their own: the rows of those in the stopped batch are not written again by them.
        run.load.send(400, users=f"later-{number}")
        run.wait_until(run.is_settled, "the owner goes on")
        _require_repair(run, step)
        stopped.stop()
        # The embedded broker forgets nobody who ends in the middle of a rebalance.
        run.wait_until(lambda: _has_all(run, owner), "the owner has all partitions again")
    owner.stop()
    run.worker("recovered")
    run.load.send(EVENTS)


@scenario("a stopped worker wakes up unseen", kills=True)
def wakes_up_unseen(run: Run) -> None:
    """The stopped worker is the last to write; then a worker recovers from the changelog."""
    owner = run.worker("owner")
    stopped = _stop_at(run, "before changelog", 0)
    run.wait_until(run.is_settled, "the owner takes over")
    _wake(run, stopped)
    stopped.kill()
    owner.kill()
    run.worker("recovered")
    run.load.send(EVENTS)


def _has_all(run: Run, worker: ChaosWorker) -> bool:
    """Whether the worker works on all partitions."""
    lags = [name for name, _ in worker.metrics() if name == "interest_consumer_lag_events"]
    return len(lags) == len(run.settings.input_topics) * run.settings.partitions


def _require_repair(run: Run, step: str) -> None:
    """The changelog has the rows of the offline run, at once or when the owner has put it right."""
    deadline = time.monotonic() + REPAIRED_IN_S
    while broken := check(run.settings, run.checkpoint, run.load).broken:
        late = time.monotonic() > deadline
        run.require(not late, f"stopped {step} and woken up: {broken[0]}")


def _stop_at(run: Run, step: str, number: int) -> ChaosWorker:
    """A worker that shares the partitions and has stopped itself; the load is at rest."""
    stopped = run.worker(
        f"stopped-{number}", fault=("stop", step, "2"), ready=False, max_batch_events=SMALL_BATCH
    )
    run.load.start(rate=500)
    run.wait_until(
        lambda: stopped.is_paused() or stopped.status() is not None, f"the worker stops {step}"
    )
    run.require(stopped.status() is None, f"the worker ended by itself: {stopped.last_line()}")
    run.load.stop()
    run.load.send(EVENTS)  # so that users of the stopped batch get newer rows
    run.note()
    return stopped


def _wake(run: Run, stopped: ChaosWorker) -> None:
    """Wake the worker, leave it a session's time to write, and wait until it is back or gone."""
    stopped.resume()
    time.sleep(SESSION_TIMEOUT_S)
    run.wait_until(
        lambda: stopped.status() is not None or stopped.is_ready(),
        "the worker that woke up is ready again or has ended",
    )
