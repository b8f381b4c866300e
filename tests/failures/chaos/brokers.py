"""Brokers of a scenario's own: behind a proxy, and with data on disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import psutil

from stream_app.broker import EmbeddedBroker, free_port, start_supervised, wait_until_ready
from tests.failures.chaos.errors import NotRun
from tests.failures.chaos.proxy import Proxy

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Proxied:
    """A broker that clients reach through a proxy alone."""

    bootstrap: str
    proxy: Proxy


@contextmanager
def proxied(home: Path) -> Iterator[Proxied]:
    """The embedded broker behind a proxy, whose port is the one that it advertises."""
    port = free_port()
    with (
        Proxy(port) as proxy,
        EmbeddedBroker(port, home / "broker.log", advertised_port=proxy.port),
    ):
        yield Proxied(f"127.0.0.1:{proxy.port}", proxy)


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder; files may go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


class DiskBroker:
    """noida-db: its Kafka service keeps the data on disk, so that it can be started again.

    It never ends the session of a consumer that died. `overrides` are settings of its workers: it
    refuses shorter sessions.
    """

    overrides: ClassVar[dict[str, Any]] = {"session_timeout_s": 6.0}

    def __init__(self, home: Path) -> None:
        try:
            self._binary = str(files("noida_db").joinpath("noida-db"))
        except ImportError:
            raise NotRun("the broker with data on disk (noida-db) is not installed") from None
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.data_dir = home / "broker"
        self._log_file = home / "broker.log"
        self.start()

    def __enter__(self) -> DiskBroker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT_S)

    def start(self) -> None:
        """Start on the same port with the same data, and wait until it answers."""
        command = [self._binary, "start", "--data-dir", str(self.data_dir), "--only", "kafka"]
        command += ["--kafka-port", str(self.port)]
        self._process = start_supervised(command, self._log_file, dict(os.environ))
        wait_until_ready({"bootstrap_servers": [self.bootstrap]}, START_TIMEOUT_S)

    def stop(self, number: signal.Signals) -> None:
        """Send the broker a signal, and wait until it has ended."""
        broker = self._broker()
        broker.send_signal(number)
        self._process.wait(STOP_TIMEOUT_S)

    def data_bytes(self) -> int:
        """Bytes that its data take on disk."""
        return bytes_in(self.data_dir)

    def _broker(self) -> psutil.Process:
        children = psutil.Process(self._process.pid).children()
        return next(child for child in children if "noida" in child.name())
