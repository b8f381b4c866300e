"""How many events are worked on at once: from the merge until the broker has acknowledged all.

Rows, outputs and changelog records of these lie in memory. A partition that is told to wait merges
later, and then all that has come meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Flight:
    """Counts the events that are worked on.

    Args:
        limit: while so many are, no batch begins; so there are fewer than these and a batch.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events = 0
        self._left = asyncio.Event()

    async def room(self) -> None:
        """Wait until a batch may begin; who waited longest goes on first."""
        while self._events >= self._limit:
            self._left.clear()
            await self._left.wait()

    @contextmanager
    def of(self, events: int) -> Iterator[None]:
        """Within it a batch of so many events is worked on."""
        self._events += events
        try:
            yield
        finally:
            self._events -= events
            self._left.set()
