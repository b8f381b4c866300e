"""Whether a partition is still ours: the fence of an assignment, and the lease of the group.

The coordinator gives the partitions of a worker to another when it has not heard of it for a
session timeout. A worker that was stopped does not notice: so it goes on only while a heartbeat is
answered that it sent less than that ago. Monotonic time passes while a process is stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

WAIT_FOR_HEARTBEAT_S = 0.02


class Revoked(Exception):
    """The partition is no longer ours: the batch in flight is abandoned."""


class Lease:
    """How long the group's coordinator leaves this worker its partitions.

    Args:
        seconds: from a heartbeat to the time at which the coordinator may give them away.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0

    def renew(self, sent_at: float) -> None:
        """A heartbeat that was sent at this time of the clock was answered with yes."""
        self._until = max(self._until, sent_at + self._seconds)

    def holds(self) -> bool:
        """Whether nobody else can have the partitions yet."""
        return self._clock() < self._until


class Fence:
    """One assignment of one partition to this worker; closed when the assignment ends.

    Args:
        number: counts the assignments of the process and never comes twice.
        holds: whether the lease holds.
    """

    def __init__(self, number: int, holds: Callable[[], bool] = lambda: True) -> None:
        self.number = number
        self._holds = holds
        self._open = True

    def close(self) -> None:
        """End the assignment: nothing is sent, written or committed under it any more."""
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether the assignment still holds, as far as this worker has heard."""
        return self._open

    def check(self) -> None:
        """Raise Revoked when the assignment has ended."""
        if not self._open:
            raise Revoked

    async def held(self) -> None:
        """Wait until the coordinator has confirmed the assignment; Revoked when it has ended."""
        self.check()
        while not self._holds():
            await asyncio.sleep(WAIT_FOR_HEARTBEAT_S)
            self.check()
