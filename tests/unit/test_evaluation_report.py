"""What a protocol leaves behind, and the report that `make evaluate` writes of several."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model.errors import ModelError
from model.evaluation import __main__ as evaluation
from model.evaluation.markdown import pool, table_lines, write
from model.evaluation.registry import PROTOCOLS, named
from model.evaluation.report import Curve, Figures, Report, from_document, to_document
from model.evaluation.runs import digest_of, run_to_end
from model.evaluation.tasks import TASKS, Task
from model.evaluation.wanted import POOLED, WANTED, Wanted, goals_table

REPORT = Report(
    tables=[Figures("Lists", ["", "HR@10"], [["a|b", 0.5], ["none", math.nan]], "Of 3 users.")],
    figures={"HR@10": 0.5, "lost": math.nan},
    samples={"gain": [0.1, math.nan, 0.3]},
    curves=[Curve("By event", "events", "NDCG", {"model": [(1, 0.2), (2, 0.3)]})],
)


def test_an_unknown_protocol_is_told_the_names() -> None:
    with pytest.raises(ModelError, match=r"'dowsing'; there are: window"):
        named("dowsing")


def test_every_task_has_a_protocol_and_a_name_of_its_own() -> None:
    assert {task.protocol for task in TASKS} <= set(PROTOCOLS)
    assert len({task.name for task in TASKS}) == len(TASKS)


def test_a_document_says_what_the_report_says() -> None:
    document = json.loads(json.dumps(to_document(REPORT), allow_nan=False))
    again = from_document(document)
    assert table_lines(again.tables[0]) == table_lines(REPORT.tables[0])
    assert again.figures["HR@10"] == 0.5
    assert math.isnan(again.figures["lost"])
    assert list(again.curves[0].lines["model"]) == [(1, 0.2), (2, 0.3)]
    assert again.samples == {"gain": [0.1, None, 0.3]}


def test_users_of_several_logs_are_pooled() -> None:
    again = from_document(to_document(REPORT))
    pooled = pool([("one", REPORT), ("other", again), ("one", again)])
    assert pooled is not None
    ((name, mean, low, high, users),) = pooled.rows
    assert (name, users) == ("gain", "4")
    assert mean == pytest.approx(0.2)
    assert low < mean < high  # type: ignore[operator]


def test_the_report_has_every_table_and_how_to_repeat_it(tmp_path: Path) -> None:
    task = Task("window", "shop", ("--events", "purchase"))
    plotless = Report(REPORT.tables, REPORT.figures, REPORT.samples)
    documents = {task: {**to_document(plotless), "seconds": 2.0}}
    text = write(documents, ["Of commit 1."], True, tmp_path).read_text("utf-8")
    assert "Of commit 1." in text
    assert (
        "`interest-stream evaluate --protocol window --data ../shared/data/shop.parquet "
        "--events purchase --quick` took 2 s." in text
    )
    assert "| a\\|b | 0.5000 |\n| none | – |\n\nOf 3 users." in text
    assert "## Pooled over the logs" in text


class Runs:
    """Stands in for the processes: writes an empty report, or fails, or is interrupted."""

    def __init__(self, fails: str = "", interrupted_at: str = "") -> None:
        self.fails, self.interrupted_at = fails, interrupted_at
        self.names: list[str] = []

    async def __call__(self, task: Task, quick: bool, data: Path, file: Path) -> int:
        if task.name == self.interrupted_at:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()  # until it is cancelled
        self.names.append(task.name)
        if task.name != self.fails:
            document = json.dumps(to_document(Report([])))
            await asyncio.to_thread(file.write_text, document, "utf-8")
        return int(task.name == self.fails)


TRAPPED = """
import signal, sys, time
def end(*_):
    print("ends", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("runs", flush=True)
while True:
    time.sleep(60)
"""


def test_a_cancelled_process_ends_before_its_cancellation_does(tmp_path: Path) -> None:
    log = tmp_path / "process.log"

    async def cancelled() -> None:
        command = [sys.executable, "-c", TRAPPED]
        task = asyncio.create_task(run_to_end(command, 60.0, log=log))
        while not log.exists() or b"runs" not in log.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert log.read_text("utf-8").split() == ["runs", "ends"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(evaluation, "HERE", tmp_path / "evaluation")
    monkeypatch.setattr(evaluation, "PARTIAL", tmp_path / "evaluation" / "partial")
    monkeypatch.setattr(evaluation, "commit_of", lambda *_: ("c" * 40, False))
    monkeypatch.setattr(evaluation, "digest_of", lambda *_: "d" * 64)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    return tmp_path


def evaluate(monkeypatch: pytest.MonkeyPatch, runs: Runs, *arguments: str) -> int:
    monkeypatch.setattr(evaluation, "run", runs)
    monkeypatch.setattr("sys.argv", ["evaluation", "--jobs", "1", *arguments])
    return evaluation.main()


def test_a_whole_run_writes_the_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(monkeypatch, Runs()) == 0
    assert (folder / "EVALUATION.md").exists()


def test_a_run_goes_on_where_it_was_interrupted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Runs(interrupted_at=TASKS[2].name)
    assert evaluate(monkeypatch, first) == 130
    assert not (folder / "EVALUATION.md").exists()
    assert (folder / "evaluation" / "partial" / "EVALUATION.md").exists()
    second = Runs()
    assert evaluate(monkeypatch, second) == 0
    assert first.names + second.names == [task.name for task in TASKS]
    assert (folder / "EVALUATION.md").exists()


def test_what_was_finished_stays_while_the_code_of_the_figures_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Runs(interrupted_at=TASKS[2].name)
    assert evaluate(monkeypatch, first) == 130
    monkeypatch.setattr(evaluation, "commit_of", lambda *_: ("e" * 40, False))
    assert evaluate(monkeypatch, Runs()) == 0
    text = (folder / "EVALUATION.md").read_text("utf-8")
    assert f"{'c' * 12}, {'e' * 12} (commits whose model is the same)" in text
    monkeypatch.setattr(evaluation, "digest_of", lambda *_: "f" * 64)
    again = Runs()
    assert evaluate(monkeypatch, again) == 0
    assert again.names == [task.name for task in TASKS]


def test_the_digest_is_of_what_is_committed_of_the_paths(tmp_path: Path) -> None:
    def git(*command: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *command], check=True)

    assert digest_of(tmp_path, ":/a.py") is None
    git("init", "-q")
    found = []
    for number, (name, text) in enumerate([("a.py", "1"), ("b.py", "1"), ("a.py", "2")]):
        (tmp_path / name).write_text(text, "utf-8")
        git("add", "-A")
        git("commit", "-q", "-m", str(number))
        found.append(digest_of(tmp_path, ":/*.py", ":(exclude,top)b.py"))
    assert found[0] == found[1] != found[2]


def test_a_task_that_fails_keeps_the_report_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(monkeypatch, Runs(fails=TASKS[0].name)) == 1
    assert not (folder / "EVALUATION.md").exists()


def test_quick_runs_and_changed_files_write_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate(monkeypatch, Runs(), "--quick") == 0
    monkeypatch.setattr(evaluation, "commit_of", lambda *_: ("c" * 40, True))
    assert evaluate(monkeypatch, Runs()) == 0
    again = Runs()
    assert evaluate(monkeypatch, again) == 0
    assert again.names  # what changed files gave is not kept for other changed files
    assert not (folder / "EVALUATION.md").exists()
    monkeypatch.setattr(evaluation, "commit_of", lambda *_: ("c" * 40, False))
    committed = Runs()
    assert evaluate(monkeypatch, committed) == 0
    assert committed.names == [task.name for task in TASKS]  # nor for those that are committed


def test_a_name_that_is_none_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(monkeypatch, Runs(), "--only", "dowsing") == 2


def test_goals_stand_beside_what_was_measured_and_the_best_floor() -> None:
    figures = {
        "window-shop": {
            "all: model: NDCG@10": 0.2,
            "all: last: NDCG@10": 0.15,
            "all: counts: NDCG@10": 0.19,
            "loss: model: of all": 0.5,
            "loss: blend: of all": 0.4,
        },
        "window-fair": {"all: model: NDCG@10": 0.4, "all: last: NDCG@10": 0.2},
    }
    both = ["window-shop", "window-fair"]
    table = goals_table(
        figures,
        [
            Wanted(both[:1], "NDCG", "all: model: NDCG@10", 0.19, tried="nothing"),
            Wanted(both, "mean NDCG", "all: model: NDCG@10", 0.4, tried="counts"),
            Wanted(both[:1], "loss", "loss: model: of all", "loss: blend: of all", "at most"),
            Wanted(["window-none"], "another log", "all: model: NDCG@10", 1.0),
        ],
    )
    assert table is not None
    assert table.rows == [
        ["NDCG", "0.1900", "at least 0.1900", "0.2000", "met", ""],
        ["mean NDCG", "0.1950", "at least 0.4000", "0.3000", "missed by 25.0%", "counts"],
        ["loss", "0.4000", "at most 0.4000", "0.5000", "missed by 25.0%", ""],
    ]
    assert table.note == "1 of 3 are met."
    assert goals_table({}) is None


def test_every_goal_names_a_task() -> None:
    names = {task.name for task in TASKS} | {POOLED}
    assert {task for wanted in WANTED for task in wanted.tasks} <= names
