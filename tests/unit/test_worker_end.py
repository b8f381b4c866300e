"""How a worker's event loop is closed, and what is said of one that does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from stream_app import worker


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


async def inner(answer: asyncio.Future[None]) -> None:
    await answer


async def outer(answer: asyncio.Future[None]) -> None:
    await inner(answer)


async def stubborn(answer: asyncio.Future[None]) -> None:
    while True:
        try:
            await asyncio.shield(answer)
        except asyncio.CancelledError:
            continue


def test_what_is_under_way_is_named(loop: asyncio.AbstractEventLoop) -> None:
    assert worker.under_way(loop) == "nothing"
    task = loop.create_task(outer(loop.create_future()))
    loop.run_until_complete(asyncio.sleep(0))
    assert worker.under_way(loop) == "outer in inner"
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))


def test_a_task_that_ignores_its_end_holds_up_nobody(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "CLOSE_TIMEOUT_S", 0.01)
    answer = loop.create_future()
    task = loop.create_task(stubborn(answer))
    loop.run_until_complete(asyncio.sleep(0))
    worker._close(loop)
    assert loop.is_closed()
    assert not task.done()
    task._log_destroy_pending = False  # type: ignore[attr-defined]
