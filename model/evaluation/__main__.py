"""python -m model.evaluation: all protocols over the shared logs, and one report.

A run of all tasks in full, from one commit without changes, writes model/EVALUATION.md and
model/plots. Any other run writes what it finished into model/evaluation/partial. A task that was
finished on the same commit is not run again; the folder of the commit there holds what is done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from model.evaluation.markdown import write
from model.evaluation.runs import commit_of
from model.evaluation.tasks import TASKS, Task, run

HERE = Path(__file__).resolve().parent
PARTIAL = HERE / "partial"
DATA = HERE.parents[2] / "shared" / "data"
console = Console(stderr=True)


def main() -> int:
    """Runs the tasks that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model.evaluation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short forms: minutes")
    parser.add_argument("--only", action="append", metavar="PROTOCOL", help="can be repeated")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the logs")
    asked = parser.parse_args()
    unknown = sorted(set(asked.only or ()) - {task.protocol for task in TASKS})
    if unknown:
        names = dict.fromkeys(task.protocol for task in TASKS)
        console.print(f"No protocol is named {unknown[0]!r}; there are: {', '.join(names)}.")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tasks = [task for task in TASKS if not asked.only or task.protocol in asked.only]
    found, differs = commit_of(HERE.parent, "EVALUATION.md", "plots")
    commit, is_changed = found or "unknown", found is None or bool(differs)
    done = PARTIAL / (commit[:12] + ("-quick" if asked.quick else ""))
    done.mkdir(parents=True, exist_ok=True)
    failed, is_interrupted = [], False
    try:
        for number, task in enumerate(tasks, start=1):
            console.rule(f"{number} of {len(tasks)}: {task.name}")
            if not _finish(task, asked.quick, asked.data, done, is_changed):
                failed.append(task.name)
    except KeyboardInterrupt:
        is_interrupted = True
        console.print("Interrupted; what is finished is kept.")
    documents = {
        task: json.loads((done / f"{task.name}.json").read_text("utf-8"))
        for task in TASKS
        if (done / f"{task.name}.json").exists() and (task in tasks or not is_changed)
    }
    if documents:
        is_whole = not asked.quick and not is_changed and len(documents) == len(TASKS)
        words = [
            *(["--quick"] if asked.quick else []),
            *(word for name in asked.only or () for word in ("--only", name)),
        ]
        head = _head(commit, is_changed, words, sum(d["seconds"] for d in documents.values()))
        path = write(documents, head, asked.quick, HERE.parent if is_whole else PARTIAL)
        console.print(f"The report is {os.path.relpath(path)}.", highlight=False)
    for name in failed:
        console.print(f"{name} failed; what it said stands above.", highlight=False)
    return 130 if is_interrupted else 1 if failed else 0


def _finish(task: Task, quick: bool, data: Path, done: Path, is_changed: bool) -> bool:
    """Runs a task unless its document is there; whether it is there now."""
    file = done / f"{task.name}.json"
    if file.exists() and not is_changed:
        console.print("Finished before on this commit.")
        return True
    began, unfinished = time.monotonic(), file.with_suffix(".unfinished")
    status = run(task, quick, data, unfinished)
    seconds = round(time.monotonic() - began, 1)
    console.print(f"{task.name}: {seconds:,.0f} s, exit status {status}.", highlight=False)
    if status != 0 or not unfinished.exists():
        return False
    document = {**json.loads(unfinished.read_text("utf-8")), "seconds": seconds}
    unfinished.write_text(json.dumps(document) + "\n", "utf-8")
    unfinished.replace(file)
    return True


def _head(commit: str, is_changed: bool, words: list[str], seconds: float) -> list[str]:
    changed = ", with changes that are not committed" if is_changed else ""
    arguments = f' ARGS="{shlex.join(words)}"' if words else ""
    return [
        f"Written by `make evaluate{arguments}` from commit {commit[:12]}{changed}, in "
        f"{seconds / 60:,.0f} minutes on {os.cpu_count()} cores ({platform.machine()}, "
        f"Python {platform.python_version()}).",
        "Logs are those of ../shared/data. Intervals are of 1,000 bootstraps over users.",
    ]


if __name__ == "__main__":
    sys.exit(main())
