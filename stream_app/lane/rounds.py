"""When batches begin: those of all partitions together, while the worker keeps up.

Batches that begin together compute in one turn, and their records to the broker leave in the same
moments, so that aiokafka sends one request for all of them where each partition would send its own.
A request costs the broker and the worker more than the records of a small batch do, and what waits
for a round comes with it.

A partition with more than a few records waits for nobody: overlapping its waits for the broker
with the computing of others is worth more. Nor does one wait longer than a bound for others, whose
broker may be slow.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Rounds:
    """Rounds of batches, one after the other.

    Args:
        most_s: how long a batch waits for the end of a round, at most.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._under_way = 0
        self._over: asyncio.Future[None] | None = None

    @asynccontextmanager
    async def joined(self, waits: bool) -> AsyncIterator[None]:
        """Be part of the next round, once the one under way is over; of none unless `waits`."""
        if not waits:
            yield
            return
        if self._over is not None:
            await asyncio.wait([self._over], timeout=self._most_s)
        if self._over is None:
            self._over = asyncio.get_running_loop().create_future()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                over, self._over = self._over, None
                over.set_result(None)
