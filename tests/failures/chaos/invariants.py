"""Invariants 1 to 3: what was produced against rows, outputs, dead letters and offsets."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from model.checkpoint import Checkpoint
from model.state import unpack
from stream_app.cloud_events import data_in
from stream_app.comparison import compare
from stream_app.lane.journal import read_journal
from stream_app.lane.reading import read_records
from stream_app.settings import Settings
from stream_app.verify import replay, stored_rows
from tests.failures.chaos.load import Kind, Load, Sent

HIDDEN_TOLERANCE = 0.005

Place = tuple[str, int]


@dataclass
class Figures:
    """What the invariants were checked on; broken holds what does not hold, one sentence each.

    events         records that stand on the input topics
    applied        events in the rows
    repeats, dead  records recognised as repeats, records in the dead letters
    lost           distinct events and outputs that are missing
    doubled        times that an event was applied beyond the first
    """

    events: int = 0
    applied: int = 0
    repeats: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0
    broken: list[str] = field(default_factory=list)


def check(settings: Settings, checkpoint: Checkpoint, load: Load) -> Figures:
    """Compare all partitions; the workers have ended, and all is committed."""
    figures = Figures()
    letters = dead_letter_places(settings)
    expected: dict[str, bytes] = {}
    for partition, offline in enumerate(replay(settings, checkpoint)):
        produced = _produced(settings, load, partition, figures)
        stored = stored_rows(settings, partition)
        comparison = compare(offline.rows, stored, checkpoint.hidden)
        expected |= offline.outputs
        figures.events += len(produced)
        figures.applied += comparison.events
        figures.repeats += offline.duplicates
        figures.dead += len(letters[partition])
        _compare_events(produced, stored, checkpoint.hidden, partition, figures)
        _compare_kinds(produced, offline.duplicates, letters[partition], partition, figures)
        total = comparison.events + offline.duplicates + len(letters[partition])
        if total != len(produced):
            figures.broken.append(
                f"partition {partition}: {comparison.events} applied, {offline.duplicates} "
                f"repeats and {len(letters[partition])} dead letters of {len(produced)} produced"
            )
        if comparison.differing:
            figures.broken.append(
                f"partition {partition}: {len(comparison.differing)} rows differ from the offline "
                f"run, the first of {comparison.differing[0]}"
            )
        if comparison.hidden_difference > HIDDEN_TOLERANCE:
            figures.broken.append(
                f"partition {partition}: hidden states differ by {comparison.hidden_difference:.4f}"
            )
    _compare_outputs(settings, expected, figures)
    return figures


def dead_letter_places(settings: Settings) -> dict[int, set[tuple[str, int]]]:
    """Per input partition, (topic, offset) of the records that have a dead letter."""
    places: dict[int, set[tuple[str, int]]] = defaultdict(set)
    for partition in range(settings.partitions):
        for letter in read_records(settings, settings.dead_letters_topic, partition):
            headers = dict(letter.headers)  # the source's own key among them may be no UTF-8
            source = int(headers["source-partition"])
            topic = headers["source-topic"].decode()
            places[source].add((topic, int(headers["source-offset"])))
    return places


def check_committed(
    settings: Settings, checkpoint: Checkpoint, load: Load, committed: Mapping[Place, int]
) -> list[str]:
    """Invariant 3: every event below the committed offsets is in the rows of the changelog.

    committed was read before; rows only grow, so this can be asked at any time.
    """
    broken = []
    for partition in range(settings.partitions):
        journal, rows = read_journal(settings, partition), stored_rows(settings, partition)
        users, states = list(rows), unpack(list(rows.values()), checkpoint.hidden)
        for number, topic in enumerate(settings.input_topics):
            offset = committed.get((topic, partition), 0)
            reached = journal[-1].end[number] if journal else 0
            if offset > reached:
                broken.append(
                    f"{topic} partition {partition} is committed up to {offset}, and the journal "
                    f"ends at {reached}"
                )
            applied = dict(zip(users, states["offset"][:, number].tolist(), strict=True))
            missing = [
                one
                for one in load.copy(topic, partition)
                if one.kind == "event"
                and one.offset < offset
                and applied.get((one.key or b"").decode(), -1) < one.offset
            ]
            if missing:
                broken.append(
                    f"{topic} partition {partition} is committed up to {offset}, but the rows "
                    f"lack {len(missing)} events below it, the first at {missing[0].offset}"
                )
    return broken


def _produced(
    settings: Settings, load: Load, partition: int, figures: Figures
) -> dict[tuple[str, int], Sent]:
    """All records of a partition by (topic, offset): as acknowledged, and what else stands there.

    A record whose acknowledgement was lost stands there too, and is there again if it was retried.
    """
    found: dict[tuple[str, int], Sent] = {}
    for topic in settings.input_topics:
        known = {one.offset: one for one in load.copy(topic, partition)}
        ids = {one.event_id for one in known.values() if one.kind == "event"}
        standing = {r.offset: r for r in read_records(settings, topic, partition)}
        gone = known.keys() - standing.keys()
        if gone:
            figures.broken.append(
                f"the broker lost {len(gone)} acknowledged records of {topic} partition {partition}"
            )
        for offset, record in standing.items():
            one = known.get(offset)
            if one is None:
                event_id = str(json.loads(record.value)["event_id"])
                kind: Kind = "repeat" if event_id in ids else "event"
                ids.add(event_id)
                one = Sent(offset, record.key, event_id, kind)
            found[topic, offset] = one
    return found


def _compare_events(
    produced: Mapping[tuple[str, int], Sent],
    stored: Mapping[str, bytes],
    hidden: int,
    partition: int,
    figures: Figures,
) -> None:
    """User by user: distinct events that were produced against events in the row."""
    distinct = {(one.key, one.event_id) for one in produced.values() if one.kind == "event"}
    wanted = Counter((key or b"").decode() for key, _ in distinct)
    counts = unpack(list(stored.values()), hidden)["events"].astype(np.int64).tolist()
    applied = Counter(dict(zip(stored, counts, strict=True)))
    lost, doubled = (wanted - applied).total(), (applied - wanted).total()
    figures.lost += lost
    figures.doubled += doubled
    if lost or doubled:
        users = sorted((wanted - applied) + (applied - wanted))
        figures.broken.append(
            f"partition {partition}: {lost} events lost and {doubled} doubled, at users "
            f"{', '.join(users[:3])}"
        )


def _compare_kinds(
    produced: Mapping[tuple[str, int], Sent],
    repeats: int,
    letters: set[tuple[str, int]],
    partition: int,
    figures: Figures,
) -> None:
    broken = {place for place, one in produced.items() if one.kind == "broken"}
    if broken != letters:
        missing, more = sorted(broken - letters), sorted(letters - broken)
        figures.lost += len(missing)
        figures.broken.append(
            f"partition {partition}: {len(missing)} broken records without a dead letter and "
            f"{len(more)} dead letters of good records, the first of {(missing + more)[0]}"
        )
    sent = sum(one.kind == "repeat" for one in produced.values())
    if sent != repeats:
        figures.broken.append(
            f"partition {partition}: {repeats} repeats recognised of {sent} produced"
        )


def _compare_outputs(settings: Settings, expected: Mapping[str, bytes], figures: Figures) -> None:
    """Invariant 2: every output at least once, repeats equal, none that was not expected."""
    seen: dict[str, bytes] = {}
    differing: set[str] = set()
    for topic in (settings.drift_topic, settings.recommendations_topic):
        for partition in range(settings.partitions):
            for record in read_records(settings, topic, partition):
                if record.value is None:  # of an erasure
                    continue
                value = data_in(record.headers, record.value)
                name = json.loads(value)["id"]
                if json.loads(seen.setdefault(name, value)) != json.loads(value):
                    differing.add(name)
    missing, more = expected.keys() - seen.keys(), seen.keys() - expected.keys()
    differing |= {
        name
        for name in expected.keys() & seen.keys()
        if json.loads(expected[name]) != json.loads(seen[name])
    }
    figures.lost += len(missing)
    for names, what in (
        (missing, "outputs are missing"),
        (more, "outputs are not of the offline run"),
        (differing, "outputs differ from the offline run or from their first copy"),
    ):
        if names:
            figures.broken.append(f"{len(names)} {what}, the first {min(names)}")
