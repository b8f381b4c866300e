"""A worker that a demo started ends with it, however the demo ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream_app import topics
from stream_app.settings import Settings
from tests.checkpoints import tiny_checkpoint
from tests.workers import overrides_of, wait_until

PARENT = """
import json, sys, time
from pathlib import Path
from stream_app.demo.processes import WorkerProcess

worker = WorkerProcess(json.loads(sys.argv[1]), Path(sys.argv[2]))
worker.wait_until_ready()
print(worker.pid, flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    """True while the process exists and is no zombie."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


@pytest.mark.timeout(120)
def test_a_worker_ends_after_kill_9_of_its_parent(settings: Settings, tmp_path: Path) -> None:
    topics.create(settings)
    overrides = {k: str(v) for k, v in overrides_of(settings, tiny_checkpoint(), tmp_path).items()}
    command = [sys.executable, "-c", PARENT, json.dumps(overrides), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    try:
        wait_until(lambda: not is_running(pid))
    finally:
        if is_running(pid):
            os.kill(pid, signal.SIGKILL)
