"""Workers of a scenario: processes that may be broken inside, and ones that are started again."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stream_app.demo.processes import PROGRAM, WorkerProcess

FAULTS = "tests.failures.chaos.faults"
SENTENCE = re.compile(r"\w+Error: \S.*\.$")
"""The last line of a worker that ended by itself."""
WATCH_INTERVAL_S = 0.05


@dataclass(frozen=True)
class End:
    """How a worker ended; `wanted` when the scenario did it."""

    name: str
    status: int
    sentence: str
    wanted: bool

    @property
    def fault(self) -> str | None:
        """What is wrong with this end, None when it is as it has to be."""
        if self.wanted:
            return None
        if self.status <= 0:
            return f"worker {self.name} ended by itself with status {self.status}"
        if not SENTENCE.match(self.sentence):
            return f"worker {self.name} ended without a sentence: {self.sentence!r}"
        return None


class ChaosWorker(WorkerProcess):
    """A worker process of a scenario.

    Args:
        overrides, home, name: as of WorkerProcess.
        fault: arguments of faults.py, as in ("kill", "after changelog", "3"); none for a whole one.
    """

    def __init__(
        self, overrides: Mapping[str, object], home: Path, name: str, fault: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.end_is_wanted = bool(fault) and fault[0] == "kill"
        program = (FAULTS, *fault, "--with-parent") if fault else PROGRAM
        self._end: End | None = None
        super().__init__(overrides, home, name, program)

    def kill(self) -> int:
        """SIGKILL, then the exit status."""
        self.end_is_wanted = True
        return super().kill()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, then the exit status; killed when it does not end in time."""
        self.end_is_wanted = True
        return super().stop(timeout_s)

    def pause(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def is_paused(self) -> bool:
        """True while the process is stopped by a signal."""
        try:
            return psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def end(self) -> End | None:
        """How it ended, None while it runs.

        What was seen first is kept: the next worker of the name writes to the same log.
        """
        status = self.status()
        if self._end is None and status is not None:
            self._end = End(self.name, status, self.last_line(), self.end_is_wanted)
        return self._end


class Supervised:
    """A worker that is started again whenever it ends with a code other than 0.

    ends holds how the workers before the present one ended.
    """

    def __init__(self, start: Callable[[], ChaosWorker]) -> None:
        self._start = start
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.ends: list[End] = []
        self.worker = start()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """SIGKILL to the present worker; another one is started."""
        with self._lock:
            self.worker.kill()

    def stop(self) -> int:
        """End the worker in order and start no other; its exit status."""
        self.abandon()
        return self.worker.stop()

    def abandon(self) -> None:
        """Start no other worker from now on."""
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_INTERVAL_S):
            with self._lock:
                end = self.worker.end()
                if end is None:
                    continue
                self.ends.append(end)
                if end.status == 0:
                    return
                self.worker = self._start()
