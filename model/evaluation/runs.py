"""What a report of many processes needs: to run each to its end, and to name the commit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_to_end(
    command: Sequence[str], end_timeout_s: float, environment: Mapping[str, str] | None = None
) -> int:
    """Run a process to its end and return its exit status; an interruption ends it first.

    end_timeout_s  how long an interrupted process may take before it is killed
    environment    further variables
    """
    # In a session of its own, so that Ctrl-C reaches it through this process, and once.
    process = subprocess.Popen(
        command, start_new_session=True, env={**os.environ, **(environment or {})}
    )
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(end_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def commit_of(folder: Path, *written: str) -> tuple[str | None, bool | None]:
    """The commit of the working tree and whether files differ from it; None without git.

    folder   in the working tree
    written  what the report writes there, which is left aside: a second run would not be of this
             commit otherwise
    """

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--", ":/", *(f":!{name}" for name in written))
    return git("rev-parse", "HEAD"), None if status is None else bool(status)
