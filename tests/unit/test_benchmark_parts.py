"""The harness: which parts a run has, how they are called, and what becomes of their figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer

from tests.benchmarks import __main__ as harness
from tests.benchmarks import results
from tests.benchmarks.__main__ import PARTIAL, Whole, chosen, together
from tests.benchmarks.command_line import make_parser
from tests.benchmarks.figures import RATIOS
from tests.benchmarks.parts import PARTS, Part, run_command
from tests.benchmarks.results import Plot, Section, Series, Table

SECTION = Section(
    "one", "One", "Text.", Table(["a"], [["b"]]), Plot("bars", "", "", [Series("s", ["a"], [1.0])])
)


def test_without_names_a_run_has_all_parts_and_a_quick_one_those_with_the_ratios() -> None:
    assert chosen(None, quick=False) == list(PARTS)
    assert [part.name for part in chosen(None, quick=True)] == ["throughput"]


def test_named_parts_run_in_the_order_of_the_report() -> None:
    named = chosen(["backfill", "latency"], quick=True)
    assert [part.name for part in named] == ["latency", "backfill"]


def test_a_part_gets_its_own_arguments_in_a_full_run_only(tmp_path: Path) -> None:
    part, file = Part("ranking", "lists", ("--clustered",), has_rounds=False), tmp_path / "r.json"
    module = [sys.executable, "-m", "tests.benchmarks.ranking"]
    assert part.command(False, 5, file) == [*module, "--clustered", "--json", str(file)]
    assert part.command(True, 5, file) == [*module, "--quick", "--json", str(file)]


def test_rounds_are_handed_on(tmp_path: Path) -> None:
    command = Part("latency", "latency").command(True, 5, tmp_path / "l.json")
    assert command[3:6] == ["--quick", "--rounds", "5"]


def test_the_exit_status_of_a_part_is_told() -> None:
    assert run_command([sys.executable, "-c", "raise SystemExit(3)"]) == 3


def test_the_ratios_stand_at_the_top_and_are_null_without_the_throughput() -> None:
    goal = {"what": "rate"}
    documents = {
        "throughput": {"ratio_limit": 0.7, "ratio_stock_faust": 50.0, "goals": []},
        "growth": {"goals": [goal]},
    }
    whole = together(documents, "make bench", {"id": "abc"}, {"throughput": 1.0})
    assert (whole["ratio_limit"], whole["ratio_stock_faust"]) == (0.7, 50.0)
    assert whole["ratio_quix_streams"] is None
    assert whole["goals"] == [goal]
    assert list(whole["parts"]) == ["throughput", "growth"]
    without = together({"growth": {"goals": []}}, "make bench", {}, {})
    assert {without[name] for name in RATIOS} == {None}


def test_a_part_that_fails_leaves_the_others_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str]) -> int:
        if "tests.benchmarks.latency" in command:
            return 1
        results.write(Path(command[-1]), "one", "make bench", [SECTION], {"ratio_limit": 0.5})
        return 0

    written: list[Path] = []

    def write(documents: list[results.Document], folder: Path) -> Path:
        written.append(folder)
        return folder / "RESULTS.md"

    monkeypatch.setattr(harness, "run_command", run)
    monkeypatch.setattr(harness.report, "write", write)
    whole = Whole([Part("latency", "fails"), Part("throughput", "goes on")], False, None, None)
    whole.run(tmp_path)
    whole.keep(tmp_path / "all.json", tmp_path)
    assert whole.failed == ["latency"]
    assert list(whole.documents) == ["throughput"]
    assert json.loads((tmp_path / "all.json").read_text("utf-8"))["ratio_limit"] == 0.5
    assert written == [PARTIAL]  # not the report of a whole run


def test_a_run_goes_on_where_one_of_the_same_commit_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = {"id": "abc", "changed": False}
    monkeypatch.setattr(results, "commit", lambda: commit)
    monkeypatch.setattr(harness, "run_command", lambda command: 1)
    earlier = {
        "commit": commit,
        "command": "python -m tests.benchmarks",
        "parts": {"growth": {"goals": []}, "latency": {"goals": []}},
        "seconds": {"growth": 2.0, "latency": 1.0},
    }
    parts = [Part("latency", "one"), Part("growth", "two"), Part("throughput", "three")]
    whole = Whole(parts, False, None, None)
    whole.take_over(earlier)
    whole.run(tmp_path)
    assert whole.failed == ["throughput"]
    assert whole.seconds["growth"] == 2.0
    for other in ({"commit": {**commit, "id": "abd"}}, {"command": "python --quick"}):
        whole = Whole(parts, False, None, None)
        whole.take_over({**earlier, **other})
        assert not whole.documents


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_file_without_figures_is_refused_before_anything_runs(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness.signal, "signal", lambda *_: None)
    monkeypatch.setattr(harness, "run_command", lambda command: pytest.fail("it runs"))
    file = tmp_path / "all.json"
    file.write_text(text, "utf-8")
    with pytest.raises(typer.Exit) as ended:
        harness.main(json_file=file, go_on=True)
    assert ended.value.exit_code == 2
    assert "holds no figures" in " ".join(capsys.readouterr().out.split())


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness.signal, "signal", lambda *_: None)
    monkeypatch.setattr(harness, "run_command", lambda command: pytest.fail("it runs"))
    with pytest.raises(typer.Exit) as ended:
        harness.main(json_file=tmp_path / "no" / "all.json")
    assert ended.value.exit_code == 2
    assert "There is no folder to write" in capsys.readouterr().out
    parser = make_parser("A part.", "a short form")
    with pytest.raises(SystemExit) as refused:
        parser.parse_args(["--json", str(tmp_path)])
    assert refused.value.code == 2
    assert "is a folder" in capsys.readouterr().err
