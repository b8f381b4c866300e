"""How many events are worked on at once."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from stream_app.lane.flight import Flight


@given(
    st.integers(1, 50),
    st.lists(st.lists(st.integers(0, 80), min_size=1, max_size=6), min_size=1, max_size=5),
)
def test_fewer_events_than_the_limit_and_a_batch_are_worked_on(
    limit: int, partitions: list[list[int]]
) -> None:
    flight = Flight(limit)
    under_way: list[int] = []
    done: list[int] = []

    async def serve(batches: list[int]) -> None:
        for events in batches:
            await flight.room()
            assert sum(under_way) < limit
            with flight.of(events):
                under_way.append(events)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                under_way.remove(events)
            done.append(events)
            await asyncio.sleep(0)

    async def serve_all() -> None:
        await asyncio.wait_for(asyncio.gather(*map(serve, partitions)), 30)

    asyncio.run(serve_all())
    assert sorted(done) == sorted(events for batches in partitions for events in batches)


async def test_partitions_take_turns_when_there_is_room_for_one() -> None:
    flight = Flight(1)
    order: list[str] = []

    async def serve(name: str) -> None:
        for _ in range(3):
            await flight.room()
            with flight.of(5):
                order.append(name)
                await asyncio.sleep(0)
            await asyncio.sleep(0)  # as the lane does after a batch

    await asyncio.gather(serve("a"), serve("b"), serve("c"))
    assert order == [*"abcabcabc"]


async def test_a_batch_that_fails_makes_room() -> None:
    flight = Flight(1)
    try:
        with flight.of(5):
            raise RuntimeError
    except RuntimeError:
        pass
    await asyncio.wait_for(flight.room(), 1)
