"""Lists per second and recall of the worker's candidates, of exact lists and of index libraries.

    python -m tests.benchmarks.ranking [--quick] [--clustered] [--items N ...] [--log FILE ...]
                                       [--json FILE] [--build-seconds S]

Catalogues of ``--items`` are made, once with embeddings that share a centre in each category and,
without ``--clustered``, once with embeddings that have nothing in common. ``--log`` trains on the
first 80 % of a log instead and ranks for what comes then. An index that is not built after
``--build-seconds`` is given up; libraries that are not installed are left out. They come with the
extra ``indexes``:

    pip install -c constraints.txt -e '.[indexes]'
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from stream_app.terminal import Stages, stages
from tests.benchmarks.catalogue import make_catalogue, make_rows
from tests.benchmarks.command_line import ending, make_parser, positive, publish
from tests.benchmarks.item_indexes import LIBRARIES
from tests.benchmarks.list_figures import BUILD_LIMIT_S, Figure, K, measure
from tests.benchmarks.ranking_sections import hits_section, ranking_section
from tests.benchmarks.trained_lists import Hits, Trained, hits_of, trained_on
from tests.command_line import make_console

ITEMS = (1_000, 30_000, 300_000, 3_000_000)
QUICK_ITEMS = (1_000, 30_000)
ROWS = 1024


def main() -> None:
    """Measures, and writes the figures; what was measured before an interruption is shown."""
    arguments = _arguments()
    torch.set_num_threads(1)
    console = make_console()
    figures: list[Figure] = []
    hits: dict[str, Hits] = {}
    with ending(console):
        try:
            with stages(console) as show:
                for name, trained in _subjects(arguments, show):
                    rows = trained.rows[:ROWS]
                    figures += measure(
                        name, trained.checkpoint, rows, arguments.build_seconds, show
                    )
                    if len(trained.target):
                        hits[name] = hits_of(trained, K, show)
        finally:
            kinds = dict.fromkeys(figure.vectors for figure in figures)
            libraries = [library for library in LIBRARIES if library.installed]
            publish(
                console,
                arguments.json,
                "ranking",
                _command(arguments),
                [
                    *(ranking_section([f for f in figures if f.vectors == kind]) for kind in kinds),
                    *(hits_section(log, found) for log, found in hits.items()),
                ],
                {
                    "k": K,
                    "packages": {x.distribution: version(x.distribution) for x in libraries},
                    "figures": [asdict(figure) for figure in figures],
                    "hits": {name: asdict(found) for name, found in hits.items()},
                },
            )


def _arguments() -> argparse.Namespace:
    parser = make_parser(
        "Rate and recall of ways to make lists.", "small catalogues that are clustered"
    )
    parser.add_argument("--items", type=positive, nargs="+", metavar="N")
    parser.add_argument("--clustered", action="store_true", help="no embeddings without a centre")
    parser.add_argument("--log", type=Path, nargs="+", default=(), metavar="FILE")
    parser.add_argument("--build-seconds", type=float, default=BUILD_LIMIT_S, metavar="S")
    arguments = parser.parse_args()
    arguments.items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    arguments.clustered = arguments.clustered or arguments.quick
    return arguments


def _command(arguments: argparse.Namespace) -> str:
    what = f"--items {' '.join(map(str, arguments.items))}{' --clustered' * arguments.clustered}"
    if arguments.log:
        what = "--log FILE"
    return f"python -m tests.benchmarks.ranking {what} --build-seconds {arguments.build_seconds:g}"


def _subjects(arguments: argparse.Namespace, show: Stages) -> Iterator[tuple[str, Trained]]:
    """What is measured, by name; one is let go before the next is made."""
    for path in arguments.log:
        yield path.stem, trained_on(path, show)
    if arguments.log:
        return
    for items in arguments.items:
        for clustered in (True,) if arguments.clustered else (True, False):
            name = "clustered" if clustered else "random"
            show(f"Making {items:,} items, {name}", 0, 1)
            checkpoint = make_catalogue(items, clustered)
            rows = make_rows(checkpoint, ROWS)
            show(f"Making {items:,} items, {name}", 1, 1)
            yield name, Trained(checkpoint, rows, rows["last_time_ms"], np.zeros(0, np.int64))


if __name__ == "__main__":
    main()
