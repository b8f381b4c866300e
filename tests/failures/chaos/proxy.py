"""A TCP proxy in front of a broker, whose connections can be cut, delayed, held and swallowed.

Clients of the kit itself (their Kafka client id begins with "chaos") pass untouched, so that the
load goes on while the connections of the workers are broken.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

from stream_app.broker import free_port
from tests.failures.chaos.load import CLIENT_ID

CHUNK_BYTES = 64 * 1024
HEAD = struct.Struct(">ihhih")
"""Of a Kafka request: size, API key, API version, correlation id, length of the client id."""


@dataclass(eq=False)
class Connection:
    """One client's connection: both sockets, and whether bytes of it were thrown away."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    is_spoiled: bool = False

    def abort(self) -> None:
        """Reset both sides."""
        for writer in self.writers:
            writer.transport.abort()


@dataclass
class Stream:
    """One direction of a connection; connection is None when no fault touches it.

    waiting   (loop time at which it is due, bytes)
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_answer: bool
    connection: Connection | None
    waiting: asyncio.Queue[tuple[float, bytes]] = field(default_factory=asyncio.Queue)


class Proxy:
    """Passes connections on to a port, in a thread of its own; ends with `close`.

    The faults hold for all connections of workers, those that there are and new ones, until `heal`.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.port = free_port()
        self._delay_s = 0.0
        self._is_cut = False
        self._swallows = False
        self._connections: set[Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._flows = asyncio.Event()
        self._server = self._call(self._start())

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cut(self) -> None:
        """Reset every connection, and every new one."""
        self._call(self._cut())

    def delay(self, seconds: float) -> None:
        """What the broker answers arrives so much later."""
        self._delay_s = seconds

    def hold(self) -> None:
        """A black hole: nothing passes in either direction; `heal` lets through what waited."""
        self._call(self._set_flow(False))

    def swallow(self) -> None:
        """Half open: what the broker answers is thrown away; `heal` resets these connections."""
        self._swallows = True

    def heal(self) -> None:
        """Everything passes again."""
        self._is_cut = self._swallows = False
        self._delay_s = 0.0
        self._call(self._set_flow(True))
        self._call(self._reset([one for one in self._connections if one.is_spoiled]))

    def close(self) -> None:
        """Reset all connections and end the thread."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> asyncio.Server:
        self._flows.set()
        return await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _stop(self) -> None:
        self._server.close()
        await self._reset(list(self._connections))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # sockets that were reset close in the turns that follow

    async def _set_flow(self, flows: bool) -> None:
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _cut(self) -> None:
        self._is_cut = True
        await self._reset(list(self._connections))

    async def _reset(self, connections: list[Connection]) -> None:
        for one in connections:
            one.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection([writer])
        try:
            head = await reader.readexactly(HEAD.size)
            name = await reader.readexactly(max(HEAD.unpack(head)[-1], 0))
            breaks = not name.startswith(CLIENT_ID.encode())
            if breaks:
                self._connections.add(connection)
                if self._is_cut:
                    return
            back, out = await asyncio.open_connection("127.0.0.1", self._target_port)
            connection.writers.append(out)
            forth = Stream(reader, out, is_answer=False, connection=connection if breaks else None)
            answers = Stream(back, writer, is_answer=True, connection=forth.connection)
            forth.waiting.put_nowait((0.0, head + name))
            await _first_to_end(*self._pass_on(forth), *self._pass_on(answers))
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self._connections.discard(connection)
            connection.abort()

    def _pass_on(self, stream: Stream) -> tuple[Any, Any]:
        return self._take(stream), self._give(stream)

    async def _take(self, stream: Stream) -> None:
        while data := await stream.reader.read(CHUNK_BYTES):
            breaks, is_answer = stream.connection is not None, stream.is_answer
            if stream.connection is not None and is_answer and self._swallows:
                stream.connection.is_spoiled = True
                continue
            delay_s = self._delay_s if breaks and is_answer else 0.0
            stream.waiting.put_nowait((self._loop.time() + delay_s, data))

    async def _give(self, stream: Stream) -> None:
        while True:
            due, data = await stream.waiting.get()
            await asyncio.sleep(max(0.0, due - self._loop.time()))
            if stream.connection is not None:
                await self._flows.wait()
            stream.writer.write(data)
            await stream.writer.drain()


async def _first_to_end(*work: Any) -> None:
    """Wait until one of them ends, and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
