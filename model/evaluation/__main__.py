"""python -m model.evaluation: all protocols over the shared logs, and one report.

When all tasks are done in full on the logs of ../shared/data, from committed code, the report goes
to model/EVALUATION.md and model/plots; before, what is finished goes into model/evaluation/partial.
A task that was finished with the same code and folder of logs is not run again; the folder of the
code there holds what is done, and what each task said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from model.evaluation.markdown import write
from model.evaluation.runs import commit_of, digest_of
from model.evaluation.tasks import TASKS, Task, run

HERE = Path(__file__).resolve().parent
PARTIAL = HERE / "partial"
DATA = HERE.parents[2] / "shared" / "data"
SHARED = "../shared/data"
DECIDES = (
    ":/model/*.py",
    ":/stream_app/evaluate_command.py",
    ":/constraints.txt",
    ":(exclude,top)model/evaluation/__main__.py",
    ":(exclude,top)model/evaluation/runs.py",
    ":(exclude,top)model/evaluation/markdown.py",
    ":(exclude,top)model/evaluation/wanted.py",
)
"""Pathspecs of what figures depend on: not how they are collected, compared and shown."""
LOOKED_AT = (
    "Every number that a model or a baseline has is chosen on events before the cut-off. The forms "
    "of the model are not untouched by these logs: those of profile and calibration were compared "
    "on the last cut-offs (of amazon_beauty also on the first), and a weight for the last item "
    "alone on the lists below. How the parts of an interest are combined was compared on windows "
    "before all of those below: three of amazon_beauty, one of 15 days of tmall2014, one of a day "
    "of taobao_9days."
)
console = Console(stderr=True)


def main() -> int:
    """Runs the tasks that are asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m model.evaluation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the short forms: minutes")
    parser.add_argument("--only", action="append", metavar="PROTOCOL", help="can be repeated")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the logs")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="tasks at a time, each on one core"
    )
    asked = parser.parse_args()
    unknown = sorted(set(asked.only or ()) - {task.protocol for task in TASKS})
    if unknown:
        names = dict.fromkeys(task.protocol for task in TASKS)
        console.print(f"No protocol is named {unknown[0]!r}; there are: {', '.join(names)}.")
        return 2
    if asked.jobs < 1:
        console.print("--jobs is how many tasks run at a time; name at least 1.")
        return 2
    is_shared = asked.data.resolve() == DATA.resolve()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tasks = [task for task in TASKS if not asked.only or task.protocol in asked.only]
    found, differs = commit_of(HERE.parent, "EVALUATION.md", "plots")
    commit, is_changed = found or "unknown", found is None or bool(differs)
    code = digest_of(HERE.parent, *DECIDES) or "unknown"
    other = "" if is_shared else "-" + sha256(str(asked.data.resolve()).encode()).hexdigest()[:8]
    kind = ("-changed" if is_changed else "") + ("-quick" if asked.quick else "")
    done = PARTIAL / (code[:12] + kind + other)
    done.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    is_interrupted = False
    try:
        left = [task for task in tasks if is_changed or not _document(task, done).exists()]
        failed = asyncio.run(_finish_all(left, asked.jobs, asked.quick, asked.data, done, commit))
    except KeyboardInterrupt:
        is_interrupted = True
        console.print("Interrupted; what is finished is kept.")
    documents = {
        task: json.loads(_document(task, done).read_text("utf-8"))
        for task in TASKS
        if _document(task, done).exists() and (task in tasks or not is_changed)
    }
    if documents:
        is_full = not asked.quick and not is_changed and is_shared
        is_whole = is_full and len(documents) == len(TASKS)
        words = [
            *(["--quick"] if asked.quick else []),
            *(word for name in asked.only or () for word in ("--only", name)),
        ]
        logs = SHARED if is_shared else str(asked.data)
        seconds = sum(d["seconds"] for d in documents.values())
        commits = list(dict.fromkeys(d["commit"] for d in documents.values()))
        head = _head(commits, is_changed, words, logs, seconds)
        path = write(documents, head, asked.quick, HERE.parent if is_whole else PARTIAL)
        console.print(f"The report is {os.path.relpath(path)}.", highlight=False)
    for name in failed:
        log = os.path.relpath(done / f"{name}.log")
        console.print(f"{name} failed; what it said is in {log}.", highlight=False)
    return 130 if is_interrupted else 1 if failed else 0


def _document(task: Task, done: Path) -> Path:
    return done / f"{task.name}.json"


async def _finish_all(
    tasks: Sequence[Task], jobs: int, quick: bool, data: Path, done: Path, commit: str
) -> list[str]:
    """Runs the tasks, so many at a time; the names of those that failed."""
    free = asyncio.Semaphore(jobs)
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as shown:

        async def finish(number: int, task: Task) -> bool:
            async with free:
                name = f"{number} of {len(tasks)}: {task.name}"
                console.print(f"{name} begins.", highlight=False)
                line = shown.add_task(name, total=None)
                is_done = await _finish(name, task, quick, data, done, commit)
                shown.remove_task(line)
                return is_done

        are_done = await asyncio.gather(*(finish(n, t) for n, t in enumerate(tasks, start=1)))
    return [task.name for task, is_done in zip(tasks, are_done, strict=True) if not is_done]


async def _finish(name: str, task: Task, quick: bool, data: Path, done: Path, commit: str) -> bool:
    """Runs a task; whether its document is there."""
    began, unfinished = time.monotonic(), _document(task, done).with_suffix(".unfinished")
    status = await run(task, quick, data, unfinished)
    seconds = round(time.monotonic() - began, 1)
    console.print(f"{name} took {seconds:,.0f} s, exit status {status}.", highlight=False)
    if status != 0 or not unfinished.exists():
        return False
    found = json.loads(unfinished.read_text("utf-8"))
    document = {**found, "seconds": seconds, "commit": commit}
    unfinished.write_text(json.dumps(document) + "\n", "utf-8")
    unfinished.replace(_document(task, done))
    return True


def _head(
    commits: list[str], is_changed: bool, words: list[str], logs: str, seconds: float
) -> list[str]:
    named = ", ".join(commit[:12] for commit in commits)
    same = "" if len(commits) == 1 else " (commits whose model is the same)"
    changed = ", with changes that are not committed" if is_changed else ""
    arguments = f' ARGS="{shlex.join(words)}"' if words else ""
    return [
        f"Written by `make evaluate{arguments}` from commit {named}{same}{changed}. Its tasks take "
        f"one core each, {seconds / 60:,.0f} minutes in all; {os.cpu_count()} cores take one task "
        f"each at a time ({platform.machine()}, Python {platform.python_version()}).",
        f"Logs are those of {logs}. Intervals are of 1,000 bootstraps over users.",
        *(["", LOOKED_AT] if logs == SHARED else []),
    ]


if __name__ == "__main__":
    sys.exit(main())
