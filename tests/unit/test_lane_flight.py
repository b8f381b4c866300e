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


LONG_S = 3600.0


async def begun_beside(flight: Flight, looks: int) -> bool:
    """Whether a batch may begin within so many passes of the event loop."""
    waiting = asyncio.ensure_future(flight.room())
    for _ in range(looks):
        await asyncio.sleep(0)
    may = waiting.done()
    waiting.cancel()
    return may


async def test_partitions_begin_together_until_their_turn_and_then_when_all_have_ended() -> None:
    flight = Flight(100, LONG_S)
    with flight.of(1):
        assert await begun_beside(flight, 3)
        with flight.of(1):
            flight.depart()
            assert not await begun_beside(flight, 10)
        assert not await begun_beside(flight, 10)
    assert await begun_beside(flight, 3)
    assert flight.is_empty


async def test_all_who_waited_for_a_wave_begin_together() -> None:
    flight = Flight(100, LONG_S)
    together: list[int] = []
    under_way = 0

    async def serve() -> None:
        nonlocal under_way
        await flight.room()
        with flight.of(1):
            under_way += 1
            for _ in range(5):
                await asyncio.sleep(0)
            flight.depart()
            together.append(under_way)

    with flight.of(1):
        flight.depart()
        waiting = [asyncio.ensure_future(serve()) for _ in range(4)]
        await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*waiting), 30)
    assert together == [4, 4, 4, 4]


async def test_a_wave_that_does_not_end_is_not_waited_for_long() -> None:
    flight = Flight(100, wave_s=0.0)
    with flight.of(1):
        for _ in range(3):  # and so is each that is begun beside it
            flight.depart()
            await asyncio.wait_for(flight.room(), 30)


async def test_a_wave_that_does_not_end_is_as_late_as_its_first_turn() -> None:
    flight = Flight(100, LONG_S)
    with flight.of(1):
        flight.depart()
        first = flight._timer
        flight.depart()
        assert flight._timer is first
