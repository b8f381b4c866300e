"""noida-db: a second Kafka-compatible broker for tests, with transactions and data on disk."""

from __future__ import annotations

import os
import signal
from importlib.resources import files
from pathlib import Path

import psutil

from stream_app.broker import free_port, start_supervised, wait_until_ready

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class NoidaBroker:
    """A broker on a free loopback port whose data lies in a directory; it ends with its parent.

    It never ends the session of a consumer that died, and refuses sessions below 6 s.

    Raises:
        ModuleNotFoundError: the package noida-db is not installed.
        BrokerError: it does not answer in time.
    """

    def __init__(self, data_dir: Path, log_file: Path | None = None) -> None:
        # The binary itself: the program of that name starts it as a child, which outlives a kill.
        self._binary = Path(str(files("noida_db") / "noida-db"))
        self.data_dir = data_dir
        self._log_file = log_file
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.start()

    def __enter__(self) -> NoidaBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start on the same port with the same data, and wait until it answers."""
        self._binary.chmod(0o755)
        command = [str(self._binary), "start", "--data-dir", str(self.data_dir), "--only", "kafka"]
        command += ["--kafka-port", str(self.port)]
        self._process = start_supervised(command, self._log_file, dict(os.environ))
        try:
            wait_until_ready({"bootstrap_servers": [self.bootstrap]}, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the broker a signal, and wait until it has ended."""
        children = psutil.Process(self._process.pid).children()
        next(child for child in children if "noida" in child.name()).send_signal(number)
        self._process.wait(STOP_TIMEOUT_S)
        self.close()

    def restart(self) -> None:
        """End the broker with SIGTERM, and start it again."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the broker; does nothing the second time."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(STOP_TIMEOUT_S)
