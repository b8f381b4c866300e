"""Brokers of a scenario's own: behind a proxy, and with data on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from stream_app.broker import EmbeddedBroker, free_port
from tests.failures.chaos.errors import NotRun
from tests.failures.chaos.proxy import Proxy
from tests.noida import NoidaBroker


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


class DiskBroker(NoidaBroker):
    """A broker that keeps its data on disk, so that it can be started again with them.

    overrides are settings of its workers.
    """

    overrides: ClassVar[dict[str, Any]] = {"session_timeout_s": 6.0}

    def __init__(self, home: Path) -> None:
        try:
            super().__init__(home / "broker", home / "broker.log")
        except ModuleNotFoundError:
            raise NotRun("the broker with data on disk (noida-db) is not installed") from None

    def data_bytes(self) -> int:
        """Bytes that its data take on disk."""
        return bytes_in(self.data_dir)
