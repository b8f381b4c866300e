"""The pure step over a batch: rows and events in, rows and outputs out.

No clock, no Kafka, no environment. The worker, the back-fill of history, the evaluation on files
and the tests all call ``transition``; nothing else moves a row.

Dimensions: N steps of the batch, U users, B users of one round (one step each), H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch

from model import drift, interests, ranking
from model.blocks import BLOCK_SIZES, in_blocks
from model.checkpoint import Checkpoint
from model.drift import Change
from model.events import (
    NO_OFFSET,
    QUERY_TOKENS,
    SESSION_GAP_S,
    EventBatch,
    EventType,
    Kind,
    Source,
)
from model.interest_lstm import StepInput
from model.interests import Fields, Interests
from model.kept_prediction import SAMPLE, KeptPredictions, Scored, likely_categories
from model.ranking import Recommendations
from model.state import (
    HASHES,
    NO_SLOT,
    RECENT,
    UNIT_FLAG,
    StateBatch,
    check_indices,
    new_rows,
    opaque,
)

KNOWN_OF_INPUT = ("offset", "epoch", "partitions", "event_hash", "events", "last_time_ms")
"""Fields of a row that tell which events it has applied; they outlive the state."""
HIDDEN_LIMIT = 60_000.0
"""The cell state is kept within what float16 can hold."""


class Trigger(IntEnum):
    """Why a recommendation is emitted; the first that holds."""

    FIRST_EVENT = 0
    PURCHASE = 1
    DRIFT = 2
    INTERVAL = 3


@dataclass(frozen=True)
class Drifts:
    """Alarms of a batch: M of them.

    step    (M,) index of the step that raised the alarm
    rows    (M,) the row as it was when the alarm was raised, before the test restarts
    """

    step: np.ndarray
    rows: StateBatch
    changes: list[Change]


@dataclass(frozen=True)
class Outputs:
    """What a batch gives besides the new rows.

    duplicate        (N,) bool: the step belongs to an event that was applied before
    tested           (N,) bool: the user is past the warm-up of the drift test, so it may alarm
    drifts           alarms, in step order
    recommend_step   (R,) index of the step after which a recommendation is emitted
    trigger          (R,) Trigger
    rows             (R,) the row right after that step
    recommendations  the lists, in the same order
    scored           predictions of rows whose window has passed, in step order
    """

    duplicate: np.ndarray
    tested: np.ndarray
    drifts: Drifts
    recommend_step: np.ndarray
    trigger: np.ndarray
    rows: StateBatch
    recommendations: Recommendations
    scored: Scored


def transition(
    states: StateBatch, events: EventBatch, source: Source, checkpoint: Checkpoint
) -> tuple[StateBatch, Outputs]:
    """Moves U rows by N steps in merged order; the given rows stay as they are.

    An event at or below a row's offset of the same topic epoch, or whose id is among the row's last
    16, is a repeat: it moves no state. A row's result does not depend on the batch's cut.
    StateError when a row of this checkpoint names an item or category that it does not have.
    """
    moved, duplicate, applied = _move(states, events, source, checkpoint)
    kept = np.flatnonzero(~duplicate)
    ready, drifts, drift_rows, given, triggers, rows, predictions = applied
    tested = np.zeros(len(events), dtype=bool)
    tested[kept] = ready
    recommendations = ranking.rank(
        rows, rows["last_time_ms"], checkpoint, checkpoint.top_k, last_is_known=True
    )
    said, taken = recommendations.interests, np.searchsorted(given, predictions.taken_step)
    likely = Interests(said.category[taken], said.probability[taken], said.uncertainty[taken])
    scored = predictions.settle(likely, states.dtype)
    outputs = Outputs(
        duplicate=duplicate,
        tested=tested,
        drifts=Drifts(
            kept[drifts], drift_rows, [drift.describe(row, checkpoint) for row in drift_rows]
        ),
        recommend_step=kept[given],
        trigger=triggers,
        rows=rows,
        recommendations=recommendations,
        scored=replace(scored, step=kept[scored.step]),
    )
    return moved, outputs


def moved_rows(
    states: StateBatch, events: EventBatch, source: Source, checkpoint: Checkpoint
) -> tuple[StateBatch, np.ndarray]:
    """The rows that ``transition`` gives, and which steps (N,) are of repeats, without outputs."""
    moved, duplicate, applied = _move(states, events, source, checkpoint, with_outputs=False)
    predictions = applied[-1]
    predictions.settle_last(likely_categories(predictions.last_rows(states.dtype), checkpoint))
    return moved, duplicate


_Applied = tuple[
    np.ndarray, np.ndarray, StateBatch, np.ndarray, np.ndarray, StateBatch, KeptPredictions
]
"""Which steps may alarm; steps of alarms and their rows; steps of recommendations, their triggers
and rows; the predictions that are to be settled."""


def _move(
    states: StateBatch,
    events: EventBatch,
    source: Source,
    checkpoint: Checkpoint,
    with_outputs: bool = True,
) -> tuple[StateBatch, np.ndarray, _Applied]:
    """The moved rows, which steps are of repeats, and what the others gave."""
    moved = opaque(states).copy().view(states.dtype)
    fields = {name: moved[name] for name in moved.dtype.names or ()}
    touched = np.unique(events.user)
    _restart_foreign_rows(fields, touched, checkpoint)
    vocabulary = checkpoint.vocabulary
    check_indices(fields, touched, vocabulary.items, vocabulary.categories)
    duplicate = find_duplicates(fields, events, source)
    _note_offsets(fields, events, source)
    steps = events.take(np.flatnonzero(~duplicate)) if duplicate.any() else events
    return moved, duplicate, _apply(moved, fields, steps, checkpoint, with_outputs)


def find_duplicates(fields: Fields, events: EventBatch, source: Source) -> np.ndarray:
    """True for each step (N,) of an event that its row has applied before."""
    if len(events) == 0:
        return np.zeros(0, dtype=bool)
    first = events.line == 0
    heads = np.flatnonzero(first)
    event_of_step = np.cumsum(first) - 1
    user, kind = events.user[heads], events.event_type[heads]
    epochs = np.asarray(source.epochs, dtype=np.int64)[kind]
    known = fields["epoch"][user, kind] == epochs
    offset = events.offset[heads]
    repeat = known & (offset <= fields["offset"][user, kind]) & (offset != NO_OFFSET)
    fresh = np.flatnonzero(~repeat)
    ids, owner = events.event_hash[heads][fresh], user[fresh]
    suspect = (fields["event_hash"][owner] == ids[:, None]).any(1)  # (E, 16)
    order = np.lexsort((ids, owner))
    twins = (owner[order][1:] == owner[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    suspect[order[1:][twins]] = True
    for row in np.unique(owner[suspect]).tolist():
        ring = fields["event_hash"][row].tolist()
        count = int(fields["events"][row])
        for event in fresh[owner == row].tolist():
            event_id = int(events.event_hash[heads[event]])
            if event_id in ring:
                repeat[event] = True
            else:
                ring[count % HASHES] = event_id
                count += 1
    return np.asarray(repeat[event_of_step])


def _restart_foreign_rows(fields: Fields, user: np.ndarray, checkpoint: Checkpoint) -> None:
    """Rows of other weights start anew, keeping offsets, event ids and the number of events.

    Their hidden state and category indices mean nothing under this checkpoint.
    """
    foreign = user[(fields["checkpoint"][user] != checkpoint.number) & (fields["steps"][user] > 0)]
    _blank(fields, foreign, checkpoint.hidden, KNOWN_OF_INPUT)
    fields["checkpoint"][user] = checkpoint.number


def _expire(fields: Fields, user: np.ndarray, checkpoint: Checkpoint) -> None:
    """Rows start anew whose user was away for longer than the time to live."""
    _blank(fields, user, checkpoint.hidden, (*KNOWN_OF_INPUT, "checkpoint"))


def _blank(fields: Fields, rows: np.ndarray, hidden: int, kept: tuple[str, ...]) -> None:
    if len(rows) == 0:
        return
    blank = new_rows(1, hidden)
    for name, values in fields.items():
        if name not in kept:
            values[rows] = blank[name][0]


def _note_offsets(fields: Fields, events: EventBatch, source: Source) -> None:
    """Writes the highest offset of each topic into the rows, repeats included."""
    epochs = np.asarray(source.epochs, dtype=np.int64)
    for kind in EventType:
        of_kind = np.flatnonzero(events.event_type == kind)
        user, offset = events.user[of_kind], events.offset[of_kind]
        known = fields["epoch"][user, kind] == epochs[kind]
        stored = np.where(known, fields["offset"][user, kind], -1)
        new = offset > stored
        # offsets of a topic ascend, and the last assignment of an index holds
        fields["offset"][user[new], kind] = offset[new]
        fields["epoch"][user[new], kind] = epochs[kind]
    fields["partitions"][events.user] = source.partitions


@dataclass(frozen=True)
class Schedule:
    """When each step comes: rounds of at most one step a user, and the users' clocks.

    order     (N,) the steps round by round, in merged order within a round
    rounds    one slice of ``order`` per round
    clock_ms  (N,) the user's clock after the step: event time that never runs backwards
    gap_s     (N,) seconds since the user's step before, 0 for the first
    """

    order: np.ndarray
    rounds: list[slice]
    clock_ms: np.ndarray
    gap_s: np.ndarray


def schedule(fields: Fields, steps: EventBatch) -> Schedule:
    count = len(steps)
    order = np.argsort(steps.user, kind="stable")
    user = steps.user[order]
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    segment = np.cumsum(np.r_[False, user[1:] != user[:-1]])
    rank = np.arange(count) - starts[segment]
    before = fields["last_time_ms"][user]
    seen = fields["steps"][user] > 0
    lift = segment.astype(np.int64) << 43  # above any time in ms: a maximum per user
    raw = np.maximum(steps.time_ms[order], np.where(seen, before, 0))
    clock = np.maximum.accumulate(raw + lift) - lift
    previous = np.r_[0, clock[:-1]]
    previous[starts] = np.where(seen[starts], before[starts], clock[starts])
    by_rank = np.lexsort((order, rank))
    ends = np.cumsum(np.bincount(rank)).tolist()
    rounds = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
    gap_s = (clock - previous) // 1000
    return Schedule(order[by_rank], rounds, clock[by_rank], gap_s[by_rank])


def _apply(
    states: StateBatch,
    fields: Fields,
    steps: EventBatch,
    checkpoint: Checkpoint,
    with_outputs: bool,
) -> _Applied:
    """Applies the steps round by round; alarms and recommendations as (step, snapshot of row)."""
    dtype, whole = states.dtype, opaque(states)
    none = np.zeros(0, np.int64)
    if len(steps) == 0:
        ready, nothing = np.zeros(0, dtype=bool), np.zeros(0, dtype)
        predictions = KeptPredictions(fields, none, checkpoint.horizon_s)
        return ready, none, nothing, none, none, nothing, predictions
    plan = schedule(fields, steps)
    predictions = KeptPredictions(fields, plan.clock_ms // 1000, checkpoint.horizon_s)
    steps = steps.take(plan.order)
    sampled = steps.event_hash % np.uint64(SAMPLE) == 0
    expires = np.zeros(len(steps), dtype=bool)
    if checkpoint.state_ttl_s is not None:
        expires = plan.gap_s > checkpoint.state_ttl_s
        plan.gap_s[expires] = 0
    fresh = np.zeros(len(fields["steps"]), dtype=bool)
    ready = np.zeros(len(steps), dtype=bool)
    features = encode(steps, plan.clock_ms, plan.gap_s, checkpoint)  # (N, H)
    pending = np.zeros(len(fields["steps"]), dtype=bool)
    alarms: list[tuple[np.ndarray, StateBatch]] = []
    given: list[tuple[np.ndarray, np.ndarray, StateBatch]] = []
    for index in plan.rounds:
        user = steps.user[index]
        time_s = plan.clock_ms[index] // 1000
        predictions.end(plan.order[index], user, time_s, whole)
        if expires[index].any():
            _expire(fields, user[expires[index]], checkpoint)
            fresh[user[expires[index]]] = True
        step_hidden(fields, user, features[index], checkpoint)
        slot = step_interests(fields, steps, index, time_s, plan.gap_s[index], pending, checkpoint)
        step_recent(fields, steps, index, time_s, slot)
        fields["last_time_ms"][user] = plan.clock_ms[index]
        if with_outputs:
            ready[plan.order[index]] = drift.is_ready(fields, user)
        ended = np.flatnonzero(steps.last_line[index])
        if len(ended) == 0:
            continue
        at, rows = index.start + ended, user[ended]
        _end_event(fields, rows, steps.event_hash[at])
        alarmed = np.zeros(len(rows), dtype=bool)
        tested = np.flatnonzero(pending[rows])
        pending[rows] = False
        if len(tested):
            alarmed[tested], _ = drift.check(fields, rows[tested], checkpoint)
            if alarmed.any():
                if with_outputs:
                    alarms.append((plan.order[at[alarmed]], whole[rows[alarmed]]))
                drift.restart(fields, rows[alarmed], time_s[ended][alarmed])
        first = fresh[rows] | (fields["events"][rows] == 1)
        fresh[rows] = False
        every = checkpoint.recommend_every
        trigger = _trigger(fields, rows, steps.event_type[at], alarmed, first, every)
        emits = np.flatnonzero(trigger >= 0)
        if len(emits):
            fields["since_recommendation"][rows[emits]] = 0
            chosen = emits[sampled[at[emits]]]
            if len(chosen):
                predictions.take(plan.order[at[chosen]], rows[chosen], time_s[ended][chosen], whole)
            if with_outputs:
                given.append((plan.order[at[emits]], trigger[emits], whole[rows[emits]]))
    alarm_steps, _, alarm_rows = _in_step_order([(at, at, rows) for at, rows in alarms], dtype)
    return ready, alarm_steps, alarm_rows, *_in_step_order(given, dtype), predictions


def _in_step_order(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, StateBatch]:
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, dtype)
    steps, values, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order], rows[order].view(dtype)


def encode(
    steps: EventBatch, clock_ms: np.ndarray, gap_s: np.ndarray, checkpoint: Checkpoint
) -> np.ndarray:
    """The features of every step, (N, H): they need no hidden state."""
    network = checkpoint.network

    def features(*arrays: torch.Tensor) -> torch.Tensor:
        return network.encode(StepInput(*arrays))

    return in_blocks(
        features, steps.item, steps.category, steps.kind, steps.query, gap_s, clock_ms // 1000
    )


def step_hidden(
    fields: Fields, user: np.ndarray, features: np.ndarray, checkpoint: Checkpoint
) -> None:
    """One LSTM step of B distinct users; the anchor is taken at every 16th step."""
    at_anchor = user[fields["steps"][user] % RECENT == 0]
    if len(at_anchor):
        fields["anchor_h"][at_anchor] = fields["h"][at_anchor]
        fields["anchor_c"][at_anchor] = fields["c"][at_anchor]
    hidden = checkpoint.hidden

    network = checkpoint.network

    def both(features: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        h, c = network.step(network.input_gates(features), h.float(), c.float())
        return torch.cat((h, c.clamp(-HIDDEN_LIMIT, HIDDEN_LIMIT)), 1).half()

    moved = in_blocks(both, features, fields["h"][user], fields["c"][user])  # (B, 2H) float16
    fields["h"][user] = moved[:, :hidden]
    fields["c"][user] = moved[:, hidden:]


def step_interests(
    fields: Fields,
    steps: EventBatch,
    index: slice,
    time_s: np.ndarray,
    gap_s: np.ndarray,
    pending: np.ndarray,
    checkpoint: Checkpoint,
) -> np.ndarray:
    """Counts, sessions and drift units of one round: the slot touched, (B,), with 64 added when
    the step was a unit; 255 where the step has no category."""
    user = steps.user[index]
    away = user[gap_s > SESSION_GAP_S]
    fields["session_mask"][away] = 0
    fields["drift_steps"][user] += 1
    noted = np.full(len(user), NO_SLOT, dtype=np.int64)
    named = np.flatnonzero(steps.category[index] > 0)
    if len(named):
        rows, at, now_s = user[named], index.start + named, time_s[named]
        half_life_s = checkpoint.statistics.half_life_s
        slot = interests.slot_of(fields, rows, steps.category[at], now_s, half_life_s)
        unit = drift.is_unit(fields, rows, slot)
        weight = np.where(unit, 1.0, checkpoint.statistics.repeat_weight)
        interests.touch(fields, rows, slot, weight, now_s, half_life_s)
        drift.add_units(
            fields,
            rows[unit],
            slot[unit],
            steps.event_type[at][unit],
            steps.offset[at][unit],
            now_s[unit],
        )
        pending[rows[unit]] = True
        noted[named] = slot + np.where(unit, 64, 0)
    return noted


def step_recent(
    fields: Fields, steps: EventBatch, index: slice, time_s: np.ndarray, slot: np.ndarray
) -> None:
    """Writes the step into the ring of recent steps."""
    user = steps.user[index]
    position = fields["steps"][user] % RECENT
    unit = (slot >= 64) & (slot != NO_SLOT)
    fields["recent_item"][user, position] = steps.item[index]
    fields["recent_time_s"][user, position] = time_s
    fields["recent_category"][user, position] = steps.category[index]
    fields["recent_kind"][user, position] = steps.kind[index] + np.where(unit, UNIT_FLAG, 0)
    fields["recent_slot"][user, position] = np.where(unit, slot - 64, slot)
    fields["steps"][user] += 1


def _end_event(fields: Fields, user: np.ndarray, event_hash: np.ndarray) -> None:
    """Counts an applied event and remembers its id."""
    fields["event_hash"][user, fields["events"][user] % HASHES] = event_hash
    fields["events"][user] += 1
    since = fields["since_recommendation"][user]
    fields["since_recommendation"][user] = np.minimum(since, 65534) + 1


def _trigger(
    fields: Fields,
    user: np.ndarray,
    event_type: np.ndarray,
    alarmed: np.ndarray,
    first: np.ndarray,
    every: int,
) -> np.ndarray:
    """Trigger of each row after an event, -1 for none: a function of the row and its event."""
    trigger = np.full(len(user), -1)
    trigger[fields["since_recommendation"][user] >= every] = Trigger.INTERVAL
    trigger[alarmed] = Trigger.DRIFT
    trigger[event_type == EventType.PURCHASE] = Trigger.PURCHASE
    trigger[first] = Trigger.FIRST_EVENT
    return trigger


def warm_up(checkpoint: Checkpoint) -> None:
    """Runs the model once at every block size, readouts and ranking included."""
    for size in BLOCK_SIZES:
        ones = np.ones(size, np.int64)
        events = EventBatch(
            user=np.arange(size),
            event_type=ones * EventType.CLICK,
            offset=np.arange(size),
            event_hash=np.arange(1, size + 1, dtype=np.uint64),
            time_ms=ones * 1_700_000_000_000,
            kind=ones * Kind.VIEW,
            item=ones,
            category=ones,
            query=np.zeros((size, QUERY_TOKENS), np.int64),
            line=ones * 0,
            last_line=np.ones(size, dtype=bool),
        )
        transition(new_rows(size, checkpoint.hidden), events, Source(), checkpoint)
