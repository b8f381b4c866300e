"""Runs scenarios side by side, each in a process of its own with a broker of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from stream_app import topics
from tests.conftest import own_settings
from tests.failures.chaos.kit import Result, run_scenario
from tests.failures.chaos.scenarios import SCENARIOS
from tests.sessions import ends_dead_sessions

END_S = 30.0
"""How long a scenario that is interrupted has to end what it started."""

SPAWN = multiprocessing.get_context("spawn")


def run_all(
    names: list[str],
    seed: int,
    long: bool,
    jobs: int,
    show: Callable[[Result], None],
    minutes: float | None = None,
) -> list[Result]:
    """Run the scenarios, `jobs` at a time, and show each result when it is there.

    After so many minutes no other one is begun.

    KeyboardInterrupt ends all of them, and what they started, and is raised again.
    """
    dead_sessions_end = _dead_sessions_end(names)
    children: list[Any] = []
    interrupted = threading.Event()
    deadline = None if minutes is None else time.monotonic() + minutes * 60

    def run_one(name: str) -> Result:
        if deadline is not None and time.monotonic() > deadline:
            return Result(name, "not run", "the time was over before its turn", seed)
        receiver, sender = SPAWN.Pipe(duplex=False)
        child = SPAWN.Process(
            target=_child, args=(sender, name, seed, long, dead_sessions_end), daemon=True
        )
        children.append(child)
        child.start()
        sender.close()
        try:
            result: Result = receiver.recv()
        except EOFError:
            result = Result(name, False, "the kit itself failed, see above", seed)
        child.join()
        if not interrupted.is_set():
            show(result)
        return result

    pool = ThreadPoolExecutor(jobs)
    try:
        return [future.result() for future in [pool.submit(run_one, name) for name in names]]
    except KeyboardInterrupt:
        interrupted.set()
        pool.shutdown(wait=False, cancel_futures=True)
        _end(children)
        raise


def _end(children: list[Any]) -> None:
    """Interrupt the scenarios, and wait until they have ended what they started."""
    running = [child for child in children if child.is_alive()]
    for child in running:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGINT)
    deadline = time.monotonic() + END_S
    for child in running:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()


def _child(sender: Any, name: str, seed: int, long: bool, dead_sessions_end: bool) -> None:
    """Run one scenario in a process of its own."""
    os.setpgrp()  # Ctrl-C reaches the parent, which interrupts this one
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    threading.Thread(target=_end_with_parent, args=[os.getppid()], daemon=True).start()
    torch.set_num_threads(1)  # the cores are the workers'
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with suppress(KeyboardInterrupt):
        sender.send(run_scenario(SCENARIOS[name], seed, long, dead_sessions_end))


def _end_with_parent(parent: int) -> None:
    """What this process started ends with it: workers and brokers hold the ends of its pipes."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _dead_sessions_end(names: list[str]) -> bool:
    bootstrap = os.environ.get("INTEREST_KAFKA_BOOTSTRAP")
    if bootstrap is None or not any(SCENARIOS[name].kills for name in names):
        return True
    with tempfile.TemporaryDirectory() as folder:
        settings = own_settings(bootstrap, Path(folder))
        topics.create(settings)
        try:
            return ends_dead_sessions(settings)
        finally:
            topics.delete(settings)
