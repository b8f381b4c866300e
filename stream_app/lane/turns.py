"""Whose batches are computed next: those of all partitions that wait, in one turn.

A turn costs some milliseconds however small it is, so batches that are ready together take one. So
a worker that is behind with many partitions does not pay for each of them, and one that is not
keeps its batches small.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from stream_app.lane.compute import Computed, Todo
from stream_app.lane.fence import Fence, Revoked

PASSES = 5
"""Of the event loop before a turn: in these the records of the journals go out, so that the broker
has them while this process computes, and partitions that were woken by the same poll come in."""


class _Waiting(NamedTuple):
    todo: Todo
    fence: Fence
    result: asyncio.Future[Computed]


class Turns:
    """Computes what waits, turn by turn, in the order in which it came.

    Args:
        compute: batches of different partitions to what they give.
        limit: events of a turn, unless one batch has more: the event loop stands still for each
            stage of it.
    """

    def __init__(
        self, compute: Callable[[Sequence[Todo]], Awaitable[list[Computed]]], limit: int
    ) -> None:
        self._compute = compute
        self._limit = limit
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    async def compute(self, todo: Todo, fence: Fence) -> Computed:
        """What a batch gives, when its turn has come.

        Raises:
            Revoked: the assignment has ended before.
            StoreError: a stored row does not fit the topics, or is damaged.
        """
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Computed] = loop.create_future()
        self._waiting.append(_Waiting(todo, fence, result))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        return await result

    async def _run(self) -> None:
        while self._waiting:
            for _ in range(PASSES):
                await asyncio.sleep(0)
            turn = self._next_turn()
            if not turn:
                continue
            try:
                found = await self._compute([waiting.todo for waiting in turn])
            except Exception as error:
                for waiting in turn:
                    if not waiting.result.done():  # its task was cancelled meanwhile
                        waiting.result.set_exception(error)
            else:
                for waiting, computed in zip(turn, found, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(computed)

    def _next_turn(self) -> list[_Waiting]:
        turn: list[_Waiting] = []
        events = 0
        while self._waiting:
            waiting = self._waiting[0]
            if waiting.result.done():  # its task was cancelled
                self._waiting.popleft()
                continue
            events += len(waiting.todo.batch.events)
            if turn and events > self._limit:
                break
            self._waiting.popleft()
            if waiting.fence.is_open:
                turn.append(waiting)
            else:
                waiting.result.set_exception(Revoked())
        return turn
