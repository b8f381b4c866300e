"""Processes at the ends of the stream: started with settings, ended by closing their input."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from stream_app.settings import PREFIX
from tests.benchmarks.processes import BenchmarkError

END_TIMEOUT_S = 60.0


class End:
    """A module of this folder as a process of its own.

    It ends when its standard input does, so also when this process is killed.

    Args:
        module: of tests.benchmarks.
        arguments: of its command line.
        overrides: fields of Settings, for its environment.
        home: its log goes there.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], overrides: Mapping[str, object], home: Path
    ) -> None:
        self.module = module
        self._log = home / f"{module}.log"
        variables = {f"{PREFIX}{name.upper()}": str(value) for name, value in overrides.items()}
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **variables},
                start_new_session=True,  # Ctrl-C reaches the harness, which ends it
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def wait_for_word(self) -> None:
        """Wait until the process says something on its standard output."""
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise self._failure()

    def wait(self, timeout_s: float) -> None:
        """Wait until the process ends by itself."""
        try:
            status = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchmarkError(f"{self.module} did not end within {timeout_s:g} s.") from None
        self._close()
        if status != 0:
            raise self._failure()

    def end(self) -> None:
        """Close its standard input, and wait until it has written what it has."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self.wait(END_TIMEOUT_S)

    def kill(self) -> None:
        """End the process at once; does nothing when it has ended."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _failure(self) -> BenchmarkError:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else "nothing"
        return BenchmarkError(
            f"{self.module} ended with status {self._process.returncode}; its log ends with: {last}"
        )


def standard_input_ends() -> asyncio.Event:
    """Set in the running event loop when standard input ends."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while os.read(0, 1):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, daemon=True).start()
    return ended
