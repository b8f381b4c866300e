"""A checkpoint directory: weights, vocabulary, frozen statistics and settings of one training.

=====================  ===========================================================================
model.safetensors      network weights and the arrays of ``Statistics``, named as their fields
                       (indices as int32)
config.json            format version, sizes, ``DriftSettings``, ``RankingSettings``, horizon, ...
vocabulary.json        item and category names in index order
card.md                data, hash, period, figures: for people
=====================  ===========================================================================
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from model.errors import CheckpointError, StateError
from model.grouping import GROUPS
from model.interest_lstm import InterestLSTM, NetworkSize
from model.spline_calibration import KNOTS, PARAMETERS, identity
from model.state import MAX_ROW_BYTES, RATES, row_dtype
from model.vocabulary import Vocabulary

FORMAT_VERSION = 5
STEP_MODULES = frozenset(
    ("item", "category", "kind", "query", "gap", "hour", "weekday", "feature", "cell")
)
"""Parts of the network that move the hidden state; the others only read it."""
NEAR_TABLES = frozenset(("near_category", "near_item_category"))
"""Weights of the network that are indices of categories."""
EVENT_BUCKETS = np.array([3, 6, 11, 31, 101])
"""Of the number of a user's events: where each bucket after the first begins."""
LOOK_BACK = 8
"""Recent steps that the ranking looks at."""
MAX_ITEMS = 2**24
MAX_NEIGHBOURS = 256
MAX_TOPS = 1024
MAX_NUMBER = 1e4
"""Of a weight: the sums of the network stay far from infinity."""
MAX_SETTING = 1e12
"""Of a setting or statistic."""
MAX_BINS = 64
OPTIONAL = ("reliability", "category_rate")
"""Statistics that a checkpoint may lack."""


@dataclass(frozen=True)
class DriftSettings:
    """The threshold of the drift test and what it was calibrated to.

    threshold             alarm when the statistic reaches it
    average_run_length    mean steps between alarms measured on users with shuffled sessions
    run_length_low        lower and upper end of its 95 % interval over users
    run_length_high
    false_alarms          alarms per 1,000 users and 30 days measured there
    history_low           alarms per 1,000 tested steps on real users, who do change: the band that
    history_high          ten parts of the history span; see calibration.py
    """

    threshold: float = 4.0
    average_run_length: float | None = None
    run_length_low: float | None = None
    run_length_high: float | None = None
    false_alarms: float | None = None
    history_low: float | None = None
    history_high: float | None = None


@dataclass(frozen=True)
class RankingSettings:
    """Weights that fuse the parts of an item's score; see ranking.py.

    lstm, transition, category, alike, popularity, trend, seen, last   weight of each part
    follows, together, again    what a neighbour and the item itself count in the transition part,
                                by how many steps back the user came to it, newest first
    diversity                   lambda of the calibrated re-ranking, from 0 (none) to below 1
    """

    lstm: float = 1.0
    transition: float = 1.0
    category: float = 0.2
    alike: float = 0.0
    popularity: float = 0.1
    trend: float = 0.0
    seen: float = 0.0
    last: float = 0.0
    follows: tuple[float, ...] = tuple(100 * 0.8**j for j in range(LOOK_BACK))
    together: tuple[float, ...] = tuple(200 * 0.8**j for j in range(LOOK_BACK))
    again: tuple[float, ...] = (0.0,) * LOOK_BACK
    diversity: float = 0.0


@dataclass(frozen=True)
class Statistics:
    """Frozen counts of the training log (I items, C categories, K neighbours, T top items).

    item_category       (I,) int64     category of an item, 0 = unknown
    category_group      (C,) int64     group of a category, for the drift test; see grouping.py
    item_log_popularity (I,) float32   log of the item's share of all steps, smoothed
    item_log_trend      (I,) float32   the same of the log's last horizon, recency-weighted
    item_again          (I,) float32   share of the item itself in what followed it
    neighbour_item      (I, K) int64   other items near the item in users' sequences, best first,
                                       0 = none
    neighbour_follows   (I, K) float32 their shares of what followed, recency-weighted
    neighbour_together  (I, K) float32 cosine of their counts with the item's, in either order
    category_item       (C, T) int64   most popular items of a category, 0 = none
    trending_item       (T,) int64     most popular items of the log's last days
    half_life_s         (R,) float64   half-lives of the decayed counts
    repeat_weight       (1,) float64   what a step adds to them whose category the session has had
                                       before, above 0 and at most 1; the first step adds 1
    knot                (5,) float32   where the maps of the category logits bend, ascending
    calibration         (6, 7) float32 slopes and shift of the map of the category logits, by
                                       event-count bucket (0-2, 3-5, 6-10, 11-30, 31-100, above 100
                                       events); see spline_calibration.py
    category_rate       (C,) float32   how often a category is touched within the horizon after a
                                       step; None where the log was too short to tell
    reliability         (B, 4) float32 how far the observed share of pairs with like probabilities
                                       lies from them, in B bins: mean probability, ascending;
                                       standard deviation in log-odds; cases; hits. None where it
                                       was not measured; see reliability.py
    """

    item_category: np.ndarray
    category_group: np.ndarray
    item_log_popularity: np.ndarray
    item_log_trend: np.ndarray
    item_again: np.ndarray
    neighbour_item: np.ndarray
    neighbour_follows: np.ndarray
    neighbour_together: np.ndarray
    category_item: np.ndarray
    trending_item: np.ndarray
    half_life_s: np.ndarray
    category_rate: np.ndarray | None = None
    knot: np.ndarray = field(default_factory=lambda: np.zeros(KNOTS, np.float32))
    calibration: np.ndarray = field(default_factory=lambda: identity(len(EVENT_BUCKETS) + 1))
    repeat_weight: np.ndarray = field(default_factory=lambda: np.ones(1))
    reliability: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))

    @cached_property
    def longest_category(self) -> int:
        """How many popular items the category with the most of them has here."""
        return int(np.count_nonzero(self.category_item.any(0)))


@dataclass(frozen=True)
class Checkpoint:
    """Everything the transition and the readouts need of one training.

    version          short hash of weights, statistics and settings, as outputs name it
    number           32 bits of a hash of what rows depend on, as rows carry it
    horizon_s        length of the predicted window in seconds
    state_ttl_s      seconds without an event after which a user's state starts anew, None for never
    trained_until_s  end of the log that it was trained on, in seconds since 1970, None if unknown
    """

    version: str
    number: int
    network: InterestLSTM
    vocabulary: Vocabulary
    statistics: Statistics
    drift: DriftSettings
    ranking: RankingSettings
    horizon_s: int
    recommend_every: int = 5
    top_k: int = 10
    state_ttl_s: int | None = None
    trained_until_s: int | None = None

    @property
    def hidden(self) -> int:
        """Hidden size H."""
        return self.network.size.hidden


def build_checkpoint(
    network: InterestLSTM,
    vocabulary: Vocabulary,
    statistics: Statistics,
    drift: DriftSettings,
    ranking: RankingSettings,
    horizon_s: int,
    recommend_every: int = 5,
    top_k: int = 10,
    trained_until_s: int | None = None,
) -> Checkpoint:
    """A checkpoint of these parts, named after their content; its network learns no more."""
    network.eval().requires_grad_(False)
    parts = (network, vocabulary, statistics, drift, ranking)
    numbers = horizon_s, recommend_every, top_k
    return renamed(Checkpoint("", 0, *parts, *numbers, trained_until_s=trained_until_s))


def renamed(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with version and number computed anew from its content."""
    return replace(
        checkpoint, version=_digest(checkpoint)[:12], number=int(_row_digest(checkpoint)[:8], 16)
    )


def with_drift(checkpoint: Checkpoint, drift: DriftSettings) -> Checkpoint:
    """The checkpoint with another setting of the drift test; its rows stay valid."""
    return renamed(replace(checkpoint, drift=drift))


def save(checkpoint: Checkpoint, directory: Path | str, card: str) -> None:
    """Writes the four files of a checkpoint directory; equal checkpoints give equal files."""
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        config = {"version": checkpoint.version, **_config(checkpoint)}
        (directory / "model.safetensors").write_bytes(_tensors(checkpoint))
        (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        (directory / "vocabulary.json").write_text(checkpoint.vocabulary.to_json(), "utf-8")
        (directory / "card.md").write_text(card, "utf-8")
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint cannot be written to {directory} ({error.strerror}); "
            "name a directory that can be written."
        ) from error


def load(directory: Path | str) -> Checkpoint:
    """The checkpoint of a directory; runs no code from it.

    CheckpointError when a file is missing, of another format version, out of bounds, or when the
    content is not what its version names.
    """
    directory = Path(directory)
    config = _read_config(directory)
    names = _read(directory / "vocabulary.json").decode("utf-8", "replace")
    vocabulary = Vocabulary.from_json(names)
    try:
        size = NetworkSize(**config["network"])
        drift = DriftSettings(**config["drift"])
        ranking = _ranking(config["ranking"])
        numbers = [config[name] for name in ("horizon_s", "recommend_every", "top_k")]
        trained_until_s = config.get("trained_until_s")
    except (KeyError, TypeError) as error:
        raise _damaged(directory, "config.json does not describe a model") from error
    _check_settings(directory, size, vocabulary, drift, ranking, numbers, trained_until_s)
    try:
        tensors = load_tensors(_read(directory / "model.safetensors"))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(directory, "model.safetensors cannot be read") from error
    known = [f.name for f in fields(Statistics) if f.name in tensors or f.name not in OPTIONAL]
    missing = [name for name in known if name not in tensors]
    if missing:
        raise _damaged(directory, f"model.safetensors lacks {missing[0]}")
    statistics = Statistics(**{name: _widened(tensors.pop(name)) for name in known})
    _check_statistics(directory, statistics, size)
    network = _network(directory, size, tensors)
    parts = (network, vocabulary, statistics, drift, ranking)
    horizon_s, recommend_every, top_k = numbers
    checkpoint = build_checkpoint(*parts, horizon_s, recommend_every, top_k, trained_until_s)
    if checkpoint.version != config["version"]:
        raise _damaged(directory, f"its content is not that of version {config['version']}")
    return checkpoint


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    drift, until = asdict(checkpoint.drift), checkpoint.trained_until_s
    for name in ("history_low", "history_high"):
        if drift[name] is None:  # what is not known leaves a checkpoint's content as it is
            del drift[name]
    return {
        "format": FORMAT_VERSION,
        "network": checkpoint.network.size.to_dict(),
        "drift": drift,
        "ranking": asdict(checkpoint.ranking),
        "horizon_s": checkpoint.horizon_s,
        "recommend_every": checkpoint.recommend_every,
        "top_k": checkpoint.top_k,
        **({} if until is None else {"trained_until_s": until}),
    }


def _tensors(checkpoint: Checkpoint) -> bytes:
    arrays = {k: v.detach().cpu().numpy() for k, v in checkpoint.network.state_dict().items()}
    for f in fields(Statistics):
        array = getattr(checkpoint.statistics, f.name)
        if array is None or (f.name in OPTIONAL and not len(array)):
            continue  # what is not known leaves a checkpoint's content as it is
        arrays[f.name] = array.astype(np.int32) if array.dtype == np.int64 else array
    return save_tensors({k: np.ascontiguousarray(v) for k, v in arrays.items()})


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.int64) if array.dtype == np.int32 else array


def _digest(checkpoint: Checkpoint) -> str:
    digest = sha256(_tensors(checkpoint))
    digest.update(json.dumps(_config(checkpoint)).encode())
    digest.update(checkpoint.vocabulary.to_json().encode())
    return digest.hexdigest()


def _row_digest(checkpoint: Checkpoint) -> str:
    """Hash of what a row's content means: encoder and cell, vocabulary, how counts grow and decay.

    A new drift threshold or readout leaves the rows as they are.
    """
    digest = sha256(checkpoint.vocabulary.to_json().encode())
    digest.update(checkpoint.statistics.half_life_s.tobytes())
    digest.update(checkpoint.statistics.repeat_weight.tobytes())
    for name, tensor in sorted(checkpoint.network.state_dict().items()):
        if name.split(".")[0] in STEP_MODULES:
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); name a checkpoint directory that "
            "`interest-stream train` wrote."
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read(directory / "config.json"))
    except (ValueError, RecursionError) as error:
        raise _damaged(directory, "config.json is no JSON") from error
    if not isinstance(config, dict) or not isinstance(config.get("version"), str):
        raise _damaged(directory, "config.json does not describe a model")
    if config.get("format") != FORMAT_VERSION:
        raise CheckpointError(
            f"The checkpoint {directory} has format {config.get('format')} and this program reads "
            f"format {FORMAT_VERSION}; train it again."
        )
    return config


def _ranking(values: dict[str, Any]) -> RankingSettings:
    settings = RankingSettings(**values)
    curves: dict[str, Any] = {}
    for name in ("follows", "together", "again"):
        if not isinstance(getattr(settings, name), (list, tuple)):
            raise TypeError(f"{name} is no list")
        curves[name] = tuple(getattr(settings, name))
    return replace(settings, **curves)


def _network(directory: Path, size: NetworkSize, tensors: dict[str, np.ndarray]) -> InterestLSTM:
    with torch.device("meta"):  # takes no memory: what is stated may be far more than what is there
        network = InterestLSTM(size)
    for name, array in tensors.items():
        if name in NEAR_TABLES:
            bound = size.categories
            if array.dtype != np.int64 or (
                array.size and not 0 <= array.min() <= array.max() < bound
            ):
                raise _damaged(directory, f"its weight {name} is out of bounds")
        elif array.dtype != np.float32 or not (np.abs(array) <= MAX_NUMBER).all():
            raise _damaged(directory, f"its weight {name} is out of bounds")
    try:
        weights = {name: torch.from_numpy(array.copy()) for name, array in tensors.items()}
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise _damaged(directory, "its weights are not of the sizes it states") from error
    if not (network.near_share >= 0).all() or not (network.near_item_share >= 0).all():
        raise _damaged(directory, "what is near a category or an item has a negative share")
    network.eval().requires_grad_(False)
    return network


def _check_settings(
    directory: Path,
    size: NetworkSize,
    vocabulary: Vocabulary,
    drift: DriftSettings,
    ranking: RankingSettings,
    numbers: list[Any],
    trained_until_s: Any,
) -> None:
    sizes = list(size.to_dict().values())
    if not (trained_until_s is None or type(trained_until_s) is int):
        raise _damaged(directory, "config.json has a time that is no number")
    if not all(type(n) is int and 0 < n <= 2**31 for n in [*sizes, *numbers]):
        raise _damaged(directory, "config.json has a size out of bounds")
    try:
        row_dtype(min(size.hidden, MAX_ROW_BYTES))
    except StateError as error:
        raise _damaged(directory, "config.json has a size out of bounds") from error
    if size.items > MAX_ITEMS or size.kinds != NetworkSize.kinds:
        raise _damaged(directory, "config.json has a size out of bounds")
    wanted = (vocabulary.items, vocabulary.categories, vocabulary.query_buckets)
    if (size.items, size.categories, size.query_buckets) != wanted:
        raise _damaged(directory, "vocabulary and network have different sizes")
    curves = [ranking.follows, ranking.together, ranking.again]
    single = [x for x in asdict(ranking).values() if not isinstance(x, tuple)]
    weights = [drift.threshold, *single, *(x for curve in curves for x in curve)]
    stated = [x for x in (*asdict(drift).values(), trained_until_s) if x is not None]
    # A comparison with NaN is false, and one with an integer of any length is exact.
    numbers = [*weights, *stated]
    if not all(isinstance(x, (int, float)) and abs(x) <= MAX_SETTING for x in numbers):
        raise _damaged(directory, "config.json has a setting out of bounds")
    if not 0 <= ranking.diversity < 1:
        raise _damaged(directory, "its diversity is not from 0 to below 1")
    if not all(len(curve) == LOOK_BACK and min(curve) >= 0 for curve in curves):
        raise _damaged(directory, f"config.json lacks {LOOK_BACK} weights from 0 by step back")


def _check_statistics(directory: Path, statistics: Statistics, size: NetworkSize) -> None:
    items, categories, s = size.items, size.categories, statistics
    neighbours = s.neighbour_item.shape[1:]
    tops = s.trending_item.shape
    expected: dict[str, tuple[tuple[int, ...], str, int | None]] = {
        "item_category": ((items,), "int64", categories),
        "category_group": ((categories,), "int64", GROUPS),
        "item_log_popularity": ((items,), "float32", None),
        "item_log_trend": ((items,), "float32", None),
        "item_again": ((items,), "float32", None),
        "neighbour_item": ((items, *neighbours), "int64", items),
        "neighbour_follows": ((items, *neighbours), "float32", None),
        "neighbour_together": ((items, *neighbours), "float32", None),
        "category_item": ((categories, *tops), "int64", items),
        "trending_item": (tops, "int64", items),
        "half_life_s": ((RATES,), "float64", None),
        "knot": ((KNOTS,), "float32", None),
        "calibration": ((len(EVENT_BUCKETS) + 1, PARAMETERS), "float32", None),
        "repeat_weight": ((1,), "float64", None),
        "reliability": ((*s.reliability.shape[:1], 4), "float32", None),
    }
    if s.category_rate is not None:
        expected["category_rate"] = ((categories,), "float32", None)
    for name, (shape, dtype, bound) in expected.items():
        array = getattr(s, name)
        if array.shape != shape or array.dtype != dtype or len(neighbours) != 1 or len(tops) != 1:
            raise _damaged(directory, f"{name} is not {dtype} of shape {shape}")
        if bound is not None and array.size and not (array.min() >= 0 and array.max() < bound):
            raise _damaged(directory, f"{name} has an index out of bounds")
        if bound is None and not (np.abs(array) <= MAX_SETTING).all():
            raise _damaged(directory, f"{name} is out of bounds")
    if not (0 < neighbours[0] <= MAX_NEIGHBOURS and 0 < tops[0] <= MAX_TOPS):
        raise _damaged(directory, "it has too many or too few neighbours or popular items")
    if not (s.half_life_s >= 1).all():
        raise _damaged(directory, "a half-life is too small")
    if not ((np.diff(s.knot) >= 0).all() and (s.calibration[:, :-1] >= 0).all()):
        raise _damaged(directory, "its calibration does not rise")
    if not all((np.abs(array) <= MAX_NUMBER).all() for array in (s.knot, s.calibration)):
        raise _damaged(directory, "its calibration is out of bounds")
    if not 0 < s.repeat_weight[0] <= 1:
        raise _damaged(directory, "its repeat_weight is not above 0 and at most 1")
    mean = s.reliability[:, 0]
    ascends = len(mean) <= MAX_BINS and (mean <= 1).all() and (np.diff(mean) > 0).all()
    if not (ascends and (s.reliability >= 0).all()):
        raise _damaged(directory, "its reliability is not one of ascending probabilities")
    if not all((w >= 0).all() for w in (s.neighbour_follows, s.neighbour_together, s.item_again)):
        raise _damaged(directory, "a neighbour has a negative weight")
    if s.category_rate is not None and not (
        (s.category_rate >= 0).all() and (s.category_rate <= 1).all()
    ):
        raise _damaged(directory, "category_rate is out of bounds")


def _damaged(directory: Path, what: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint {directory} is damaged: {what}; train it again.")
