"""python -m tests.failures.chaos: run the scenarios, show a table, end with 1 if one is broken."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from tests.command_line import check_json_file, make_console
from tests.failures.chaos.kit import Result
from tests.failures.chaos.report import WORDS, table, write_json
from tests.failures.chaos.scenarios import SCENARIOS
from tests.failures.chaos.side_by_side import run_all

console = make_console()


def main(
    only: Annotated[list[str] | None, typer.Option(help="Run scenarios of this name.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the chance in the scenarios.")] = 0,
    long: Annotated[bool, typer.Option("--long", help="Run the long forms.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Scenarios side by side.")] = 4,
    minutes: Annotated[
        float | None,
        typer.Option(
            min=0, help="Begin no other scenario after so long; the seed says with which."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the report as JSON.")
    ] = None,
) -> None:
    """Break the worker in every way that the kit knows, and check that nothing is lost."""
    unknown = sorted(set(only or ()) - SCENARIOS.keys())
    if unknown:
        console.print(f"No scenario is named {unknown[0]!r}; there are: {', '.join(SCENARIOS)}.")
        raise typer.Exit(2)
    check_json_file(json_file, console)
    names = [name for name in SCENARIOS if not only or name in only]
    if minutes is not None:  # what does not fit today comes first another time
        first = seed % len(names)
        names = names[first:] + names[:first]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    done = 0

    def show(one: Result) -> None:
        nonlocal done
        done += 1
        line = f"{done}/{len(names)} {one.name}: {WORDS[one.held]} {one.seconds:.0f} s"
        console.print(line, highlight=False)

    try:
        results = run_all(names, seed, long, jobs, show, minutes)
    except KeyboardInterrupt:
        console.print("Interrupted; all that was started has ended.")
        raise typer.Exit(130) from None
    console.print(table(results))
    broken = [one for one in results if one.held is False]
    for one in broken:
        console.print(f"[red]{one.name}[/] (seed {one.seed}): {one.why}", highlight=False)
    for one in results:
        if one.held == "not run":
            console.print(f"[yellow]{one.name}[/]: {one.why}", highlight=False)
    lost, doubled = sum(one.lost for one in results), sum(one.doubled for one in results)
    console.print(f"{len(results)} scenarios, lost {lost}, doubled {doubled}.", highlight=False)
    if json_file is not None:
        write_json(results, json_file)
    raise typer.Exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
