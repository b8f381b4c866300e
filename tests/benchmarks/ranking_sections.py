"""How ways to make lists are shown: rate and recall by the size of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.item_indexes import LIBRARIES
from tests.benchmarks.list_figures import CANDIDATES, EXACT, EXACT_NETWORK, Figure, K
from tests.benchmarks.results import Plot, Section, Series, Table
from tests.benchmarks.trained_lists import Hits

GOOD_RECALL = 0.95
"""Of an index that could stand for the exact list."""
_INDEXES = {library.name for library in LIBRARIES}


def ranking_section(figures: Sequence[Figure]) -> Section:
    """Rate and recall of all ways over catalogues of one kind, or of one log."""
    kind = figures[0].vectors
    sizes = sorted({figure.items for figure in figures})
    ways = dict.fromkeys((figure.way, figure.effort) for figure in figures)
    return Section(
        f"ranking_{kind}",
        f"Ranking: lists of {K} items, {kind} embeddings",
        "Lists/s of one thread's processor time, with the recall of the exact list in brackets: of "
        "the whole score for the worker's candidates, of the network's part of it for an index, "
        f"which knows no other. A number behind a library is its search effort.\n\n"
        f"{conclusion(figures)}",
        Table(
            ["way", *(f"{items:,} items" for items in sizes)],
            [
                [
                    way if effort is None else f"{way}, {effort}",
                    *(_cell(_find(figures, items, way, effort)) for items in sizes),
                ]
                for way, effort in ways
            ],
        ),
        Plot(
            "lines",
            "items",
            "lists/s",
            [
                *(
                    _line(way, [_find(figures, items, way, None) for items in sizes])
                    for way in (CANDIDATES, EXACT, EXACT_NETWORK)
                ),
                *_index_lines(figures, sizes),
            ],
            is_logarithmic=True,
            is_x_logarithmic=True,
        ),
    )


def conclusion(figures: Sequence[Figure]) -> str:
    """From which size on an index is faster than exact lists, and what the worker does."""
    sizes = sorted({figure.items for figure in figures})
    best = {items: fastest_index(figures, items) for items in sizes}
    faster = {
        items: index
        for items, index in best.items()
        if index is not None and _rate(index) > _rate(_find(figures, items, EXACT_NETWORK))
    }
    without = [f"{items:,}" for items, index in best.items() if index is None]
    recall = f"a recall of at least {GOOD_RECALL}"
    if faster:
        items, index = next(iter(faster.items()))
        sentences = [
            f"Exact lists of the network's part lose from {items:,} items on to an index with "
            f"{recall}: {index.way} makes {_rate(index):,.0f} lists/s there, after "
            f"{index.build_s or 0:,.1f} s of building."
        ]
    else:
        sentences = [
            "Exact lists of the network's part lose at none of these sizes to an index with "
            f"{recall}."
        ]
    if without:
        at = " and ".join(without)
        sentences.append(f"At {at} items no index that was built has that recall.")
    ranked = [figure for figure in figures if figure.way == CANDIDATES]
    rates_of = ", ".join(
        f"{_rate(figure):,.0f} lists/s with {figure.recall:.3f} of the exact list at "
        f"{figure.items:,} items"
        for figure in ranked
    )
    sentences.append(
        f"The worker ranks the whole score over candidates: {rates_of}. An index finds the best of "
        "one term of that score, so it could only add candidates, at its own price on top of "
        "theirs; what they would gain is measured on a real log (`--log FILE`). No library is a "
        "dependency of the worker."
    )
    return " ".join(sentences)


def fastest_index(figures: Sequence[Figure], items: int) -> Figure | None:
    """The library that makes most lists of a good recall, None where none does."""
    good = [
        figure
        for figure in figures
        if figure.items == items
        and figure.way in _INDEXES
        and figure.recall is not None
        and figure.recall >= GOOD_RECALL
    ]
    return max(good, key=_rate, default=None)


def _find(
    figures: Sequence[Figure], items: int, way: str, effort: int | None = None
) -> Figure | None:
    place = (items, way, effort)
    return next((f for f in figures if (f.items, f.way, f.effort) == place), None)


def _rate(figure: Figure | None) -> float:
    return 0.0 if figure is None or figure.lists_per_s is None else figure.lists_per_s


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    if figure.lists_per_s is None:
        return f"({figure.recall:.3f})" if figure.recall is not None else figure.note
    recall = "" if figure.recall is None else f" ({figure.recall:.3f})"
    return f"{figure.lists_per_s:,.0f}{recall}"


def _line(name: str, points: Sequence[Figure | None]) -> Series:
    there = [point for point in points if point is not None]
    return Series(name, [point.items for point in there], [_rate(point) for point in there])


def _index_lines(figures: Sequence[Figure], sizes: Sequence[int]) -> list[Series]:
    """The fastest index at each size, where there is any."""
    points = [fastest_index(figures, items) for items in sizes]
    name = f"fastest index, recall {GOOD_RECALL} of the network's part"
    return [_line(name, points)] if any(points) else []


def hits_section(log: str, hits: Hits) -> Section:
    """What the lists of a trained checkpoint are worth."""
    return Section(
        f"hits_{log}",
        f"The next item of {hits.lists:,} lists: {log}",
        f"{hits.items:,} items. Each way has the fusion weights that suit it best on other lists "
        "of the same time. Gain: in NDCG over the candidates, with its 95 % interval.",
        Table(
            ["way", "recall of exact", f"HR@{K}", f"NDCG@{K}", "gain"],
            [
                [
                    way.way,
                    f"{way.recall:.3f}",
                    f"{way.hit_rate:.4f}",
                    f"{way.ndcg:.4f}",
                    f"{way.gain:+.4f} ({way.interval[0]:+.4f} to {way.interval[1]:+.4f})",
                ]
                for way in hits.ways
            ],
        ),
        Plot(
            "bars",
            "",
            f"NDCG@{K}",
            [Series("NDCG", [way.way for way in hits.ways], [way.ndcg for way in hits.ways])],
        ),
    )
