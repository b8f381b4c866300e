"""What `verify` finds in one partition: figures, and for each user that differs, where and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgspec

from model.checkpoint import Checkpoint
from model.state import unpack
from stream_app.comparison import Comparison, FieldDifference, RowDifference, compare, explain
from stream_app.dead_letters import place_of
from stream_app.events import Source as Place
from stream_app.lane.journal import JournalEntry
from stream_app.lane.merge import NO_MAXIMA
from stream_app.lane.reading import read_records
from stream_app.settings import Settings
from stream_app.verify import (
    Applied,
    OfflineRun,
    Read,
    apply,
    living,
    read_entries,
    read_inputs,
    replay_partition,
    stored_rows,
    with_worker_settings,
)

EXPLAINED_USERS = 20
"""Of a partition; the others are named only."""
TRACED_EVENTS = 200
"""Of a user: in a longer history one missing event is not looked for, only a missing end."""
ROUNDING = 2.0**-10
"""A step of half precision between 1 and 2: what sums in another order may move in a state."""


@dataclass(frozen=True)
class Difference:
    """A user whose rows differ.

    row      the fields
    place    `topic:partition:offset` of the first event that is not in the stored row as it should
             be, None when that cannot be told
    reason   one sentence
    """

    row: RowDifference
    place: str | None
    reason: str


@dataclass(frozen=True)
class PartitionReport:
    """One partition: `events`, `duplicates` and `dead_letters` are those of the replay."""

    partition: int
    events: int
    duplicates: int
    dead_letters: dict[str, int]
    comparison: Comparison
    explained: list[Difference]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def verify_partition(
    settings: Settings, checkpoint: Checkpoint, partition: int, read: Read = read_records
) -> PartitionReport:
    """Replay one partition and compare its rows.

    Args:
        read: reads the input topics and the journal, see `verify.records_between`.
    """
    checkpoint = with_worker_settings(checkpoint, settings)
    run = replay_partition(settings, checkpoint, partition, read, with_outputs=False)
    stored = living(stored_rows(settings, partition), run.swept_ms, checkpoint.hidden)
    comparison = compare(run.rows, stored, checkpoint.hidden, run.coverage)
    explained = []
    if comparison.differing:
        users = comparison.differing[:EXPLAINED_USERS]
        entry, events = histories(settings, partition, users, read)
        for user in users:
            row = explain(user, run.rows.get(user), stored.get(user), checkpoint.hidden)
            row = replace(row, fields=tuple(_named(field, settings) for field in row.fields))
            place, reason = first_difference(
                events[user], stored.get(user), entry, settings, checkpoint, partition
            )
            explained.append(Difference(row, place, reason))
    return PartitionReport(
        partition, run.events, run.duplicates, dict(run.dead_letters), comparison, explained
    )


def histories(
    settings: Settings, partition: int, users: Sequence[str], read: Read
) -> tuple[JournalEntry, dict[str, list[Applied]]]:
    """The replayed events of some users in their order, and the entry of the last batch."""
    found: dict[str, list[Applied]] = {user: [] for user in users}
    inputs = read_inputs(settings, partition, read)
    entries, _ = read_entries(settings, partition, read, inputs)
    for entry in entries:
        for one in inputs.of(entry)[0]:
            if one.event.user_id in found:
                found[one.event.user_id].append(one)
    nothing = JournalEntry(0, settings.partitions, (0, 0, 0), (0, 0, 0), NO_MAXIMA, NO_MAXIMA)
    return entries[-1] if entries else nothing, found


def first_difference(
    history: Sequence[Applied],
    stored: bytes | None,
    entry: JournalEntry,
    settings: Settings,
    checkpoint: Checkpoint,
    partition: int,
) -> tuple[str | None, str]:
    """Where a stored row leaves the user's history: the place of an event, and a sentence.

    Tried in turn: the row ends before the history does, or it lacks one event on the way.
    """

    def place(one: Applied) -> str:
        return place_of(Place(settings.input_topics[one.topic], partition, one.offset))

    if not history:
        return None, "It has a stored row, and no event of it was replayed."
    if stored is None:
        return place(history[0]), "It has no stored row, and its events begin here."
    offsets = unpack([stored], checkpoint.hidden)["offset"][0].tolist()
    seen = [one for one in history if one.offset <= offsets[one.topic]]
    unseen = [one for one in history if one.offset > offsets[one.topic]]
    if unseen and giving([seen], stored, entry, checkpoint):
        return place(unseen[0]), "The stored row is right up to this event and lacks what follows."
    if len(seen) <= TRACED_EVENTS:
        without = [[*seen[:number], *seen[number + 1 :]] for number in range(len(seen))]
        missing = giving(without, stored, entry, checkpoint)
        if missing:
            return place(seen[missing[0]]), _lacking(len(missing))
    if unseen:
        return place(unseen[0]), "The stored row lacks this event, and differs before it too."
    return None, "The stored row has seen all events, and was not made by them alone."


def giving(
    histories: Sequence[Sequence[Applied]],
    stored: bytes,
    entry: JournalEntry,
    checkpoint: Checkpoint,
) -> list[int]:
    """Which histories give the stored row, and its hidden states with about the least difference.

    Several do when they differ long ago only. They are replayed side by side, as if of one user
    each: a step of many users costs little more than a step of one, and sums in another order.
    """
    run = OfflineRun()
    events = [
        replace(one, event=msgspec.structs.replace(one.event, user_id=str(number)))
        for number, history in enumerate(histories)
        for one in history
    ]
    if not events:
        return []
    apply(run, events, entry, checkpoint)
    found = {
        int(number): compare({number: row}, {number: stored}, checkpoint.hidden)
        for number, row in run.rows.items()
    }
    gaps = {number: one.hidden_difference for number, one in found.items() if one.exact}
    least = min(gaps.values(), default=0.0)
    return sorted(number for number, gap in gaps.items() if gap <= least + ROUNDING)


def _lacking(candidates: int) -> str:
    if candidates == 1:
        return "The stored row lacks this event and has those after it."
    return (
        f"The stored row lacks one event: this one or one of {candidates - 1} later ones, "
        "so long ago that the row is the same without either."
    )


def _named(field: FieldDifference, settings: Settings) -> FieldDifference:
    """A field of the row whose index is an input topic, with the topic's name."""
    for number, topic in enumerate(settings.input_topics):
        for name in ("offset", "epoch"):
            if field.name == f"{name}[{number}]":
                return replace(field, name=f"{name} of {topic}")
    return field
