"""How much processor time the parts of a measurement take, each a group of processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psutil

IDLE = "idle"
"""The name under which a reading has the time that no process of the machine used."""


@dataclass(frozen=True)
class Reading:
    """Processor seconds of each part, and `IDLE` ones, at a time of the monotonic clock."""

    at_s: float
    cpu_s: dict[str, float]

    def cores_since(self, before: Reading) -> dict[str, float]:
        """Cores that each part kept busy since an earlier reading, and `IDLE` ones."""
        seconds = self.at_s - before.at_s
        return {name: (cpu - before.cpu_s[name]) / seconds for name, cpu in self.cpu_s.items()}


def read(parts: Mapping[str, Sequence[psutil.Process]]) -> Reading:
    """Read the parts now, all threads of all their processes."""
    cpu_s = {IDLE: psutil.cpu_times().idle}
    for name, processes in parts.items():
        times = [process.cpu_times() for process in processes]
        cpu_s[name] = sum(spent.user + spent.system for spent in times)
    return Reading(time.monotonic(), cpu_s)


def family(pid: int) -> list[psutil.Process]:
    """A process and those that it has started."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def confine(processes: Sequence[psutil.Process], core: int) -> None:
    """Keep processes, with all threads that they have now, to one core."""
    for process in processes:
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})
