"""The step of the mixed topics alone, with a signal at one of its steps.

python -m tests.integration.adapter_step SIGKILL "after adapted" 2    dies there at the second time

Settings come from the environment. It ends when standard input does, with 1 after a failure.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from stream_app.repartition.step import Repartition
from stream_app.settings import Settings


def main(number: str, step: str, time: int) -> int:
    """Run the step until standard input ends, or it fails."""
    seen = 0
    continued = threading.Event()
    signal.signal(signal.SIGCONT, lambda *_: continued.set())

    def at_step(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen == time:
            os.kill(os.getpid(), signal.Signals[number])
            continued.wait()  # another thread may take the signal, and this one go on for a while

    failures: list[Exception] = []
    ended = threading.Event()

    def fail(error: Exception) -> None:
        failures.append(error)
        ended.set()

    def wait_for_the_parent() -> None:
        while os.read(0, 1):
            pass
        ended.set()

    threading.Thread(target=wait_for_the_parent, daemon=True).start()
    one = Repartition(Settings(), lambda report: None, fail, at_step)
    one.start()
    ended.wait()
    one.stop()
    for failure in failures:
        sys.stderr.write(f"{type(failure).__name__}: {failure}\n")
    return len(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
