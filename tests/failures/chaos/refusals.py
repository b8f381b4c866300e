"""Workers that have to end by themselves, with one sentence that says why and what to do."""

from __future__ import annotations

import signal

from tests.failures.chaos.run import Run
from tests.failures.chaos.workers import ChaosWorker

FAILED = 1
"""The exit code of a worker that cannot go on."""


def require_refusal(run: Run, worker: ChaosWorker, *words: str) -> None:
    """Wait until the worker has ended; break the scenario when its sentence lacks the words."""
    run.wait_until(lambda: worker.status() is not None, f"worker {worker.name} ends by itself")
    end = worker.end()
    assert end is not None
    run.require(
        end.status == FAILED and all(word in end.sentence for word in words),
        f"worker {worker.name} ended with status {end.status}: {end.sentence}",
    )


def require_kill(run: Run, worker: ChaosWorker, step: str) -> None:
    """Wait until a worker with the fault "kill" has come to its step."""
    run.wait_until(lambda: worker.status() is not None, f"the worker is killed {step}")
    run.require(
        worker.status() == -signal.SIGKILL,
        f"{step}: the worker ended by itself: {worker.last_line()}",
    )
