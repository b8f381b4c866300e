"""What lists are worth on a real log: the next item, by candidates and by the whole catalogue.

Dimensions: R rows, K list length, I items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from model import interests
from model.checkpoint import Checkpoint, RankingSettings
from model.event_log import read_event_log
from model.fusion import fit_ranking
from model.held_lists import HeldLists, held_lists
from model.metrics import Interval, bootstrap
from model.ranking import rank
from model.state import StateBatch
from model.training import no_progress, train
from stream_app.terminal import Stages
from tests.benchmarks.exact_lists import exact_lists, network_top, recall

TRAINED_SHARE = 0.8
"""Share of a log's time span by events that the checkpoint is trained on."""
LISTS = 4000
TUNED_LISTS = 500
"""Lists that fusion weights are learned from; the others are judged."""
NETWORK_ITEMS = 50
"""Items of an index that would find the network's best without a miss."""
EVERY_CANDIDATE = 10_000
ONLY_NETWORK = RankingSettings(
    lstm=1.0, transition=0.0, category=0.0, popularity=0.0, diversity=0.0
)

Lists = Callable[[StateBatch, np.ndarray, Checkpoint, int], np.ndarray]
"""Lists (R, K) of rows at their times."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint, rows of the time after its training, and the item that came next (R,).

    target is empty for a checkpoint that was not trained.
    """

    checkpoint: Checkpoint
    rows: StateBatch
    now_ms: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class WayHits:
    """One way to make lists.

    recall    of the exact list by the same fusion weights
    gain      in NDCG@K over the candidates, with its 95 % interval over lists
    weights   of the fusion
    """

    way: str
    recall: float
    hit_rate: float
    ndcg: float
    gain: float
    interval: Interval
    weights: dict[str, float]


@dataclass(frozen=True)
class Hits:
    """All ways over the same lists."""

    items: int
    lists: int
    ways: list[WayHits]


def trained_on(path: Path, show: Stages) -> Trained:
    """A checkpoint of the first 80 % of a log's events, and rows before events of the rest."""
    log = read_event_log(path)
    cutoff_ms = int(np.quantile(log.time_ms, TRAINED_SHARE)) // 1000 * 1000
    checkpoint = train(log, progress=show, cutoff_ms=cutoff_ms).checkpoint
    batch, _ = log.batch(checkpoint.vocabulary)
    lists = held_lists(checkpoint, batch, batch.time_ms >= cutoff_ms, LISTS)
    order = np.random.default_rng(0).permutation(len(lists))
    return Trained(checkpoint, lists.rows[order], lists.now_ms[order], lists.target[order])


def hits_of(trained: Trained, k: int, show: Stages) -> Hits:
    """Hits of the candidates, of exact lists, and of the candidates with the network's best items.

    Their fusion weights are learned from other lists of the same time.
    """
    checkpoint = trained.checkpoint
    learned_from, judged = slice(0, TUNED_LISTS), slice(TUNED_LISTS, None)
    rows, now_ms, target = trained.rows[judged], trained.now_ms[judged], trained.target[judged]
    ways: list[tuple[str, Lists, RankingSettings | None]] = [
        ("candidates (worker)", _candidates, None),
        ("candidates and the network's best", _with_network, None),
        ("exact, whole score", exact_lists, None),
        ("exact, network's part", exact_lists, ONLY_NETWORK),
    ]
    learned = _chosen(trained, learned_from)
    found: list[WayHits] = []
    base = np.zeros(0)
    for done, (way, lists, settings) in enumerate(ways):
        show("Hits", done, len(ways))
        tuned = replace(checkpoint, ranking=settings or learned)
        listed = lists(rows, now_ms, tuned, k)
        exact = listed if lists is exact_lists else exact_lists(rows, now_ms, tuned, k)
        gain = (listed == target[:, None]) @ (1 / np.log2(np.arange(listed.shape[1]) + 2))
        base = gain if done == 0 else base
        found.append(
            WayHits(
                way,
                recall(listed, exact),
                float((gain > 0).mean()),
                float(gain.mean()),
                float((gain - base).mean()),
                bootstrap(gain - base),
                asdict(tuned.ranking),
            )
        )
    show("Hits", len(ways), len(ways))
    return Hits(len(checkpoint.vocabulary.item_names), len(target), found)


def _chosen(trained: Trained, part: slice) -> RankingSettings:
    """The fusion weights that training learns from these lists."""
    lists = HeldLists(trained.rows[part], trained.now_ms[part], trained.target[part])
    return fit_ranking(trained.checkpoint, lists, no_progress)


def _candidates(rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint, k: int) -> np.ndarray:
    return rank(rows, now_ms, checkpoint, k).item


def _with_network(
    rows: StateBatch, now_ms: np.ndarray, checkpoint: Checkpoint, k: int
) -> np.ndarray:
    """Lists over the candidates and the items that the network puts first, (R, K)."""
    items = len(checkpoint.vocabulary.item_names)
    out = interests.hidden_readout(rows, checkpoint)
    network = checkpoint.network
    best, _ = network_top(
        out, network.item.weight[1 : items + 1], network.item_bias[1 : items + 1], NETWORK_ITEMS
    )
    candidates = rank(rows, now_ms, checkpoint, EVERY_CANDIDATE).item

    def listed(part: slice, scores: np.ndarray) -> np.ndarray:
        mask = np.zeros(scores.shape, dtype=bool)
        np.put_along_axis(mask, candidates[part], True, 1)
        np.put_along_axis(mask, best[part], True, 1)
        return mask

    return exact_lists(rows, now_ms, checkpoint, k, listed)
