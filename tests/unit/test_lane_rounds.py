"""Rounds: which batches begin together, and which wait for nobody."""

from __future__ import annotations

import asyncio

from stream_app.lane.rounds import Rounds


class Batches:
    """Batches that last until they are ended, and the order in which they began."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def want(self, name: str, waits: bool = True) -> None:
        """Begins a batch as soon as the rounds allow."""
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name, waits))
        await passes()

    async def end(self, name: str) -> None:
        """Ends a batch."""
        self._ends[name].set()
        await self._tasks[name]
        await passes()

    async def cancel(self, name: str) -> None:
        """Ends a batch as a revoked assignment does."""
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await passes()

    async def _run(self, name: str, waits: bool) -> None:
        async with self._rounds.joined(waits):
            self.began.append(name)
            await self._ends[name].wait()


async def passes() -> None:
    """Some passes of the event loop, in which all goes on that waits for no one."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_during_a_round_begins_together_when_it_is_over() -> None:
    batches = Batches(Rounds(most_s=60))
    for name in "abc":
        await batches.want(name)
    assert batches.began == ["a"]
    await batches.end("a")
    assert batches.began == ["a", "b", "c"]
    await batches.want("d")
    await batches.end("b")
    assert batches.began == ["a", "b", "c"]  # the round is over with the last of its batches
    await batches.end("c")
    assert batches.began == ["a", "b", "c", "d"]


async def test_a_partition_that_is_behind_waits_for_nobody_and_nobody_waits_for_it() -> None:
    batches = Batches(Rounds(most_s=60))
    await batches.want("small")
    await batches.want("large", waits=False)
    assert batches.began == ["small", "large"]
    await batches.want("next")
    await batches.end("small")
    assert batches.began == ["small", "large", "next"]


async def test_nobody_waits_longer_than_the_bound() -> None:
    batches = Batches(Rounds(most_s=0))
    await batches.want("slow")
    await batches.want("next")
    await asyncio.sleep(0.01)
    assert batches.began == ["slow", "next"]
    await batches.end("slow")
    await batches.end("next")
    await batches.want("last")
    assert batches.began == ["slow", "next", "last"]


async def test_a_batch_that_is_cancelled_ends_its_round() -> None:
    batches = Batches(Rounds(most_s=60))
    await batches.want("a")
    await batches.want("b")
    await batches.want("c")
    await batches.cancel("b")
    await batches.cancel("a")
    assert batches.began == ["a", "c"]
