"""Lists per second and recall of the worker's candidates, of exact lists and of index libraries.

    python -m tests.benchmarks.ranking [--items N ...] [--log FILE ...] [--json FILE]
                                       [--build-seconds S]

Catalogues of ``--items`` are made, once with embeddings that have nothing in common and once with
embeddings that share a centre in each category. ``--log`` trains on the first 80 % of a log instead
and ranks for what comes then. An index that is not built after ``--build-seconds`` is given up;
libraries that are not installed are left out. They come with the extra ``bench``:

    pip install -c constraints.txt -e '.[indexes]'
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from stream_app.terminal import Stages, stages
from tests.benchmarks.catalogue import make_catalogue, make_rows
from tests.benchmarks.item_indexes import LIBRARIES
from tests.benchmarks.list_figures import BUILD_LIMIT_S, Figure, K, measure
from tests.benchmarks.trained_lists import Hits, Trained, hits_of, trained_on

ITEMS = (1_000, 30_000, 300_000, 3_000_000)
ROWS = 1024


def main() -> None:
    """Measures, prints the tables and writes the figures."""
    arguments = _arguments()
    torch.set_num_threads(1)
    console = Console()
    figures: list[Figure] = []
    hits: dict[str, Hits] = {}
    with stages(console) as show:
        for name, trained in _subjects(arguments, show):
            for figure in measure(
                name, trained.checkpoint, trained.rows[:ROWS], arguments.build_seconds, show
            ):
                figures.append(figure)
                _write(arguments.json, figures, hits)
            if len(trained.target):
                hits[name] = hits_of(trained, K, show)
                _write(arguments.json, figures, hits)
    for name in dict.fromkeys((f.vectors, f.items) for f in figures):
        console.print(_table([f for f in figures if (f.vectors, f.items) == name]))
    for log, found in hits.items():
        console.print(_hits_table(log, found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rate and recall of ways to make lists.")
    parser.add_argument("--items", type=int, nargs="+", default=ITEMS, metavar="N")
    parser.add_argument("--log", type=Path, nargs="+", default=(), metavar="FILE")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--build-seconds", type=float, default=BUILD_LIMIT_S, metavar="S")
    return parser.parse_args()


def _subjects(arguments: argparse.Namespace, show: Stages) -> Iterator[tuple[str, Trained]]:
    """What is measured, by name; one is let go before the next is made."""
    for path in arguments.log:
        yield path.stem, trained_on(path, show)
    if arguments.log:
        return
    for items in arguments.items:
        for clustered in (False, True):
            name = "clustered" if clustered else "random"
            show(f"Making {items:,} items, {name}", 0, 1)
            checkpoint = make_catalogue(items, clustered)
            rows = make_rows(checkpoint, ROWS)
            show(f"Making {items:,} items, {name}", 1, 1)
            yield name, Trained(checkpoint, rows, rows["last_time_ms"], np.zeros(0, np.int64))


def _write(path: Path | None, figures: list[Figure], hits: dict[str, Hits]) -> None:
    if path is None:
        return
    packages = {"torch", "numpy"} | {x.distribution for x in LIBRARIES if x.installed}
    report = {
        "k": K,
        "packages": {name: version(name) for name in sorted(packages)},
        "figures": [asdict(figure) for figure in figures],
        "hits": {name: asdict(found) for name, found in hits.items()},
    }
    path.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


def _table(figures: list[Figure]) -> Table:
    """The figures of one catalogue."""
    first = figures[0]
    table = Table(
        title=f"{first.items:,} items, {first.vectors}, K = {K}",
        caption="lists/s: of one thread's processor time. Recall: of the whole score for the "
        "worker's candidates, of the network's part for the rest. Same: equal lists however the "
        "rows are cut into batches; equal lists of an index that is built again.",
        caption_justify="left",
    )
    table.add_column("way", no_wrap=True)
    for column in ("effort", "lists/s", "recall", "build s", "MB", "cut", "rebuilt"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("note")
    for f in figures:
        table.add_row(
            f.way,
            _number(f.effort, "d"),
            _number(f.lists_per_s, ",.0f"),
            _number(f.recall, ".3f"),
            _number(f.build_s, ",.1f"),
            _number(f.memory_mb, ",.0f"),
            _same(f.same_when_cut),
            _same(f.same_when_rebuilt),
            f.note,
        )
    return table


def _hits_table(log: str, hits: Hits) -> Table:
    """What the lists of a trained checkpoint are worth."""
    table = Table(
        title=f"{log}: the next item of {hits.lists:,} lists, {hits.items:,} items",
        caption="Each way has the fusion weights that suit it best on other lists of the same "
        "time. Gain: in NDCG over the candidates, with its 95 % interval.",
        caption_justify="left",
    )
    table.add_column("way", no_wrap=True)
    for column in ("recall of exact", f"HR@{K}", f"NDCG@{K}", "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    for way in hits.ways:
        low, high = way.interval
        table.add_row(
            way.way,
            f"{way.recall:.3f}",
            f"{way.hit_rate:.4f}",
            f"{way.ndcg:.4f}",
            f"{way.gain:+.4f} ({low:+.4f} to {high:+.4f})",
        )
    return table


def _number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _same(value: bool | None) -> str:
    return "-" if value is None else "same" if value else "OTHER"


if __name__ == "__main__":
    main()
