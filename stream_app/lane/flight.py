"""When a batch begins, and how many events are worked on at once.

Batches begin in waves: the partitions that wait begin together, and those that come while a wave
is under way wait for its end. So the partitions share one turn of the transition, one poll and one
request for each of journal, outputs and changelog, each of which costs about as much for one of
them as for all. A wave that takes long, because it is large or because a broker does not answer,
is not waited for: then the next is computed while it waits for its acknowledgements.

Rows, outputs and changelog records of a batch lie in memory from its merge until the broker has
acknowledged all, so there is a limit of events, too. A partition that is told to wait merges later,
and then all that has come meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

WAVE_S = 0.05
"""How long the end of a wave is waited for, from its turn on.

It decides at small loads, where a wave takes 30 to 40 ms. Twice as much makes partitions of a
worker that is busy all the time wait for each other.
"""


class Flight:
    """Counts the batches and events that are worked on.

    Args:
        limit: while so many events are, no batch begins; so there are fewer than these and a batch.
        wave_s: how long the end of a wave is waited for.
    """

    def __init__(self, limit: int, wave_s: float = WAVE_S) -> None:
        self._limit = limit
        self._wave_s = wave_s
        self._events = 0
        self._batches = 0
        self._boards = True
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is worked on."""
        return not self._batches

    async def room(self) -> None:
        """Wait until a batch may begin; who waited longest goes on first."""
        while self._events >= self._limit or not self._boards:
            self._changed.clear()
            await self._changed.wait()

    @contextmanager
    def of(self, events: int) -> Iterator[None]:
        """Within it a batch of so many events is worked on."""
        self._events += events
        self._batches += 1
        try:
            yield
        finally:
            self._events -= events
            self._batches -= 1
            if not self._batches:
                self._board()
            self._changed.set()

    def depart(self) -> None:
        """The turn of a wave begins: what comes from here on belongs to the next wave."""
        self._boards = False
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wave_s, self._board)

    def _board(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._boards = True
        self._changed.set()
