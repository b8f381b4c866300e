"""Turns: which batches are computed together, and what becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from stream_app.errors import StoreError
from stream_app.lane.compute import Computed, Todo
from stream_app.lane.fence import Fence, Revoked
from stream_app.lane.turns import Turns
from tests.unit.lane_records import batch_of


class Model:
    """Stands for the transition: notes the partitions of each turn."""

    def __init__(self, error: Exception | None = None) -> None:
        self.turns: list[list[int]] = []
        self._error = error

    async def __call__(self, todos: Sequence[Todo]) -> list[Computed]:
        self.turns.append([todo.partition for todo in todos])
        if self._error is not None:
            raise self._error
        return [cast(Computed, f"of {todo.partition}") for todo in todos]


def todo(partition: int, events: int = 1) -> Todo:
    return Todo(batch_of(events), partition, (9, 9, 9), {})


async def test_batches_that_wait_at_the_same_time_take_one_turn() -> None:
    model, fence = Model(), Fence(1)
    turns = Turns(model, 100)
    found = await asyncio.gather(*[turns.compute(todo(n), fence) for n in range(3)])
    assert found == ["of 0", "of 1", "of 2"]
    assert model.turns == [[0, 1, 2]]
    assert await turns.compute(todo(7), fence) == "of 7"
    assert model.turns == [[0, 1, 2], [7]]


async def test_a_turn_has_no_more_events_than_the_limit_and_others_run_between() -> None:
    model, fence = Model(), Fence(1)
    turns = Turns(model, 10)
    seen: list[int] = []

    async def other() -> None:
        while len(model.turns) < 3:
            seen.append(len(model.turns))
            await asyncio.sleep(0)

    batches = [todo(0, 6), todo(1, 4), todo(2, 30), todo(3, 1)]
    await asyncio.gather(other(), *[turns.compute(each, fence) for each in batches])
    assert model.turns == [[0, 1], [2], [3]]  # one batch is taken however large it is
    assert {1, 2} <= set(seen)


async def test_a_batch_whose_assignment_has_ended_is_not_computed() -> None:
    model, fence, closed = Model(), Fence(1), Fence(2)
    turns = Turns(model, 100)
    waiting = [
        asyncio.ensure_future(turns.compute(todo(n), one)) for n, one in enumerate((closed, fence))
    ]
    await asyncio.sleep(0)
    closed.close()
    with pytest.raises(Revoked):
        await waiting[0]
    assert await waiting[1] == "of 1"
    assert model.turns == [[1]]


async def test_a_batch_that_is_abandoned_while_it_waits_is_left_out() -> None:
    model, fence = Model(), Fence(1)
    turns = Turns(model, 100)
    waiting = [asyncio.ensure_future(turns.compute(todo(n), fence)) for n in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert await waiting[1] == "of 1"
    assert model.turns == [[1]]


@pytest.mark.parametrize("error", [None, StoreError("damaged")])
async def test_a_batch_that_is_abandoned_while_it_is_computed_harms_no_other(
    error: StoreError | None,
) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()
    model, fence = Model(error), Fence(1)

    async def between_two_stages(todos: Sequence[Todo]) -> list[Computed]:
        begun.set()
        await goes_on.wait()
        return await model(todos)

    turns = Turns(between_two_stages, 100)
    waiting = [asyncio.ensure_future(turns.compute(todo(n), fence)) for n in range(2)]
    await begun.wait()
    waiting[0].cancel()
    later = asyncio.ensure_future(turns.compute(todo(7), fence))
    goes_on.set()
    found: list[Any] = await asyncio.gather(waiting[1], later, return_exceptions=True)
    assert found == (["of 1", "of 7"] if error is None else [error, error])
    assert model.turns == [[0, 1], [7]]


async def test_an_error_reaches_every_batch_of_the_turn_and_the_next_turn_goes_on() -> None:
    model, fence = Model(StoreError("damaged")), Fence(1)
    turns = Turns(model, 100)
    found: list[Any] = await asyncio.gather(
        *[turns.compute(todo(n), fence) for n in range(2)], return_exceptions=True
    )
    assert [str(error) for error in found] == ["damaged", "damaged"]
    model._error = None
    assert await turns.compute(todo(5), fence) == "of 5"
