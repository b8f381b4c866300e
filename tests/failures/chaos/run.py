"""What a scenario works with: topics of its own, workers, the load, and the check at its end."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from kafka.errors import KafkaError

from model.checkpoint import Checkpoint
from stream_app import topics
from stream_app.errors import InterestStreamError
from stream_app.settings import Settings
from tests.checkpoints import tiny_checkpoint
from tests.conftest import own_settings
from tests.failures.chaos.errors import BrokenInvariant, NotRun
from tests.failures.chaos.invariants import Figures, check, check_committed
from tests.failures.chaos.load import Load
from tests.failures.chaos.watch import Offsets, Watch
from tests.failures.chaos.workers import ChaosWorker, Supervised
from tests.workers import FASTER, overrides_of

SETTLE_S = 120.0
"""How long the workers have, when the fault is over, to apply all that was sent."""
POLL_S = 0.05


class Run:
    """One run of a scenario.

    settings     topics, group and folder that nobody else has
    checkpoint   the model, with random weights
    overrides    settings that every worker of the run gets
    rng, seed    the chance of this run, and what it follows from
    home         a folder of its own, with the logs and data folders of the workers
    long         whether the long form was asked for
    broker       what serves the run, see kit.scenario
    load         sends events, see load.py
    times        how often the fault was injected
    """

    def __init__(
        self, bootstrap: str, home: Path, seed: int, long: bool, partitions: int = 4
    ) -> None:
        self.settings: Settings = own_settings(bootstrap, home / "data").model_copy(
            update={"partitions": partitions}
        )
        self.checkpoint: Checkpoint = tiny_checkpoint(items=200, categories=20)
        self.overrides: dict[str, Any] = {
            **overrides_of(self.settings, self.checkpoint, home),
            **FASTER,
        }
        self.rng = np.random.default_rng(seed)
        self.seed, self.home, self.long = seed, home, long
        self.times = 0
        self.broker: Any = None
        self.figures = Figures()
        self._workers: list[ChaosWorker] = []
        self._supervised: list[Supervised] = []
        topics.create(self.settings)
        self.load = Load(self.settings, seed)
        self._offsets = Offsets(self.settings)
        self._watch = Watch(self.settings, self.load.ends, lambda: list(self._workers))

    def worker(
        self, name: str = "one", fault: Sequence[str] = (), ready: bool = True, **overrides: Any
    ) -> ChaosWorker:
        """Start a worker, with a fault inside if one is named (see faults.py).

        Workers of one name have one data folder (``home / name``) and one log. With `ready` it is
        waited for until it is ready.
        """
        for before in self._workers:
            before.end()  # keeps its last line, before another one writes to its log
        worker = ChaosWorker({**self.overrides, **overrides}, self.home, name, fault)
        self._workers.append(worker)
        if ready:
            worker.wait_until_ready()
        return worker

    def supervise(self, name: str = "one", ready: bool = True, **overrides: Any) -> Supervised:
        """A worker that is started again whenever it ends with a code other than 0."""
        supervised = Supervised(lambda: self.worker(name, ready=False, **overrides))
        self._supervised.append(supervised)
        if ready:
            self.wait_until(lambda: supervised.worker.is_ready(), f"worker {name} is ready")
        return supervised

    def note(self, times: int = 1) -> None:
        """The fault was injected so many times more."""
        self.times += times

    def require(self, holds: bool, sentence: str) -> None:
        """Break the scenario, with the sentence, when something does not hold."""
        if not holds:
            raise BrokenInvariant(sentence)

    def skip(self, why: str) -> None:
        """End the scenario as not run."""
        raise NotRun(why)

    def wait_until(
        self, reached: Callable[[], bool], what: str, timeout_s: float = SETTLE_S
    ) -> None:
        """Wait for a condition; breaks the scenario when it is not reached in time."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            if time.monotonic() > deadline:
                states = [f"{one.name}: {one.unready_because()}" for one in self.running()]
                seen = ", ".join(states) or "no worker runs"
                raise BrokenInvariant(f"not reached in {timeout_s:g} s: {what} ({seen})")
            time.sleep(POLL_S)

    def committed(self) -> dict[tuple[str, int], int]:
        """The committed offsets by (topic, partition); empty while no broker answers."""
        with suppress(KafkaError, OSError):
            return self._offsets.committed()
        return {}

    def is_settled(self) -> bool:
        """Whether all that was acknowledged is committed."""
        committed = self.committed()
        return all(committed.get(place, 0) >= end for place, end in self.load.ends().items())

    def applied(self, count: int) -> Callable[[], bool]:
        """A condition for `wait_until`: at least so many records are committed."""
        return lambda: sum(self.committed().values()) >= count

    def check_committed(self) -> None:
        """Invariant 3, at any time."""
        broken = check_committed(self.settings, self.checkpoint, self.load, self.committed())
        self.require(not broken, broken[0] if broken else "")

    def running(self) -> list[ChaosWorker]:
        """The workers that have not ended."""
        return [worker for worker in self._workers if worker.status() is None]

    def settle(self) -> None:
        """End the load, and wait until all that was sent is committed.

        When no worker is left, one with an empty data folder recovers the rows from the changelog.
        """
        self.load.stop()
        if not self.running() and not self._supervised:
            self.worker(f"last-{uuid.uuid4().hex[:6]}")
        self.wait_until(self._is_settled_or_gone, "all events are applied after the fault is over")
        self.require(self.is_settled(), "all workers have ended before all events were applied")

    def _is_settled_or_gone(self) -> bool:
        return self.is_settled() or not (self.running() or self._supervised)

    def stop_workers(self) -> None:
        """End all workers in order; breaks the scenario when one does not end with 0."""
        for supervised in self._supervised:
            supervised.abandon()
        self._supervised.clear()
        for worker in self.running():
            status = worker.stop()
            self.require(
                status == 0,
                f"worker {worker.name} ended with status {status} on SIGTERM: {worker.last_line()}",
            )

    def check(self) -> Figures:
        """Settle, end the workers in order, and check all invariants; raises nothing of them."""
        self.settle()
        self.stop_workers()
        committed = self.committed()
        self.figures = figures = check(self.settings, self.checkpoint, self.load)
        figures.broken += check_committed(self.settings, self.checkpoint, self.load, committed)
        figures.broken += self.broken_ends()
        return figures

    def broken_ends(self) -> list[str]:
        """Invariant 4: what was wrong with workers that stood still or have ended."""
        ends = [end for worker in self._workers if (end := worker.end()) is not None]
        return self._watch.broken + [end.fault for end in ends if end.fault is not None]

    def close(self) -> None:
        """Kill what is left, and delete the topics and the group."""
        for supervised in self._supervised:
            supervised.abandon()
        for worker in self._workers:
            worker.kill()
        self._watch.close()
        self._offsets.close()
        self.load.close()
        with suppress(InterestStreamError, KafkaError, OSError):
            topics.delete(self.settings)
