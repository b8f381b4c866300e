"""noida-db: a second Kafka-compatible broker for tests, with transactions and data on disk."""

from __future__ import annotations

import subprocess
from importlib.resources import files
from pathlib import Path
from types import TracebackType

from stream_app.broker import free_port, wait_until_ready

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0


class NoidaBroker:
    """A broker on a free loopback port whose data lies in a directory.

    Raises:
        ModuleNotFoundError: the package noida-db is not installed.
        BrokerError: it does not answer in time.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        # The binary itself: the program of that name starts it as a child, which outlives a kill.
        self._binary = Path(str(files("noida_db") / "noida-db"))
        self._start()

    def __enter__(self) -> NoidaBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def restart(self) -> None:
        """End the broker with SIGTERM and start it on the same port with the same data."""
        self.close()
        self._start()

    def close(self) -> None:
        """End the broker; does nothing the second time."""
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        self._binary.chmod(0o755)
        command = [str(self._binary), "start", "--data-dir", str(self._data_dir)]
        command += ["--only", "kafka", "--kafka-port", str(self.port)]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until_ready({"bootstrap_servers": [self.bootstrap]}, START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
