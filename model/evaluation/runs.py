"""What a report of many processes needs: to run each to its end, and to name the commit."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path


async def run_to_end(
    command: Sequence[str],
    end_timeout_s: float,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> int:
    """Run a process to its end and return its exit status; a cancellation ends it first.

    end_timeout_s  how long a cancelled process may take before it is killed
    environment    further variables
    log            file for what it says; without one it says it where this process does
    """
    with ExitStack() as stack:
        said = None if log is None else stack.enter_context(log.open("wb"))
        # In a session of its own, so that Ctrl-C reaches it through this process, and once.
        process = await asyncio.create_subprocess_exec(
            *command,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            stdout=said,
            stderr=said,
        )
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), end_timeout_s)
                except asyncio.TimeoutError:
                    process.kill()
                    await process.wait()


def commit_of(folder: Path, *written: str) -> tuple[str | None, bool | None]:
    """The commit of the working tree and whether files differ from it; None without git.

    folder   in the working tree
    written  what the report writes there, which is left aside: a second run would not be of this
             commit otherwise
    """

    written_there = (f":!{name}" for name in written)
    status = _git(folder, "status", "--porcelain", "--", ":/", *written_there)
    return _git(folder, "rev-parse", "HEAD"), None if status is None else bool(status)


def digest_of(folder: Path, *paths: str) -> str | None:
    """One for the same committed contents of some paths, None without git.

    folder  in the working tree
    paths   pathspecs, those with ``:(exclude)`` before them left out
    """
    listed = _git(folder, "ls-files", "--stage", "--", *paths)
    return None if listed is None else sha256(listed.encode()).hexdigest()


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
