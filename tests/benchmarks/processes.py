"""Processes of a benchmark that end with a file of figures."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

WAIT_S = 300.0
"""Bound of every wait."""


class BenchmarkError(Exception):
    """A contender did not do its work; the message says which and what it said last."""


def python_path(folders: Sequence[Path]) -> dict[str, str]:
    """The variable by which a process imports from these folders before all others."""
    before = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([*map(str, folders), *([before] if before else [])])}


def run_until(
    result: Path, command: list[str], home: Path, variables: Mapping[str, str], folder: Path
) -> None:
    """Runs a process until it has written a file, and ends it.

    Args:
        home: gets its log.
        folder: where it runs.

    Raises:
        BenchmarkError: it ends without the file, or takes too long.
    """
    what = " ".join(command[1:3])
    with _process(command, home, variables, folder) as process:
        deadline = time.monotonic() + WAIT_S
        while not _is_written(result):
            if process.poll() is not None and not _is_written(result):
                raise BenchmarkError(
                    f"{what} ended with status {process.returncode}; its log ends with: "
                    f"{_last_line(home)}"
                )
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"{what} did not process its events in {WAIT_S:g} s; its log ends with: "
                    f"{_last_line(home)}"
                )
            time.sleep(0.05)


def _is_written(result: Path) -> bool:
    return result.exists() and result.stat().st_size > 0


@contextmanager
def _process(
    command: list[str], home: Path, variables: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with open(home / "log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **variables},
            cwd=folder,
            start_new_session=True,  # Ctrl-C reaches the harness, which ends it
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def _last_line(home: Path) -> str:
    lines = (home / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "nothing"
