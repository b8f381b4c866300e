"""Re-drives all letters and dies at a step, run as a program by the tests of redrive.

python -m tests.integration.killed_redrive "after sent"
"""

from __future__ import annotations

import os
import signal
import sys
import time

from stream_app.redrive import Choice, redrive
from stream_app.settings import Settings


def die_at(step: str) -> None:
    def at_step(name: str) -> None:
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)

    redrive(Settings(), Choice(), lambda: int(time.time() * 1000), at_step=at_step)


if __name__ == "__main__":
    die_at(sys.argv[1])
