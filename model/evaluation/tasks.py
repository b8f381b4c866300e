"""What `make evaluate` runs: protocols over logs, each as the user's command in a process.

The order is that of the report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model.evaluation.runs import run_to_end

END_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Task:
    """One protocol over one log of ../shared/data.

    arguments  further ones of the command
    """

    protocol: str
    log: str
    arguments: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Unique among the tasks; the stem of its file."""
        words = [self.protocol, self.log, *(word.strip("-") for word in self.arguments)]
        return "-".join(words)

    def words(self, quick: bool) -> list[str]:
        """The command's words behind its name, with the data beside the checkout."""
        data = f"../shared/data/{self.log}.parquet"
        words = ["evaluate", "--protocol", self.protocol, "--data", data, *self.arguments]
        return [*words, "--quick"] if quick else words


TASKS = (
    Task("window", "tmall2014"),
    Task("window", "tmall2014", ("--events", "purchase")),
    Task("window", "amazon_beauty", ("--horizon", "90d")),
    Task("window", "taobao_9days", ("--horizon", "2d")),
    Task("contest", "tmall2014"),
    Task("successive", "amazon_beauty"),
    Task("leave-one-out", "amazon_beauty"),
    Task("successive", "tmall2014"),
    Task("sessions", "session_diginetica"),
    Task("continual", "continual_diginetica"),
    Task("drift", "tmall2014"),
    Task("drift", "amazon_beauty"),
    Task("drift", "taobao_9days"),
)


async def run(task: Task, quick: bool, data: Path, file: Path) -> int:
    """Runs a task to its end on one core, its document in ``file``; the exit status.

    data  the folder of the logs
    What the task says goes into a file beside the document. A cancellation ends the process first.
    """
    words = task.words(quick)
    words[words.index("--data") + 1] = str(data / f"{task.log}.parquet")
    command = [sys.executable, "-m", "stream_app.cli", *words, "--json", str(file)]
    one_core = {"OMP_NUM_THREADS": "1"}
    return await run_to_end(command, END_TIMEOUT_S, one_core, file.with_suffix(".log"))
