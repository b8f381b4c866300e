"""RESULTS.md and its plots, from the JSON documents that the benchmarks write.

    python -m tests.benchmarks.report FILE [FILE...]

A file is what one benchmark has written with --json, or all of them. The order of the files is the
order of the sections. A file replaces nothing of an earlier report: name all files whose figures
are to stand in it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.results import Document, ResultError, Section, Table, read

HERE = Path(__file__).parent
NAME = "RESULTS.md"
PLOTS = "plots"

_HEAD = """# Results of the benchmarks

Written by `python -m tests.benchmarks`; each part says what repeats it. Figures are medians over
the rounds, with the lowest and the highest round.
"""


def main() -> None:
    """Writes the report; exit code 1 when a file is no document of a benchmark."""
    parser = argparse.ArgumentParser(description="Write RESULTS.md and its plots.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="written by --json")
    arguments = parser.parse_args()
    try:
        write([document for path in arguments.files for document in read(path)], HERE)
    except ResultError as error:
        sys.exit(str(error))


def write(documents: Sequence[Document], folder: Path) -> Path:
    """Write the report and its plots into a folder, and return the report's file.

    Raises:
        ResultError: two sections have one name, or matplotlib is not installed.
    """
    try:
        from tests.benchmarks.plots import draw
    except ImportError as error:
        raise ResultError(
            f"The plots need matplotlib ({error}); run pip install -e '.[bench]'."
        ) from None
    text = render(documents)
    plots = folder / PLOTS
    plots.mkdir(parents=True, exist_ok=True)
    for document in documents:
        for section in document.sections:
            draw(section, plots / f"{section.name}.png")
    report = folder / NAME
    report.write_text(text, "utf-8")
    return report


def render(documents: Sequence[Document]) -> str:
    """The report in Markdown; each section has a table and refers to its plot.

    Raises:
        ResultError: two sections have one name.
    """
    parts, seen = [_HEAD, *_goals(documents)], set()
    for document in documents:
        for section in document.sections:
            if section.name in seen:
                raise ResultError(
                    f"Two files have a section {section.name}; name one file per benchmark."
                )
            seen.add(section.name)
            parts.append(_section(section))
        parts.append(f"{_origin(document)}\n")
    return "\n".join(parts)


def _goals(documents: Sequence[Document]) -> list[str]:
    """All goals in one table, where there are any."""
    rows = [
        [g.what, f"{g.kind} {g.shown(g.bound)}", g.shown(g.measured), g.verdict]
        for document in documents
        for g in document.goals
    ]
    if not rows:
        return []
    return [f"## Goals\n\n{_markdown(Table(['figure', 'goal', 'measured', ''], rows))}\n"]


def _section(section: Section) -> str:
    picture = f"![{section.title}]({PLOTS}/{section.name}.png)"
    return f"## {section.title}\n\n{section.text}\n\n{_markdown(section.table)}\n\n{picture}\n"


def _markdown(table: Table) -> str:
    """The first column to the left, figures to the right."""
    rule = ["---"] + ["---:"] * (len(table.columns) - 1)
    lines = [table.columns, rule, *table.rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _origin(document: Document) -> str:
    """What the figures of a document belong to, in one sentence."""
    commit = str(document.commit["id"] or "unknown")[:12]
    changed = " with changes" if document.commit["changed"] else ""
    machine = document.machine
    versions = [f"{name} {version}" for name, version in document.versions.items() if version]
    return (
        f"Repeated by `{document.command}`. Taken at {document.taken_at}, commit "
        f"{commit}{changed}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}; "
        f"{', '.join(versions)}."
    )


if __name__ == "__main__":
    main()
