"""Libraries that find the items of highest network score without scoring all of them.

An item's vector is its embedding with its bias behind it, a query the readout of a row with 1
behind it, so that their inner product is the network's next-item logit. Every index is built and
asked by one thread in item order: with more, its graph depends on which thread comes first.

Dimensions: M items of a part, Q queries, D = H + 1, K found items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import Any, Protocol

import numpy as np

from model.checkpoint import Checkpoint

CONNECTIONS = 16
"""Links of an item in a graph; twice as many in its lowest layer."""
BUILD_EFFORT = 100
"""Items that a graph looks at to place a new one."""
GRAPH_EFFORTS = (64, 256)
"""Items that a graph looks at for one query, at least."""
LIST_EFFORTS = (8, 32)
"""Lists that an inverted file reads for one query."""
LISTS = 4.0
"""Lists of an inverted file, times the root of its items."""
TRAINED_ITEMS = 64
"""Items for each list that its centre is found by, at most."""
SEED = 100


class ItemIndex(Protocol):
    """What the benchmark asks of an index; items are numbered as in the vocabulary."""

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        """Adds items (M,) with vectors (M, D)."""

    def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        """The items (Q, K) found for queries (Q, D), best first; below 1 where there are fewer."""

    def size_bytes(self) -> int:
        """Bytes of the stored index, which are about those that it takes in memory."""


@dataclass(frozen=True)
class Library:
    """One way to index.

    distribution, package   what has to be installed, and the module that it brings
    make                    of the number of items, D, and a function that gives their vectors
    """

    name: str
    distribution: str
    package: str
    efforts: tuple[int, ...]
    make: Callable[[int, int, Callable[[np.ndarray], np.ndarray]], ItemIndex]

    @property
    def installed(self) -> bool:
        """True where the package is there."""
        return find_spec(self.package) is not None


def item_vectors(checkpoint: Checkpoint, items: np.ndarray) -> np.ndarray:
    """Embeddings and biases of items (M,), (M, D) float32."""
    network = checkpoint.network
    weight, bias = network.item.weight.numpy(), network.item_bias.numpy()
    return np.concatenate((weight[items], bias[items, None]), 1)


def queries_of(out: np.ndarray) -> np.ndarray:
    """Queries (Q, D) of readouts (Q, H)."""
    return np.concatenate((out, np.ones((len(out), 1), np.float32)), 1)


class _USearch:
    def __init__(self, dimensions: int, dtype: str) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=dimensions,
            metric="ip",
            dtype=dtype,
            connectivity=CONNECTIONS,
            expansion_add=BUILD_EFFORT,
            enable_key_lookups=False,
        )

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        self._index.add(items, vectors, threads=1)

    def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        self._index.expansion_search = effort
        found = self._index.search(queries, k, threads=1)
        items = np.atleast_2d(found.keys).astype(np.int64)
        counts = np.atleast_1d(getattr(found, "counts", len(found)))
        return np.where(np.arange(items.shape[1]) < counts[:, None], items, 0)

    def size_bytes(self) -> int:
        return self._index.serialized_length


class _Hnswlib:
    def __init__(self, items: int, dimensions: int) -> None:
        import hnswlib

        self._index = hnswlib.Index(space="ip", dim=dimensions)
        self._index.init_index(items, M=CONNECTIONS, ef_construction=BUILD_EFFORT, random_seed=SEED)

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        self._index.add_items(vectors, items, num_threads=1)

    def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        self._index.set_ef(effort)
        items, _ = self._index.knn_query(queries, k, num_threads=1)
        return items.astype(np.int64)

    def size_bytes(self) -> int:
        return self._index.index_file_size()


class _Faiss:
    """An index of faiss; items come in order, and its own numbers start at 0."""

    def __init__(self, index: Any, effort: Callable[[Any, int], None]) -> None:
        self._index = index
        self._set_effort = effort

    def add(self, items: np.ndarray, vectors: np.ndarray) -> None:
        self._index.add(vectors)

    def search(self, queries: np.ndarray, k: int, effort: int) -> np.ndarray:
        self._set_effort(self._index, effort)
        return self._index.search(queries, k)[1] + 1

    def size_bytes(self) -> int:
        import faiss

        return faiss.serialize_index(self._index).nbytes


def _faiss_graph(
    items: int, dimensions: int, vectors: Callable[[np.ndarray], np.ndarray]
) -> ItemIndex:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(dimensions, CONNECTIONS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = BUILD_EFFORT

    def effort(index: Any, effort: int) -> None:
        index.hnsw.efSearch = effort

    return _Faiss(index, effort)


def _faiss_lists(
    items: int, dimensions: int, vectors: Callable[[np.ndarray], np.ndarray]
) -> ItemIndex:
    import faiss

    faiss.omp_set_num_threads(1)
    lists = max(1, round(LISTS * sqrt(items)))
    random = np.random.default_rng(SEED)
    sample = np.sort(random.permutation(items)[: lists * TRAINED_ITEMS]) + 1
    centres = faiss.IndexFlatIP(dimensions)
    index = faiss.IndexIVFFlat(centres, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    index.cp.max_points_per_centroid = TRAINED_ITEMS
    index.train(vectors(sample))

    def effort(index: Any, effort: int) -> None:
        index.nprobe = effort

    return _Faiss(index, effort)


LIBRARIES = (
    Library(
        "usearch graph", "usearch", "usearch", GRAPH_EFFORTS, lambda i, d, v: _USearch(d, "f32")
    ),
    Library(
        "usearch graph, 16 bits",
        "usearch",
        "usearch",
        GRAPH_EFFORTS,
        lambda i, d, v: _USearch(d, "f16"),
    ),
    Library("faiss graph", "faiss-cpu", "faiss", GRAPH_EFFORTS, _faiss_graph),
    Library("faiss inverted file", "faiss-cpu", "faiss", LIST_EFFORTS, _faiss_lists),
    Library("hnswlib graph", "hnswlib", "hnswlib", GRAPH_EFFORTS, lambda i, d, v: _Hnswlib(i, d)),
)
