"""A worker that may use one core alone: ``python -m tests.benchmarks.pinned_worker CORE``.

It is the worker of the command line otherwise, and ends with the process that started it.
"""

from __future__ import annotations

import os
import sys

from stream_app.cli import main
from stream_app.demo.processes import PROGRAM

if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})  # before there is another thread
    sys.argv[1:] = PROGRAM[1:]
    main()
