"""What lists cost and find, way by way, over the catalogue of one checkpoint.

Everything is done by one thread; a rate is in lists per second of processor time, so that other
processes disturb it less. Dimensions: R rows, K list length, I items.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from model import interests
from model.checkpoint import Checkpoint, Statistics, load, save
from model.interest_lstm import InterestLSTM
from model.ranking import LIKELY_CATEGORIES, SCORED_TOGETHER, rank
from model.state import StateBatch
from stream_app.terminal import Stages
from tests.benchmarks.exact_lists import exact_lists, network_top, recall
from tests.benchmarks.item_indexes import LIBRARIES, ItemIndex, Library, item_vectors, queries_of

CANDIDATES = "candidates (worker)"
EXACT = "exact, whole score"
EXACT_NETWORK = "exact, network's part"
K = 10
TOGETHER = 256
"""Rows asked for together, as the worker ranks them."""
WHOLE_ROWS = 256
WHOLE_TOGETHER = 16
"""Rows whose whole score is taken over the catalogue, and how many at a time."""
EVERY_CANDIDATE = 10_000
ROUNDS = 3
ROUND_S = 1.0
BUILD_LIMIT_S = 120.0
"""An index that is not built by then is given up, unless another limit is given."""
REBUILD_S = 30
"""An index that took longer is not built a second time."""
ADDED_TOGETHER = 20_000
CUTS = (1, 2, 3, 5, 8, 13, 21, 34, 55)
MB = 1e6

Ask = Callable[[slice], np.ndarray]
"""The lists of a part of the rows."""


@dataclass(frozen=True)
class Figure:
    """What one way costs and finds; None where it was not measured.

    recall     share of the exact list that is found: of the network's part of the score for
               indexes, of the whole score for candidates
    memory_mb  of the arrays or of the stored index, in 10**6 bytes
    """

    vectors: str
    items: int
    way: str
    effort: int | None = None
    lists_per_s: float | None = None
    recall: float | None = None
    build_s: float | None = None
    memory_mb: float | None = None
    same_when_cut: bool | None = None
    same_when_rebuilt: bool | None = None
    note: str = ""


def measure(
    name: str, checkpoint: Checkpoint, rows: StateBatch, build_limit_s: float, show: Stages
) -> Iterator[Figure]:
    """The figures of one checkpoint: candidates, exact lists, then the libraries."""
    items = len(checkpoint.vocabulary.item_names)
    subject = Figure(name, items, "")
    what = f"{items:,} items, {name}"
    ways = [library for library in LIBRARIES if library.installed]
    show(what, 0, len(ways) + 2)
    yield from _candidates(subject, checkpoint, rows)
    show(what, 1, len(ways) + 2)
    out = interests.hidden_readout(rows, checkpoint)
    table = checkpoint.network.item.weight[1 : items + 1]
    bias = checkpoint.network.item_bias[1 : items + 1]
    exact = _in_parts(lambda part: network_top(out[part], table, bias, K)[0], len(rows))
    for way, held in ((EXACT_NETWORK, table), ("the same, 16 bits", table.half())):

        def network_lists(part: slice, held: torch.Tensor = held) -> np.ndarray:
            return network_top(out[part], held, bias, K)[0]

        yield replace(
            subject,
            way=way,
            lists_per_s=rate(network_lists, len(rows)),
            recall=recall(_in_parts(network_lists, len(rows)), exact),
            memory_mb=held.nbytes / MB,
            same_when_cut=_same_when_cut(network_lists, len(rows)),
        )
    show(what, 2, len(ways) + 2)
    for done, library in enumerate(ways, start=3):
        yield from _index(subject, library, checkpoint, queries_of(out), exact, build_limit_s)
        show(what, done, len(ways) + 2)


def _candidates(subject: Figure, checkpoint: Checkpoint, rows: StateBatch) -> Iterator[Figure]:
    """The worker's lists, parts of their cost, and the exact ones of the same score."""
    now_ms = rows["last_time_ms"]

    def lists(part: slice) -> np.ndarray:
        return rank(rows[part], now_ms[part], checkpoint, K).item

    def liked(part: slice) -> np.ndarray:
        out = interests.hidden_readout(rows[part], checkpoint)
        logits = interests.category_logits(rows[part], out, now_ms[part] // 1000, checkpoint)
        return interests.top_interests(logits, logits.shape[1], LIKELY_CATEGORIES).category

    def whole(part: slice) -> np.ndarray:
        return exact_lists(rows[part], now_ms[part], checkpoint, K)

    exact = _in_parts(whole, min(len(rows), WHOLE_ROWS))
    found = _in_parts(lists, len(rows))
    yield replace(
        subject,
        way=CANDIDATES,
        lists_per_s=rate(lists, len(rows)),
        recall=recall(found[: len(exact)], exact),
        build_s=_load_seconds(checkpoint),
        memory_mb=_array_bytes(checkpoint) / MB,
        same_when_cut=_same_when_cut(lists, len(rows)),
        note="whole score; build is the load of the checkpoint, MB all of its arrays",
    )
    yield replace(subject, way="- the interests of it", lists_per_s=rate(liked, len(rows)))
    yield from _products(subject, checkpoint, rows)
    rounded = _with_16_bits(checkpoint)
    again = _in_parts(lambda part: rank(rows[part], now_ms[part], rounded, K).item, len(rows))
    yield replace(
        subject,
        way="- its lists from 16 bits",
        recall=recall(again, found),
        memory_mb=checkpoint.network.item.weight.nbytes / 2 / MB,
        note="share of the candidates' lists kept",
    )
    yield replace(
        subject,
        way=EXACT,
        lists_per_s=rate(whole, len(rows), WHOLE_TOGETHER),
        recall=1.0,
        same_when_cut=_same_when_cut(whole, WHOLE_TOGETHER),
    )


def _products(subject: Figure, checkpoint: Checkpoint, rows: StateBatch) -> Iterator[Figure]:
    """The candidates' dot products with the readout, from a table of 32 and of 16 bits."""
    item = rank(rows, rows["last_time_ms"], checkpoint, EVERY_CANDIDATE).item
    out = interests.hidden_readout(rows, checkpoint)
    weight = checkpoint.network.item.weight
    for bits, table in ((32, weight.numpy()), (16, weight.half().numpy())):

        def products(part: slice, table: np.ndarray = table) -> np.ndarray:
            row, _ = np.nonzero(item[part])
            ids, read = item[part][item[part] > 0], out[part]
            own = np.empty(len(ids), np.float32)
            for at in range(0, len(ids), SCORED_TOGETHER):
                some = slice(at, at + SCORED_TOGETHER)
                vectors = torch.from_numpy(table.take(ids[some], 0)).float().numpy()
                own[some] = np.einsum("mh,mh->m", vectors, read.take(row[some], 0))
            return own

        yield replace(
            subject,
            way=f"- its dot products, {bits} bits",
            lists_per_s=rate(products, len(rows)),
            memory_mb=table.nbytes / MB,
        )


def _with_16_bits(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its item embeddings rounded to 16 bits."""
    weights = checkpoint.network.state_dict()
    weights["item.weight"] = weights["item.weight"].half().float()
    with torch.device("meta"):
        network = InterestLSTM(checkpoint.network.size)
    network.load_state_dict(weights, assign=True)
    return replace(checkpoint, network=network.eval().requires_grad_(False))


def _load_seconds(checkpoint: Checkpoint) -> float:
    with tempfile.TemporaryDirectory(prefix="interest-bench-") as folder:
        save(checkpoint, folder, "Random weights for the benchmark.\n")
        start = time.process_time()
        load(folder)
        return time.process_time() - start


def _array_bytes(checkpoint: Checkpoint) -> int:
    weights = checkpoint.network.state_dict().values()
    arrays = [getattr(checkpoint.statistics, field.name) for field in fields(Statistics)]
    return sum(array.nbytes for array in [*weights, *arrays] if array is not None)


def _index(
    subject: Figure,
    library: Library,
    checkpoint: Checkpoint,
    queries: np.ndarray,
    exact: np.ndarray,
    build_limit_s: float,
) -> Iterator[Figure]:
    """One library at each of its efforts, or why it was given up."""
    start = time.process_time()
    index, added = _build(library, checkpoint, build_limit_s)
    built = replace(
        subject,
        way=library.name,
        build_s=time.process_time() - start,
        memory_mb=index.size_bytes() / MB,
    )
    if added < subject.items:
        yield replace(built, note=f"given up after {added:,} items")
        return
    twin = None
    if built.build_s is not None and built.build_s < REBUILD_S:
        twin, _ = _build(library, checkpoint, build_limit_s)
    for effort in library.efforts:

        def lists(part: slice, index: ItemIndex = index, effort: int = effort) -> np.ndarray:
            return index.search(queries[part], K, effort)

        found = _in_parts(lists, len(queries))
        rebuilt = None
        if twin is not None:
            again = _in_parts(lambda part, e=effort: twin.search(queries[part], K, e), len(queries))
            rebuilt = bool((again == found).all())
        yield replace(
            built,
            effort=effort,
            lists_per_s=rate(lists, len(queries)),
            recall=recall(found, exact),
            same_when_cut=_same_when_cut(lists, len(queries)),
            same_when_rebuilt=rebuilt,
        )


def _build(library: Library, checkpoint: Checkpoint, limit_s: float) -> tuple[ItemIndex, int]:
    """The index, and how many items it took in within about the time."""
    items = len(checkpoint.vocabulary.item_names)

    def vectors(of: np.ndarray) -> np.ndarray:
        return item_vectors(checkpoint, of)

    start = time.process_time()
    index = library.make(items, checkpoint.hidden + 1, vectors)
    for at in range(1, items + 1, ADDED_TOGETHER):
        if time.process_time() - start > limit_s:
            return index, at - 1
        part = np.arange(at, min(at + ADDED_TOGETHER, items + 1))
        index.add(part, vectors(part))
    return index, items


def rate(ask: Ask, count: int, together: int = TOGETHER) -> float:
    """Lists per second of processor time, median of three rounds of a second or more."""
    rates = []
    for _ in range(ROUNDS):
        done, start, used = 0, time.process_time(), 0.0
        while used < ROUND_S:
            at = done % max(count - together + 1, 1)
            done += min(together, count)
            ask(slice(at, at + together))
            used = time.process_time() - start
        rates.append(done / used)
    return statistics.median(rates)


def _in_parts(ask: Ask, count: int) -> np.ndarray:
    return np.concatenate([ask(slice(at, at + TOGETHER)) for at in range(0, count, TOGETHER)])


def _same_when_cut(ask: Ask, count: int) -> bool:
    """True where the lists of up to 256 rows are the same when asked for in other cuts."""
    count = min(count, TOGETHER)
    ends = np.cumsum(np.resize(CUTS, count))
    starts = [0, *ends[ends < count].tolist()]
    cut = [ask(slice(a, b)) for a, b in zip(starts, [*starts[1:], count], strict=True)]
    return bool((np.concatenate(cut) == ask(slice(0, count))).all())
