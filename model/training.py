"""Training on an event log: everything a checkpoint holds, chosen by a later slice of the log.

1. the log before the cut-off, its vocabulary and its horizon
2. how steps are counted and counters fitted, by what they give on all but the last slice
3. the network on all but the last slice, early stopping on that slice
4. how counters, LSTM, and what touched categories and recent steps say of others are combined, by
   the same slice
5. calibration, intervals and fusion weights, by that slice, on rows that the transition makes
6. statistics and counters on the whole log; the network again where ``refit`` says so; the drift
   threshold
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal

import numpy as np
import torch

from model import tuning
from model.calibration import calibrate
from model.card import drift_line
from model.checkpoint import (
    Checkpoint,
    DriftSettings,
    RankingSettings,
    Statistics,
    build_checkpoint,
)
from model.cooccurrence import CoOccurrence, count_together
from model.counting import by_user, count_statistics
from model.errors import EventLogError
from model.event_log import EventLog
from model.events import EventBatch
from model.held_lists import HeldLists, held_lists
from model.interest_lstm import DAY_S, InterestLSTM, NetworkSize
from model.learning import (
    LearningSettings,
    Progress,
    Validation,
    fit_counters,
    fit_network,
    next_items,
)
from model.vocabulary import Vocabulary
from model.windows import Decay, UserSteps, Windows, cutoff_windows, draw_windows

HALF_LIVES = ((1 / 30, 7 / 30, 1.0), (1 / 10, 1.0, 4.0), (1 / 3, 2.0, 12.0))
"""Sets that are tried, in horizons: some shops' interests last for years."""
REPEAT_WEIGHTS = (0.3, 1.0, 0.1)
"""Of a step whose category the session has had before; a quick training takes the first."""
SMOOTHINGS = (1.0, 0.1, 3.0, 10.0)
"""Users who are taken to touch every category; a quick training takes the first number."""
TREND_RATES = (0.005, 0.0005)
"""First learning rate of the trend of each category; a quick training takes the first."""
SHORT_LOG_HORIZONS = 2
"""A log shorter than so many horizons is trained on a fifth of its span instead."""
UNTRAINED_HIDDEN = 8
LATE_SHARE = 0.1
"""The later slice holds at least this share of the log's events, and at least one horizon."""


TOO_SHORT = "The log holds fewer than two moments to learn from; give a longer one."


@dataclass(frozen=True)
class TrainingConfig:
    """What a training is made of; equal configurations and logs give equal files.

    horizon_s           length of the predicted window
    min_item_count      rarer items share hashed buckets
    windows             windows the category readout learns from, at most
    left_out            tables of the encoder that stay zero: what they are worth is measured so
    held_out            what early stopping and fusion weights go by: "late", the later slice,
                        or "last", each user's last event
    lists               lists that the fusion weights are learned from, at most
    refit               fit the network again with the later slice included
    average_run_length  mean steps between false drift alarms that the threshold is set to
    target              event type whose categories are predicted, None for all
    half_lives          sets of half-lives of the counts that are tried, in horizons
    repeat_weights      what a step counts whose category the session has had: those that are tried
    smoothings          users who are taken to touch every category: numbers that are tried
    trend_rates         learning rates of the counters' trend that are tried
    calibration_steps   shuffled steps that the threshold is set on, at most
    diversity           lambda of the calibrated re-ranking of lists, 0 for none; see ranking.py
    """

    seed: int = 0
    hidden: int = 64
    horizon_s: int = 30 * DAY_S
    min_item_count: int = 1
    max_items: int = 200_000
    windows: int = 20_000
    lists: int = 4000
    left_out: tuple[str, ...] = ()
    held_out: Literal["late", "last"] = "late"
    refit: bool = True
    average_run_length: int = 1000
    calibration_steps: int = 400_000
    diversity: float = 0.0
    recommend_every: int = 5
    threads: int = 1
    target: int | None = None
    half_lives: Sequence[tuple[float, ...]] = HALF_LIVES
    repeat_weights: Sequence[float] = REPEAT_WEIGHTS
    smoothings: Sequence[float] = SMOOTHINGS
    trend_rates: Sequence[float] = TREND_RATES
    learning: LearningSettings = field(default_factory=LearningSettings)

    @classmethod
    def quick(cls, seed: int = 0) -> TrainingConfig:
        """About 10 s for 100,000 events on an idle core: for the demo."""
        learning = LearningSettings(
            max_steps=200,
            counter_steps=150,
            learning_rate=5e-3,
            dropout=0.1,
            sampled_above=5000,
            negatives=1024,
            validate_every=100,
        )
        return cls(
            seed=seed,
            max_items=20_000,
            windows=8000,
            lists=1000,
            refit=False,
            half_lives=HALF_LIVES[:1],
            repeat_weights=REPEAT_WEIGHTS[:1],
            smoothings=SMOOTHINGS[:1],
            trend_rates=TREND_RATES[:1],
            learning=learning,
            calibration_steps=50_000,
        )


@dataclass(frozen=True)
class Trained:
    """A checkpoint, the card that goes with it, and the figures of the later slice.

    draft   the checkpoint of the events that were not held out
    lists   the rows, of that checkpoint, just before the events that were
    late_s  the start of the later slice, in seconds since 1970
    """

    checkpoint: Checkpoint
    card: str
    figures: dict[str, float]
    draft: Checkpoint
    lists: HeldLists
    late_s: int


def no_progress(what: str, done: int, total: int) -> None:
    """Tells nobody."""


def train(
    log: EventLog,
    config: TrainingConfig | None = None,
    progress: Progress = no_progress,
    cutoff_ms: int | None = None,
    source: str = "an event log",
) -> Trained:
    """Trains on the events before ``cutoff_ms`` (all without one); looks at no later one.

    EventLogError when the log holds too little to learn from. ``source`` names the data in the
    card; ``progress`` is called with what is being done, how far, and of how much.
    """
    config = config or TrainingConfig()
    if cutoff_ms is not None:
        log = log.before(cutoff_ms)
    if len(log) < 2 or log.time_ms.min() == log.time_ms.max():
        raise EventLogError(TOO_SHORT)
    with _single_threaded(config.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _train(log, config, progress, source)


@contextmanager
def _single_threaded(threads: int) -> Iterator[None]:
    """A fixed number of threads: sums in another order would give other files."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def horizon_of(log: EventLog, horizon_s: int) -> int:
    """The horizon itself, or a fifth of the log's span when the log is shorter than two."""
    span_s = int(log.time_ms.max() - log.time_ms.min()) // 1000
    return horizon_s if span_s >= SHORT_LOG_HORIZONS * horizon_s else max(span_s // 5, 1)


def make_vocabulary(log: EventLog, config: TrainingConfig) -> Vocabulary:
    """The names of a log's rows (not of rows that were taken away)."""
    items = np.bincount(log.item[log.item >= 0], minlength=len(log.items))
    categories = np.bincount(log.category[log.category >= 0], minlength=len(log.categories))
    return Vocabulary.build(
        {name: int(n) for name, n in zip(log.items, items, strict=True) if n},
        {name: int(n) for name, n in zip(log.categories, categories, strict=True) if n},
        min_item_count=config.min_item_count,
        max_items=config.max_items,
    )


@dataclass(frozen=True)
class _Counting:
    """How steps are counted and the counters fitted; see ``TrainingConfig`` for what is tried."""

    repeat_weight: float
    half_lives: tuple[float, ...]
    smoothing: float
    trend_rate: float


@dataclass(frozen=True)
class _Material:
    """The log as the parts of a training see it; times in seconds.

    horizon_s  length of the window that is predicted
    window_s   length of those that are learned from: the horizon, or half of what lies before the
               later slice where that is shorter. Calibration, which goes by windows of the horizon,
               makes one of the other.
    """

    vocabulary: Vocabulary
    batch: EventBatch
    names: list[str]
    horizon_s: int
    window_s: int
    late_s: int
    end_s: int
    counting: _Counting

    @property
    def decay(self) -> Decay:
        """How steps are counted, in seconds."""
        lives = np.array(self.counting.half_lives) * self.horizon_s
        return Decay(lives, self.counting.repeat_weight)


def _material(log: EventLog, config: TrainingConfig) -> _Material:
    vocabulary = make_vocabulary(log, config)
    batch, names = log.batch(vocabulary)
    horizon_s = horizon_of(log, config.horizon_s)
    end_s = int(log.time_ms.max()) // 1000 + 1
    late_s = min(end_s - horizon_s, int(np.quantile(log.time_ms, 1 - LATE_SHARE)) // 1000)
    window_s = min(horizon_s, max((late_s - int(log.time_ms.min()) // 1000) // 2, 1))
    first = _Counting(*(tried[0] for tried in _tried(config).values()))
    return _Material(vocabulary, batch, names, horizon_s, window_s, late_s, end_s, first)


def _tried(config: TrainingConfig) -> dict[str, Sequence[Any]]:
    """What is tried of each field of ``_Counting``, in the order in which they are chosen."""
    return {
        "repeat_weight": config.repeat_weights,
        "half_lives": config.half_lives,
        "smoothing": config.smoothings,
        "trend_rate": config.trend_rates,
    }


def _train(log: EventLog, config: TrainingConfig, progress: Progress, source: str) -> Trained:
    m = _material(log, config)
    learning = config.learning
    whole = UserSteps(by_user(m.batch), config.target)
    held = m.batch.time_ms >= m.late_s * 1000
    if config.held_out == "last":
        held = log.last_events()
    early_batch = m.batch.take(~held)
    if len(early_batch) == 0:
        raise EventLogError(TOO_SHORT)
    early = UserSteps(by_user(early_batch), config.target)
    held_steps = held[np.argsort(m.batch.user, kind="stable")]
    known: dict[_Counting, tuple[float, float]] = {}
    for name, values in _tried(config).items():
        tried = [replace(m, counting=replace(m.counting, **{name: each})) for each in values]
        m = _best_counters(tried, known, early, whole, held_steps, config, progress)
    network = _network(m.vocabulary, config)

    random = np.random.default_rng(config.seed)
    windows = _windows(early, m.late_s, m, config, random)
    _fit_counters(network, windows, early, m, learning, random, progress)
    validation = _validation(whole, held_steps, m, random)
    start = validation.loss(network, learning)
    kept = fit_network(network, early, windows, learning, random, validation, progress)
    best = validation.loss(network, learning)
    together = _together(early_batch, m)
    combination = tuning.fit_combination(network, together, validation, random, progress)
    tuning.combine(network, combination)
    tuning.set_tables(network, together, combination.profile, windows)
    early_statistics = _counted(early_batch, m)
    draft = _checkpoint(network, early_statistics, m, config)
    progress("tuning", 0, 3)
    late = tuning.late_rows(draft, m.batch, len(m.names), m.late_s, config.seed, config.target)
    early_statistics = tuning.fit_calibration(draft, late)
    lists = held_lists(draft, m.batch, held, config.lists, config.seed)
    draft = replace(draft, statistics=early_statistics)
    reliability = tuning.interest_reliability(draft, late)
    ranking, ndcg = tuning.choose_ranking(draft, lists, progress)

    progress("tuning", 1, 3)
    windows = _windows(whole, m.end_s, m, config, random)
    if config.refit:
        network = _network(m.vocabulary, config)
        steps = max(1, round(kept * len(whole) / max(len(early), 1)))
        _fit_counters(network, windows, whole, m, learning, random, progress)
        again = replace(learning, max_steps=steps)
        fit_network(network, whole, windows, again, random, None, progress)
        tuning.combine(network, combination)
    elif combination.lstm == 0:  # the trend of what came before the later slice goes with nobody
        _fit_counters(network, windows, whole, m, learning, random, progress)
        tuning.combine(network, combination)
    tuning.set_tables(network, _together(m.batch, m), combination.profile, windows)
    statistics = _counted(m.batch, m)
    statistics = replace(
        statistics,
        knot=early_statistics.knot,
        calibration=early_statistics.calibration,
        reliability=reliability,
    )
    checkpoint = _checkpoint(network, statistics, m, config, ranking=ranking)
    progress("tuning", 2, 3)
    wanted = config.average_run_length
    most = config.calibration_steps
    drift = calibrate(m.batch, checkpoint, wanted, config.seed, max_steps=most)
    checkpoint = _checkpoint(network, statistics, m, config, ranking=ranking, drift=drift)
    progress("tuning", 3, 3)
    figures = {
        "next-item cross-entropy, before": start[0],
        "next-item cross-entropy, after": best[0],
        "window loss, counters alone": start[1],
        "window loss, with the LSTM": best[1],
        "share of the LSTM's interest kept": combination.lstm,
        "updates kept": float(kept),
        "weight of the profile": combination.profile,
        "scale of the trend": combination.trend_scale,
        "users added to each category": m.counting.smoothing,
        "learning rate of the trend": m.counting.trend_rate,
        "next-item NDCG@10 of the lists": ndcg,
        "spread of observed shares beyond chance, in log-odds": _mean(reliability[:, 1]),
    }
    card = _card(log, config, m, checkpoint, figures, source)
    return Trained(checkpoint, card, figures, replace(draft, ranking=ranking), lists, m.late_s)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _best_counters(
    tried: Sequence[_Material],
    known: dict[_Counting, tuple[float, float]],
    early: UserSteps,
    whole: UserSteps,
    held: np.ndarray,
    config: TrainingConfig,
    progress: Progress,
) -> _Material:
    """The material whose counters do best on the later slice, relative to the first's.

    ``known`` keeps the merits of what is tried again.
    """
    if len(tried) == 1:
        return tried[0]
    for m in tried:
        if m.counting in known:
            continue
        random = np.random.default_rng(config.seed)
        network = _network(m.vocabulary, config)
        windows = _windows(early, m.late_s, m, config, random)
        _fit_counters(network, windows, early, m, config.learning, random, progress)
        validation = _validation(whole, held, m, random)
        known[m.counting] = tuning.window_merits(network, validation.windows)
    first = known[tried[0].counting]
    gains = [tuning.relative_gain(known[m.counting], first) for m in tried]
    return tried[int(np.argmax(gains))]


def _fit_counters(
    network: InterestLSTM,
    windows: Windows,
    users: UserSteps,
    m: _Material,
    learning: LearningSettings,
    random: np.random.Generator,
    progress: Progress,
) -> None:
    owners = len(np.unique(users.segment[windows.step]))
    smoothing = m.counting.smoothing * len(windows) / max(owners, 1)
    fit_counters(network, windows, learning, random, progress, smoothing, m.counting.trend_rate)


def untrained_checkpoint(log: EventLog, config: TrainingConfig) -> Checkpoint:
    """A log's names and counts with a network that has learned nothing: the drift test reads none.

    Its rows are those of a trained one but for the hidden states.
    """
    with _single_threaded(config.threads), torch.random.fork_rng(devices=[]):
        m = _material(log, config)
        network = _network(m.vocabulary, replace(config, hidden=UNTRAINED_HIDDEN))
        statistics = _counted(m.batch, m)
        return _checkpoint(network, statistics, m, config)


def _together(batch: EventBatch, m: _Material) -> CoOccurrence:
    return count_together(batch, m.vocabulary.categories, m.vocabulary.items)


def _counted(batch: EventBatch, m: _Material) -> Statistics:
    statistics = count_statistics(batch, m.vocabulary, m.decay.half_life_s, m.horizon_s)
    return replace(statistics, repeat_weight=np.array([m.decay.repeat_weight]))


def _network(vocabulary: Vocabulary, config: TrainingConfig) -> InterestLSTM:
    size = NetworkSize(
        vocabulary.items, vocabulary.categories, vocabulary.query_buckets, hidden=config.hidden
    )
    torch.manual_seed(config.seed)
    network = InterestLSTM(size)
    for name in config.left_out:
        table = network.get_submodule(name).requires_grad_(False)
        assert isinstance(table, torch.nn.Embedding)
        table.weight.zero_()
    return network


def _windows(
    users: UserSteps, end_s: int, m: _Material, config: TrainingConfig, random: np.random.Generator
) -> Windows:
    return draw_windows(users, end_s, config.windows, m.decay, m.window_s, random)


def _validation(
    whole: UserSteps, held: np.ndarray, m: _Material, random: np.random.Generator
) -> Validation:
    """Steps whose next item is held out, and each user's window at the start of the later slice.

    held  (N,) bool, of the steps by user
    """
    steps = np.flatnonzero(np.append(held[1:], False) & (next_items(whole) > 0))
    if len(steps) > tuning.MAX_STEPS:
        steps = np.sort(random.choice(steps, tuning.MAX_STEPS, replace=False))
    windows = cutoff_windows(whole, m.late_s, m.decay, m.window_s)
    if len(windows) > tuning.MAX_USERS:
        chosen = np.sort(random.choice(len(windows), tuning.MAX_USERS, replace=False))
        step, now_s = windows.step[chosen], windows.now_s[chosen]
        windows = whole.windows(step, now_s, m.decay, m.window_s)
    return Validation(whole, steps, windows)


def _checkpoint(
    network: InterestLSTM,
    statistics: Statistics,
    m: _Material,
    config: TrainingConfig,
    ranking: RankingSettings | None = None,
    drift: DriftSettings | None = None,
) -> Checkpoint:
    return build_checkpoint(
        deepcopy(network),  # a checkpoint's network learns no more
        m.vocabulary,
        statistics,
        drift or DriftSettings(),
        ranking or RankingSettings(diversity=config.diversity),
        m.horizon_s,
        config.recommend_every,
        trained_until_s=m.end_s,
    )


def _card(
    log: EventLog,
    config: TrainingConfig,
    m: _Material,
    checkpoint: Checkpoint,
    figures: dict[str, float],
    source: str,
) -> str:
    first, last = (_day(int(t)) for t in (log.time_ms.min(), log.time_ms.max()))
    v = m.vocabulary
    learning = asdict(config)
    learning.pop("learning")
    lines = [
        f"# Checkpoint {checkpoint.version}",
        "",
        f"Trained on {source}: {len(log):,} rows of {len(np.unique(log.user)):,} users from "
        f"{first} to {last} (sha256 {log.digest()}).",
        f"Vocabulary: {len(v.item_names):,} items, {len(v.category_names):,} categories; "
        f"items seen fewer than {config.min_item_count} times share {v.item_buckets} buckets.",
        f"Predicted window: {m.horizon_s / DAY_S:.4g} days; half-lives of the counts: "
        + ", ".join(f"{s / DAY_S:.3g}" for s in m.decay.half_life_s)
        + " days; a category's later steps in a session count "
        + f"{m.decay.repeat_weight:g} each.",
        f"Later slice that chose: from {_day(m.late_s * 1000)} on.",
        "",
        "| figure of the later slice | value |",
        "|---|---|",
        *(f"| {name} | {value:.4f} |" for name, value in figures.items()),
        "",
        drift_line(checkpoint.drift),
        f"Fusion: {asdict(checkpoint.ranking)}.",
        f"Settings: {learning}; {asdict(config.learning)}.",
        "",
    ]
    return "\n".join(lines)


def _day(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
