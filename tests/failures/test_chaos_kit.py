"""The failure kit itself: it finds a fault that is there, and its proxy does what it says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream_app.lane.reading import read_records
from tests.failures.chaos.invariants import check
from tests.failures.chaos.proxy import HEAD, Proxy
from tests.failures.chaos.run import Run

ANSWER = b"answer"


@pytest.fixture
def run(kafka: str, tmp_path: Path) -> Iterator[Run]:
    one = Run(kafka, tmp_path, seed=1, long=False)
    yield one
    one.close()


@pytest.mark.timeout(200)
def test_the_kit_finds_what_was_lost_and_what_was_doubled(run: Run) -> None:
    run.worker()
    run.load.send(250)
    run.wait_until(run.is_settled, "the first half is applied")  # so that rows are written again
    run.load.send(250)
    assert run.check().broken == []
    assert run.figures.applied == run.figures.events == 500

    topic = run.settings.changelog_topic
    records = read_records(run.settings, topic, 0)
    last = {record.key: record.value for record in records}
    stale = next(r for r in records if r.value != last[r.key])
    producer = KafkaProducer(**run.settings.kafka_python())
    producer.send(topic, stale.value, stale.key, partition=0)
    producer.flush(30)
    found = check(run.settings, run.checkpoint, run.load)
    assert found.lost > 0
    assert found.doubled == 0
    assert any(stale.key.decode() in sentence for sentence in found.broken)

    # The right row again, and an event that the load never sent.
    producer.send(topic, last[stale.key], stale.key, partition=0)
    producer.send(run.settings.recommendations_topic, b'{"id": "made up"}', b"x", partition=0)
    producer.flush(30)
    producer.close()
    found = check(run.settings, run.checkpoint, run.load)
    assert found.broken == ["1 outputs are not of the offline run, the first made up"]


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers every request of a worker."""
    with suppress(ConnectionError):
        while await reader.read(1000):
            writer.write(ANSWER)
    writer.transport.abort()


async def ask(port: int, client: bytes = b"worker", timeout_s: float = 5.0) -> bytes:
    """Open a connection and send a request; the answer, empty when the connection is reset."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(HEAD.pack(10 + len(client), 18, 0, 1, len(client)) + client)
        return await asyncio.wait_for(reader.read(100), timeout_s)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_the_proxy_breaks_connections_of_workers_alone() -> None:
    server = await asyncio.start_server(answering, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    proxy = Proxy(port)
    try:
        assert await ask(proxy.port) == ANSWER
        await loop.run_in_executor(None, proxy.cut)
        assert await ask(proxy.port) == b""
        assert await ask(proxy.port, b"chaos-load") == ANSWER
        await loop.run_in_executor(None, proxy.heal)
        for fault in (proxy.hold, proxy.swallow):
            await loop.run_in_executor(None, fault)
            with pytest.raises(asyncio.TimeoutError):
                await ask(proxy.port, timeout_s=0.3)
            assert await ask(proxy.port, b"chaos-load") == ANSWER
            await loop.run_in_executor(None, proxy.heal)
            assert await ask(proxy.port) == ANSWER
        proxy.delay(0.5)
        began = time.monotonic()
        assert await ask(proxy.port) == ANSWER
        assert time.monotonic() - began >= 0.5
    finally:
        await loop.run_in_executor(None, proxy.close)
        server.close()
        await asyncio.sleep(0.1)  # until the sockets that were reset are closed
