"""python -m tests.benchmarks: measure all parts one after the other, and write one report.

A run of all parts in full that succeeds writes RESULTS.md and plots/ beside this file. Any other
run (quick, of some parts, interrupted, or with a part that failed) writes what it finished into
partial/, so that it never replaces the report of a whole one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from model.evaluation.goals import Goal
from tests.benchmarks import report, results
from tests.benchmarks.figures import RATIOS
from tests.benchmarks.parts import PARTS, Part, run_command
from tests.command_line import check_json_file, make_console

PARTIAL = report.HERE / "partial"
console = make_console()


def main(
    only: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Run this part; can be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The ratios of the throughput, in under 4 minutes.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each part.")] = None,
    go_on: Annotated[
        bool, typer.Option("--go-on", help="Keep what the JSON file has of this commit.")
    ] = False,
) -> None:
    """Measure the worker beside its peers, part by part."""
    names = [part.name for part in PARTS]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        console.print(f"No part is named {unknown[0]!r}; there are: {', '.join(names)}.")
        raise typer.Exit(2)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    whole = Whole(chosen(only, quick), quick, rounds, only)
    if go_on and json_file is None:
        console.print("--go-on goes on with what a file holds; name it with --json.")
        raise typer.Exit(2)
    check_json_file(json_file, console)
    if go_on and json_file is not None and json_file.exists():
        try:
            whole.take_over(json.loads(json_file.read_text("utf-8")))
        except (ValueError, KeyError, TypeError):
            console.print(f"{json_file} holds no figures of this benchmark; name another file.")
            raise typer.Exit(2) from None
    with tempfile.TemporaryDirectory(prefix="interest-bench-") as folder:
        try:
            whole.run(Path(folder))
        except KeyboardInterrupt:
            whole.is_interrupted = True
            console.print("Interrupted; all processes are ended.")
        whole.keep(json_file, Path(folder))
    for name in whole.failed:
        console.print(f"[red]{name} failed[/]; what it said stands above.", highlight=False)
    if whole.is_interrupted:
        raise typer.Exit(130)
    raise typer.Exit(1 if whole.failed else 0)


def chosen(only: Sequence[str] | None, quick: bool) -> list[Part]:
    """The parts that are named; without names all of them, or those of a quick run."""
    if only:
        return [part for part in PARTS if part.name in only]
    return [part for part in PARTS if part.is_in_quick or not quick]


class Whole:
    """One run of some parts: what they have written so far, and which of them failed."""

    def __init__(
        self, parts: Sequence[Part], quick: bool, rounds: int | None, only: Sequence[str] | None
    ) -> None:
        self.parts = parts
        self.quick = quick
        self.rounds = rounds
        options = [
            *(["--quick"] if quick else []),
            *(word for name in only or () for word in ("--only", name)),
            *(["--rounds", str(rounds)] if rounds else []),
        ]
        self.command = shlex.join(["python", "-m", "tests.benchmarks", *options])
        self.commit = results.commit()
        self.documents: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, float] = {}
        self.failed: list[str] = []
        self.is_interrupted = False

    @property
    def is_complete(self) -> bool:
        """Whether it has every part in full."""
        return not self.quick and len(self.documents) == len(PARTS)

    def take_over(self, earlier: Mapping[str, Any]) -> None:
        """Keep the parts of an earlier run that was the same but for its end."""
        is_same = earlier["commit"] == self.commit and earlier["command"] == self.command
        if is_same and not self.commit["changed"]:
            self.documents, self.seconds = dict(earlier["parts"]), dict(earlier["seconds"])

    def run(self, folder: Path) -> None:
        """Run the parts that are not there yet; one that fails leaves no document."""
        for number, part in enumerate(self.parts, start=1):
            console.rule(f"{number} of {len(self.parts)}: {part.what}")
            if part.name in self.documents:
                console.print("Finished before on this commit.")
                continue
            began, file = time.monotonic(), folder / f"{part.name}.json"
            status = run_command(part.command(self.quick, self.rounds, file))
            self.seconds[part.name] = round(time.monotonic() - began, 1)
            if status == 0 and file.exists():
                self.documents[part.name] = json.loads(file.read_text("utf-8"))
            else:
                self.failed.append(part.name)
            console.print(
                f"{part.name}: {self.seconds[part.name]:,.0f} s, exit status {status}.",
                highlight=False,
            )

    def keep(self, json_file: Path | None, folder: Path) -> None:
        """Write what is finished: the report with its plots, and all figures where they go."""
        if not self.documents:
            return
        self.documents = {
            part.name: self.documents[part.name] for part in PARTS if part.name in self.documents
        }
        file = json_file or folder / "all.json"
        figures = together(self.documents, self.command, self.commit, self.seconds)
        for goal in figures["goals"]:
            console.print(f"- {msgspec.convert(goal, Goal)}", highlight=False)
        file.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
        if json_file is not None:
            console.print(f"All figures are in {json_file}.", highlight=False)
        try:
            written = report.write(results.read(file), report.HERE if self.is_complete else PARTIAL)
        except results.ResultError as error:
            console.print(f"There is no report: {error}", highlight=False)
            return
        console.print(f"The report is {os.path.relpath(written)}.", highlight=False)


def together(
    documents: Mapping[str, dict[str, Any]],
    command: str,
    commit: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """All figures of a run: the ratios of the throughput at the top, null where there are none."""
    throughput = documents.get("throughput", {})
    return {
        **{name: throughput.get(name) for name in RATIOS},
        "command": command,
        "taken_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": results.machine(),
        "versions": results.versions(),
        "seconds": seconds,
        "goals": [goal for document in documents.values() for goal in document["goals"]],
        "parts": documents,
    }


if __name__ == "__main__":
    typer.run(main)
