"""Workers as processes of their own, started as a user would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from stream_app.broker import free_port, is_free
from stream_app.errors import WorkerError
from stream_app.settings import PREFIX

READY_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 15.0
HTTP_TIMEOUT_S = 2.0
PROGRAM = ("stream_app.cli", "worker", "--with-parent")
"""Module and arguments that run a worker which ends with the process that started it."""
PAGE_PROGRAM = ("stream_app.cli", "ui", "--with-parent")
PAGE_PORT = 8080
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""To this machine, past any proxy of the environment."""


class WorkerProcess:
    """One ``interest-stream worker`` with settings of its own.

    overrides are field names of Settings, None to leave out what the environment says; http_port
    and log file are the worker's own, and data_dir is a folder of its name unless overrides
    have one.
    arguments come behind the program's own.
    """

    what = "worker"

    def __init__(
        self,
        overrides: Mapping[str, object],
        home: Path,
        name: str = "worker",
        program: Sequence[str] = PROGRAM,
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self.log_file = home / f"{name}.log"
        own = {"data_dir": home / name, **overrides, "http_port": self.port}
        variables = {f"{PREFIX}{key.upper()}": value for key, value in own.items()}
        inherited = {key: value for key, value in os.environ.items() if key not in variables}
        given = {key: str(value) for key, value in variables.items() if value is not None}
        with open(self.log_file, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *program, *arguments],
                stdin=subprocess.PIPE,  # never written to: it ends with this process
                stdout=log,
                stderr=log,
                env={**inherited, **given},
                start_new_session=True,  # Ctrl-C reaches the demo, which ends the worker in order
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def wait_until_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Waits for /readyz; WorkerError with the log's last line when the worker ends first."""
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise WorkerError(
                    f"The {self.what} is not ready in time: {self.unready_because()}."
                )
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """True when /readyz answers 200."""
        try:
            with DIRECT.open(self._url("readyz"), timeout=HTTP_TIMEOUT_S):
                return True
        except (OSError, urllib.error.URLError):
            return False

    def unready_because(self) -> str:
        """What /readyz gives as reasons, or that it does not answer."""
        try:
            with DIRECT.open(self._url("readyz"), timeout=HTTP_TIMEOUT_S):
                return "it is ready"
        except urllib.error.HTTPError as answer:
            return "; ".join(json.load(answer)["reasons"])
        except OSError as error:
            return f"/readyz does not answer ({error})"

    def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Samples of /metrics by name and label values; empty when it does not answer."""
        try:
            with DIRECT.open(self._url("metrics"), timeout=HTTP_TIMEOUT_S) as answer:
                text = answer.read().decode()
        except (OSError, urllib.error.URLError):
            return {}
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def check_alive(self) -> None:
        """WorkerError when the process has ended."""
        status = self._process.poll()
        if status is not None:
            raise WorkerError(f"The {self.what} ended with status {status}: {self.last_line()}")

    def last_line(self) -> str:
        """The last line of the worker's log."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else "it has logged nothing."

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM, then the exit status; killed when it does not end in time."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._close_pipe()
        return status

    def kill(self) -> int:
        """SIGKILL, then the exit status."""
        if self._process.poll() is None:
            self._process.kill()
        self._close_pipe()
        return self._process.wait()

    def _close_pipe(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()


class PageProcess(WorkerProcess):
    """``interest-stream ui`` beside workers; `address` is where a browser finds it.

    page_port is a free one when the given one is taken.
    """

    what = "page"

    def __init__(
        self,
        overrides: Mapping[str, object],
        home: Path,
        urls: Sequence[str],
        page_port: int = PAGE_PORT,
    ) -> None:
        page_port = page_port if is_free(page_port) else free_port()
        self.address = f"http://127.0.0.1:{page_port}/"
        arguments = ["--port", str(page_port)]
        for url in urls:
            arguments += ["--url", url]
        super().__init__(overrides, home, "page", PAGE_PROGRAM, arguments)

    def is_ready(self) -> bool:
        """True when the page answers."""
        try:
            with DIRECT.open(f"{self.address}livez", timeout=HTTP_TIMEOUT_S):
                return True
        except OSError:
            return False
