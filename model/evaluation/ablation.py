"""python -m model.evaluation.ablation: what each part is worth, one change at a time.

Each change is judged on the later slice of the events before T, so that no test event decides
anything: the network is trained on what comes before that slice, fusion weights are learned from
one half of its lists, and the other half is judged. A hidden size above 64, or a second layer, fits
no row. A second table says what an attention over a row's recent steps would be worth, a third what
the parts of the categories' readout are. Writes model/ABLATION.md, with --quick into
model/evaluation/partial.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from model.checkpoint import Checkpoint, Statistics
from model.evaluation.attention import attention_figures
from model.evaluation.item_lists import NDCG_10, mean_intervals, places
from model.evaluation.markdown import table_lines
from model.evaluation.next_item import in_replay_order, split_time
from model.evaluation.readout_parts import readout_table
from model.evaluation.report import Cell, Figures
from model.event_log import EventLog, read_event_log
from model.fusion import fit_ranking
from model.held_lists import HeldLists
from model.ranking import rank
from model.training import TrainingConfig, no_progress, train

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data" / "amazon_beauty.parquet"
SEEDS = 3
LISTS = 8000
BASE = "all parts"

Change = Callable[[TrainingConfig], TrainingConfig]
Part = Callable[[Statistics], Statistics]


def _learning(**changes: Any) -> Change:
    return lambda config: replace(config, learning=replace(config.learning, **changes))


NETWORKS: Mapping[str, Change] = {
    "hidden size 32": lambda config: replace(config, hidden=32),
    "hidden size 16": lambda config: replace(config, hidden=16),
    "no dropout": _learning(dropout=0.0),
    "dropout 0.4": _learning(dropout=0.4),
    "label smoothing 0.1": _learning(label_smoothing=0.1),
    "sampled softmax, 1,024 negatives": _learning(sampled_above=0, negatives=1024),
    "no time encodings": lambda config: replace(config, left_out=("gap", "hour", "weekday")),
    "no type encoding": lambda config: replace(config, left_out=("kind",)),
    "no category encoding": lambda config: replace(config, left_out=("category",)),
}
"""Changes that ask for a network of their own."""

PARTS: Mapping[str, Part] = {
    "no neighbours of the recent items": lambda s: replace(
        s, neighbour_item=s.neighbour_item * 0, item_again=s.item_again * 0
    ),
    "no item that follows": lambda s: replace(
        s, neighbour_follows=s.neighbour_follows * 0, item_again=s.item_again * 0
    ),
    "no item that stands beside": lambda s: replace(s, neighbour_together=s.neighbour_together * 0),
    "20 neighbours": lambda s: replace(
        s,
        neighbour_item=s.neighbour_item[:, :20],
        neighbour_follows=s.neighbour_follows[:, :20],
        neighbour_together=s.neighbour_together[:, :20],
    ),
    "no late popularity": lambda s: replace(s, item_log_trend=s.item_log_trend * 0),
    "no popularity": lambda s: replace(
        s, item_log_trend=s.item_log_trend * 0, item_log_popularity=s.item_log_popularity * 0
    ),
    "no category of the item": lambda s: replace(s, item_category=s.item_category * 0),
}
"""Changes of what a checkpoint counts; fusion weights are learned anew for each."""


def main() -> None:
    """Runs the changes that are asked for, and writes the table."""
    parser = argparse.ArgumentParser(prog="python -m model.evaluation.ablation")
    parser.add_argument("--quick", action="store_true", help="one seed, a few updates: minutes")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--data", type=Path, default=DATA, help="event log")
    asked = parser.parse_args()
    log = in_replay_order(read_event_log(asked.data))
    began = time.monotonic()
    log = log.before(split_time(log))
    seeds = 1 if asked.quick else asked.seeds
    config = TrainingConfig.quick() if asked.quick else TrainingConfig()
    console = Console(stderr=True)
    tables = (*ablation(log, seeds, config, console), readout_table(log, seeds, config, console))
    command = "make ablation" + (' ARGS="--quick"' if asked.quick else "")
    seconds = time.monotonic() - began
    lines = ["# What each part is worth", "", f"Written by `{command}` in {seconds:,.0f} s.", ""]
    folder = HERE / "partial" if asked.quick else HERE.parent
    folder.mkdir(exist_ok=True)
    for table in tables:
        lines += [f"## {table.title}", "", *table_lines(table), ""]
    (folder / "ABLATION.md").write_text("\n".join(lines), "utf-8")


def ablation(
    log: EventLog, seeds: int, config: TrainingConfig, console: Console
) -> tuple[Figures, Figures]:
    """One row a change, whose differences are paired, over lists and seeds; and the attention."""
    found: dict[str, list[np.ndarray]] = {}
    attention: dict[str, list[float]] = {}
    for seed in range(seeds):
        base = replace(config, seed=seed, lists=LISTS, refit=False)
        for name, change in {BASE: lambda config: config, **NETWORKS}.items():
            began = time.monotonic()
            trained = train(log, change(base), no_progress)
            found.setdefault(name, []).append(judged(trained.draft, trained.lists, seed))
            if name == BASE:
                seen = attention_figures(log, trained, seed)
                for figure, value in seen.items():
                    attention.setdefault(figure, []).append(value)
                for part, without in PARTS.items():
                    draft = replace(trained.draft, statistics=without(trained.draft.statistics))
                    found.setdefault(part, []).append(judged(draft, trained.lists, seed))
            took = time.monotonic() - began
            console.print(f"seed {seed}, {name}: {took:,.0f} s", highlight=False)
    rows = [_row(name, values, found[BASE]) for name, values in found.items()]
    columns = ("change", NDCG_10.hits, NDCG_10.gain, "seeds", "change in NDCG@10")
    note = "The column of seeds is the range of NDCG@10 over them."
    changes = Figures(f"{len(found[BASE][0]):,} lists, {seeds} seeds", columns, rows, note)
    return changes, _attention_table(attention)


def _attention_table(found: Mapping[str, Sequence[float]]) -> Figures:
    rows: list[Sequence[Cell]] = [
        [name, float(np.mean(values)), f"{min(values):.4f} to {max(values):.4f}"]
        for name, values in found.items()
    ]
    note = (
        "Learned on top of the network that stays as it is; a step carries an item as far as the "
        "item's score falls without the step."
    )
    return Figures("An attention over the recent steps", ("", "mean", "seeds"), rows, note)


def judged(draft: Checkpoint, lists: HeldLists, seed: int) -> np.ndarray:
    """(hit, gain) of the half of the lists that the fusion weights do not learn from: (Q, 2)."""
    order = np.random.default_rng(seed).permutation(len(lists))
    learned_from, rest = order[::2], order[1::2]
    part = HeldLists(
        lists.rows[learned_from], lists.now_ms[learned_from], lists.target[learned_from]
    )
    tuned = replace(draft, ranking=fit_ranking(draft, part, no_progress))
    found = rank(lists.rows[rest], lists.now_ms[rest], tuned, NDCG_10.at).item
    return np.stack(NDCG_10.values(places(found, lists.target[rest])), 1)


def _row(name: str, values: list[np.ndarray], base: list[np.ndarray]) -> list[Cell]:
    hits, gains = (np.array([each[:, column].mean() for each in values]) for column in (0, 1))
    row: list[Cell] = [name, float(hits.mean()), float(gains.mean())]
    row.append(f"{gains.min():.4f} to {gains.max():.4f}")
    if name == BASE:
        return [*row, ""]
    change = np.concatenate([v[:, 1] - b[:, 1] for v, b in zip(values, base, strict=True)])
    (low, high), *_ = mean_intervals(change[:, None], np.arange(len(change)))
    return [*row, f"{change.mean():+.4f} ({low:+.4f} to {high:+.4f})"]


if __name__ == "__main__":
    main()
