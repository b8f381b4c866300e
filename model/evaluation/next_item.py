"""The item of the next event, from the lists that the lane would give: three protocols.

=============  ==============================================================================
successive     every event from T on whose user has an earlier one; T is the .9 quantile of all
               timestamps
last           each user's last event, where it lies at or after T
leave-one-out  each user's last event, with everything else known, other users' later events
               too: it leaks the future, and stands here to compare with papers; seen items are
               not listed
=============  ==============================================================================

Learning over users stays frozen at the cut; a user's own row goes on. A list is the one that the
lane gives after the user's event before. Items have numbers of their own (log_items.py): one that
the training has not seen can be a target, and is listed right after the user's event with it.
Dimensions: Q targets, K list length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from model.checkpoint import Checkpoint
from model.evaluation.diversity import exchange
from model.evaluation.fidelity import fidelity
from model.evaluation.item_lists import LIST_ITEMS, list_table, list_tables, places
from model.evaluation.protocols import Options
from model.evaluation.report import Report
from model.event_log import EventLog, read_event_log
from model.events import EventBatch, Source, taken
from model.held_lists import HeldLists, rows_before
from model.item_baselines import ItemFloor, Mix, Queries, tuned_floor
from model.learning import Progress
from model.log_items import log_items
from model.prediction import event_cuts
from model.ranking import rank
from model.state import new_rows
from model.training import train
from model.transition import moved_rows, transition

SPLIT_QUANTILE = 0.9
LATER_MS = 30 * 60_000
EVER_MS = int(np.iinfo(np.int64).min)
BATCH_STEPS = 20_000
LISTED_STEPS = 4000
SAMPLE = 4000
"""Targets whose lists show what diversity costs and whether reasons hold."""
CANDIDATES = 300
"""Places of a list before seen items are taken from it."""


@dataclass(frozen=True)
class Targets:
    """Q events to be foreseen, by user and in order; steps are numbered in order of user and time.

    user    (Q,) user
    number  (Q,) 0-based number of the event among the user's events that are foreseen
    start   (Q,) the user's first step
    step    (Q,) the event's first step: the steps from ``start`` to it are known
    item    (Q,) the event's first item, 0 = none
    seen    (Q,) bool: the user had the item before
    later   (Q,) bool: more than 30 minutes after the user's event before
    """

    user: np.ndarray
    number: np.ndarray
    start: np.ndarray
    step: np.ndarray
    item: np.ndarray
    seen: np.ndarray
    later: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> Targets:
        """The targets at ``index``."""
        return taken(self, index)

    def queries(self, steps: EventBatch) -> Queries:
        """What is known before each target."""
        return Queries(steps.item, self.start, self.step)

    def last_of_users(self) -> Targets:
        """The last target of each user."""
        if len(self) == 0:
            return self
        return self.take(np.r_[np.flatnonzero(self.user[1:] != self.user[:-1]), len(self) - 1])

    def groups(self) -> dict[str, np.ndarray]:
        """Masks of the targets with an item, (Q,), by the name of the group."""
        known = self.item > 0
        return {
            "all": known,
            "later than 30 minutes": known & self.later,
            "repeats": known & self.seen,
            "new items": known & ~self.seen,
            "last of each user": known & (np.diff(self.user, append=-1) != 0),
        }


def in_replay_order(log: EventLog) -> EventLog:
    """The rows by time; at one time by user, ``pos``, and place in the file."""
    return log.take(np.lexsort((np.arange(len(log)), log.pos, log.user, log.time_ms)))


def split_time(log: EventLog) -> int:
    """T: the .9 quantile of all timestamps, in whole milliseconds."""
    return int(np.ceil(np.quantile(log.time_ms, SPLIT_QUANTILE)))


def targets_from(steps: EventBatch, cutoff_ms: int) -> Targets:
    """The events from ``cutoff_ms`` on that have an earlier event of their user.

    ``steps`` stand by user, and in order of time.
    """
    head = np.flatnonzero(steps.line == 0)
    user, time_ms = steps.user[head], steps.time_ms[head]
    first = np.r_[True, user[1:] != user[:-1]][: len(head)]
    start = head[first][np.cumsum(first) - 1]
    wanted = (time_ms >= cutoff_ms) & ~first
    count = np.cumsum(wanted)
    number = count - 1 - (count - wanted)[first][np.cumsum(first) - 1]
    gap_ms = np.diff(time_ms, prepend=time_ms[:1])
    item = steps.item[head]
    pair = user * (int(steps.item.max(initial=0)) + 1)
    _, once, inverse = np.unique(pair + item, return_index=True, return_inverse=True)
    at = np.flatnonzero(wanted)
    return Targets(
        user=user[at],
        number=number[at],
        start=start[at],
        step=head[at],
        item=item[at],
        seen=(once[inverse] < np.arange(len(head)))[at],
        later=(gap_ms > LATER_MS)[at],
    )


def successive(options: Options, progress: Progress) -> Report:
    """Every event from T on."""
    return _after_the_split(options, progress, last=False)


def last(options: Options, progress: Progress) -> Report:
    """Each user's last event, where it lies at or after T."""
    return _after_the_split(options, progress, last=True)


def _after_the_split(options: Options, progress: Progress, last: bool) -> Report:
    log = in_replay_order(read_event_log(options.data))
    cutoff_ms = split_time(log) if options.cutoff_ms is None else options.cutoff_ms
    checkpoint = options.checkpoint
    if checkpoint is None:
        trained = train(log, options.config, progress, cutoff_ms, options.data.name)
        checkpoint = trained.checkpoint
    batch, users = log.batch(checkpoint.vocabulary)
    order = np.argsort(batch.user, kind="stable")
    steps = batch.take(order)
    items = log_items(log, batch.item, checkpoint.vocabulary)
    numbered = replace(steps, item=items.number[order])
    targets = targets_from(numbered, cutoff_ms)
    if last:
        targets = targets.last_of_users()
    lists = lists_before(batch, order, targets, cutoff_ms, len(users), checkpoint, progress)
    lists = items.completed(lists, order[targets.step - 1])
    early = steps.time_ms < cutoff_ms
    floor, mixed = _mixed(steps, early, targets, checkpoint, options, progress, unseen=False)
    listed = {
        **mixed,
        "repeat last, then popular": floor.repeat_last(targets.queries(numbered), LIST_ITEMS),
        "most popular of late": floor.most_popular(targets.queries(numbered), LIST_ITEMS),
    }
    title = "Next item, last" if last else "Next item, successive"
    columns = {"user_id": _names(users, targets)}
    if not last:
        columns["target"] = pa.array(targets.number)
    report = _report(title, lists, listed, targets, checkpoint, columns, items.names, options.seed)
    if last:
        return report
    return _with_lists_of_a_sample(report, batch, order[targets.step], checkpoint, options.seed)


def _with_lists_of_a_sample(
    report: Report, batch: EventBatch, step: np.ndarray, checkpoint: Checkpoint, seed: int
) -> Report:
    """The report with what diversity costs and whether reasons hold, for some of the targets.

    step  (Q,) of ``batch``, the first of each target
    """
    step = step[batch.item[step] > 0]
    if len(step) > SAMPLE:
        step = np.sort(np.random.default_rng(seed).choice(step, SAMPLE, replace=False))
    if len(step) == 0:
        return report
    rows = rows_before(checkpoint, batch, step)
    held = HeldLists(rows, rows["last_time_ms"], batch.item[step])
    costs, curve, cost_figures = exchange(held, batch.user[step], checkpoint, seed)
    reasons, reason_figures = fidelity(batch, held, step, checkpoint, seed)
    return replace(
        report,
        tables=[*report.tables, costs, reasons],
        figures={**report.figures, **cost_figures, **reason_figures},
        curves=[*report.curves, curve],
    )


def leave_one_out(options: Options, progress: Progress) -> Report:
    """Each user's last event; the items that the user had before are not listed."""
    log = in_replay_order(read_event_log(options.data))
    last_event = log.last_events()
    known = log.take(~last_event)
    checkpoint = options.checkpoint
    if checkpoint is None:
        config = replace(options.config, held_out="last")
        checkpoint = train(known, config, progress, None, options.data.name).checkpoint
    batch, users = log.batch(checkpoint.vocabulary)
    by_user = np.argsort(batch.user, kind="stable")
    steps = batch.take(by_user)
    targets = targets_from(steps, EVER_MS).last_of_users()
    early = ~last_event[by_user]
    rows = new_rows(len(users), checkpoint.hidden)
    before = batch.take(~last_event)
    for start, end in event_cuts(before, BATCH_STEPS):
        rows, _ = moved_rows(rows, before.take(slice(start, end)), Source(), checkpoint)
        progress("events", end, len(before))
    rows = rows[targets.user]
    lists = rank(rows, rows["last_time_ms"], checkpoint, CANDIDATES).item
    lists = without_seen(lists, targets.queries(steps), LIST_ITEMS)
    _, listed = _mixed(steps, early, targets, checkpoint, options, progress, unseen=True)
    columns = {"user_id": _names(users, targets)}
    names, title = checkpoint.vocabulary.item_names, "Next item, leave one out"
    return _report(title, lists, listed, targets, checkpoint, columns, names, options.seed)


def lists_before(
    batch: EventBatch,
    order: np.ndarray,
    targets: Targets,
    cutoff_ms: int,
    users: int,
    checkpoint: Checkpoint,
    progress: Progress,
    k: int = LIST_ITEMS,
) -> np.ndarray:
    """The lane's lists after the event before each target: (Q, k).

    ``order`` are the steps of ``batch``, which stands in replay order, by user.
    """
    before = order[targets.step - 1]  # the step after which the list is made
    place = np.full(len(batch), -1)
    place[before] = np.arange(len(targets))
    early = batch.time_ms < cutoff_ms
    every = replace(checkpoint, recommend_every=1, top_k=k)
    lists = np.zeros((len(targets), k), np.int64)
    rows = new_rows(users, checkpoint.hidden)
    head, rest = batch.take(early), np.flatnonzero(~early)
    for start, end in event_cuts(head, BATCH_STEPS):
        rows, _ = moved_rows(rows, head.take(slice(start, end)), Source(), checkpoint)
        progress("events", end, len(batch))
    known = np.flatnonzero(early[before])
    held = rows[targets.user[known]]
    lists[known] = rank(held, held["last_time_ms"], checkpoint, k, last_is_known=True).item
    tail = batch.take(rest)
    for start, end in event_cuts(tail, LISTED_STEPS):
        rows, outputs = transition(rows, tail.take(slice(start, end)), Source(), every)
        target = place[rest[start + outputs.recommend_step]]
        lists[target[target >= 0]] = outputs.recommendations.item[target >= 0]
        progress("events", len(head) + end, len(batch))
    return lists


def without_seen(lists: np.ndarray, queries: Queries, k: int) -> np.ndarray:
    """The first k items of each list (Q, K) that the query's history lacks, 0 where fewer."""
    kept = np.zeros((len(lists), k), np.int64)
    for row, listed in enumerate(lists.tolist()):
        seen = set(queries.item[queries.start[row] : queries.end[row]].tolist())
        new = [item for item in listed if item > 0 and item not in seen][:k]
        kept[row, : len(new)] = new
    return kept


def _mixed(
    steps: EventBatch,
    early: np.ndarray,
    targets: Targets,
    checkpoint: Checkpoint,
    options: Options,
    progress: Progress,
    unseen: bool,
) -> tuple[ItemFloor, dict[str, np.ndarray]]:
    """The floor and the lists of its mix (Q, K), tuned on later steps that training sees.

    early   (N,) bool: steps that may be learnt from
    unseen  lists only items that the user has not had; tunes on each user's last known event
    """
    vocabulary = checkpoint.vocabulary
    sizes = (vocabulary.items, vocabulary.first_item_bucket)
    known = steps.take(early)
    if unseen:
        late = targets_from(known, EVER_MS).last_of_users()
        part = np.ones(len(known), dtype=bool)
        part[late.step] = False
    else:
        late_ms = int(np.quantile(known.time_ms, SPLIT_QUANTILE))
        late = targets_from(known, late_ms)
        part = known.time_ms < late_ms
    late = late.take(np.flatnonzero((late.item > 0) & (late.item < sizes[1])))
    earlier = ItemFloor(known.take(part), *sizes, checkpoint.horizon_s)
    mix = tuned_floor(earlier, late.queries(known), late.item, progress, unseen, options.seed)
    floor = ItemFloor(known, *sizes, checkpoint.horizon_s)
    queries = targets.queries(steps)
    lists = floor.lists(queries, mix, LIST_ITEMS, unseen)
    return floor, {f"Markov + kNN mix ({_words(mix)})": lists}


def _words(mix: Mix) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in asdict(mix).items())


def _names(users: list[str], targets: Targets) -> pa.Array:
    return pa.array(users, pa.string()).take(pa.array(targets.user))


def _report(
    title: str,
    lists: np.ndarray,
    floors: dict[str, np.ndarray],
    targets: Targets,
    checkpoint: Checkpoint,
    columns: dict[str, pa.Array],
    names: Sequence[str],
    seed: int,
) -> Report:
    found = {name: places(each, targets.item) for name, each in {"model": lists, **floors}.items()}
    named = targets.item[targets.item > 0] < checkpoint.vocabulary.first_item_bucket
    note = (
        f"Every item of the log can be a target; {named.mean():.1%} of the targets are items that "
        "the training has seen. Another can be listed right after the user's event with it alone."
    )
    tables, figures = list_tables(
        title, found, targets.user, targets.groups(), seed=seed, note=note
    )
    return Report(tables, figures, predictions=list_table(lists, names, columns))
