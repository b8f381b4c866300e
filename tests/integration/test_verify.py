"""`verify` over the rows of a real worker: equal, not equal and where, ranges, records given."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner, Result

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import pack, unpack
from stream_app import topics
from stream_app.cli import app
from stream_app.comparison import compare
from stream_app.dead_letters import place_of
from stream_app.events import Source as Place
from stream_app.lane.journal import JournalEntry
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import PREFIX, Settings
from stream_app.verify import (
    Applied,
    OfflineRun,
    Read,
    apply,
    replay_partition,
    stored_rows,
    with_worker_settings,
)
from stream_app.verify_report import histories, verify_partition
from tests.checkpoints import tiny_checkpoint
from tests.conftest import own_settings
from tests.unit.lane_records import record
from tests.workers import committed_events, overrides_of, start_worker, wait_until

FIRST, SECOND = 400, 300
OLD, GONE, NEW = 12, 5, 9
"""Users with events in both parts, in the first alone, in the second alone."""
BASE_MS = int(time.time() * 1000) - 3_600_000
"""Recent: a broker lets go of what is older than its retention."""
CUT_MS = BASE_MS + 1000 * FIRST
"""Between the two parts, by Kafka timestamp."""


@pytest.fixture(scope="module")
def checkpoint(settings: Settings) -> Checkpoint:
    return with_worker_settings(tiny_checkpoint(items=40, categories=6), settings)


@pytest.fixture(scope="module")
def settings(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Topics that a worker has worked through in small batches, part by part."""
    home = tmp_path_factory.mktemp("verify")
    own = own_settings(kafka, home / "data")
    topics.create(own)
    model = tiny_checkpoint(items=40, categories=6)
    overrides = overrides_of(own, model, home) | {"max_batch_events": 20, "commit_interval_s": 0.2}
    worker = start_worker(overrides, home)
    try:
        for start, count, users in ((0, FIRST, OLD + GONE), (FIRST, SECOND, OLD + NEW)):
            send(own, start, count, users, "gone" if start == 0 else "new")
            done = start + count
            wait_until(lambda done=done: committed_events(own) == done, worker)  # type: ignore[misc]
        assert worker.stop() == 0
    finally:
        worker.kill()
    yield own.model_copy(update={"checkpoint": overrides["checkpoint"]})
    topics.delete(own)


def send(settings: Settings, start: int, count: int, users: int, others: str) -> None:
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
    for number in range(start, start + count):
        which = number % users
        user = f"old-{which}" if which < OLD else f"{others}-{which}"
        kind = EventType(number % 3)
        one = record(kind, number, number, user)
        place = partition_for(user.encode(), settings.partitions)
        producer.send(
            settings.input_topics[kind],
            one.value,
            one.key,
            partition=place,
            timestamp_ms=BASE_MS + 1000 * number,
        )
    producer.flush(60)
    producer.close()


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    for key, value in settings.model_dump(exclude_defaults=True).items():
        monkeypatch.setenv(f"{PREFIX}{key.upper()}", str(value))
    return lambda *arguments: CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_equal_rows(run: Callable[..., Result], settings: Settings, tmp_path: Path) -> None:
    done = run("--json", tmp_path / "report.json")

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == [f"partition {n}" for n in range(4)]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["equal"] is True
    found = [partition["comparison"] for partition in report["partitions"]]
    assert sum(one["users"] for one in found) == OLD + GONE + NEW
    assert sum(one["events"] for one in found) == FIRST + SECOND
    assert sum(one["not_covered"] for one in found) == 0
    for one, line in zip(found, lines, strict=True):
        assert one["stored_sha256"] == one["offline_sha256"]
        assert line.count(one["stored_sha256"][:16]) == 2
    assert len({one["stored_sha256"] for one in found}) == 4


def test_one_partition(run: Callable[..., Result]) -> None:
    done = run("--partition", 2)

    assert done.exit_code == 0
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["partition 2"]
    assert run("--partition", 4).exception is not None


@pytest.mark.parametrize(
    ("arguments", "compared", "events"),
    [
        (["--from", CUT_MS], NEW, SECOND),
        (["--to", CUT_MS], GONE, FIRST),
        (["--from", CUT_MS - 10**6, "--to", CUT_MS + 10**7], OLD + GONE + NEW, FIRST + SECOND),
        (["--from", CUT_MS + 10**7], 0, 0),
        (["--to", "2001-01-01"], 0, 0),
    ],
)
def test_a_range_compares_who_lies_in_it_and_counts_the_others(
    run: Callable[..., Result], tmp_path: Path, arguments: list[Any], compared: int, events: int
) -> None:
    done = run(*arguments, "--json", tmp_path / "report.json")

    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    found = [partition["comparison"] for partition in report["partitions"]]
    assert sum(one["users"] for one in found) == compared
    assert sum(one["not_covered"] for one in found) == OLD + GONE + NEW - compared
    assert sum(partition["events"] for partition in report["partitions"]) == events
    assert f"{OLD + GONE + NEW - compared} not covered" in done.stderr


def of(records: dict[str, list[Any]]) -> Read:
    return lambda settings, topic, partition: records[topic]


def test_records_may_come_from_elsewhere(settings: Settings, checkpoint: Checkpoint) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})
    epochs = topics.epochs(settings)
    for partition in range(settings.partitions):
        kept = {
            topic: read_records(settings, topic, partition)
            for topic in (*settings.input_topics, settings.journal_topic, settings.changelog_topic)
        }
        last = {topic: records[-20:] for topic, records in kept.items()}

        whole = replay_partition(nowhere, checkpoint, partition, of(kept), epochs=epochs)
        headless = replay_partition(nowhere, checkpoint, partition, of(last), epochs=epochs)

        stored = stored_rows(settings, partition)
        assert compare(whole.rows, stored, checkpoint.hidden, whole.coverage).exact
        assert whole.coverage.from_beginning or not stored
        assert not headless.coverage.from_beginning
        found = compare(headless.rows, stored, checkpoint.hidden, headless.coverage)
        assert found.exact
        assert bool(found.not_covered) == bool(stored)
        assert found.users + found.not_covered == len(stored)


def rows_of(events: list[Applied], entry: JournalEntry, checkpoint: Checkpoint) -> bytes:
    run = OfflineRun()
    apply(run, events, entry, checkpoint)
    (row,) = run.rows.values()
    return row


def test_what_differs_is_named(
    run: Callable[..., Result], settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    partition = partition_for(b"old-0", settings.partitions)
    before = stored_rows(settings, partition)
    entry, events = histories(settings, partition, list(before), read_records)
    users = sorted(before, key=lambda user: len(events[user]))[-5:]
    short, holed, forgotten, changed, removed = users
    search = next(at for at, one in enumerate(events[forgotten]) if one.topic == EventType.SEARCH)
    twice = unpack([before[changed]], checkpoint.hidden)
    twice["slot_units"][0][3] += 1
    wrong: dict[str, bytes | None] = {
        short: rows_of(events[short][:-2], entry, checkpoint),
        holed: rows_of(events[holed][:-5] + events[holed][-4:], entry, checkpoint),
        forgotten: rows_of(
            events[forgotten][:search] + events[forgotten][search + 1 :], entry, checkpoint
        ),
        changed: pack(twice)[0],
        removed: None,
    }
    expected = {
        short: events[short][-2],
        holed: events[holed][-5],
        forgotten: events[forgotten][search],
        changed: None,
        removed: events[removed][0],
    }
    producer = KafkaProducer(**settings.kafka_python())
    try:
        for user, row in wrong.items():
            producer.send(settings.changelog_topic, row, user.encode(), partition=partition)
        producer.flush(60)
        report = verify_partition(settings, checkpoint, partition)
        done = run("--partition", partition)
    finally:
        for user in users:
            producer.send(
                settings.changelog_topic, before[user], user.encode(), partition=partition
            )
        producer.flush(60)
        producer.close()

    assert report.comparison.differing == sorted(users)
    assert report.comparison.stored_sha256 != report.comparison.offline_sha256
    found = {one.row.user: one for one in report.explained}
    for user, one in expected.items():
        place = None
        if one is not None:
            topic = settings.input_topics[one.topic]
            place = place_of(Place(topic, partition, one.offset))
        assert found[user].place == place, user
    assert [field.name for field in found[changed].row.fields] == ["slot_units[3]"]
    names = {field.name for field in found[short].row.fields}
    assert "events" in names
    last = settings.input_topics[events[short][-1].topic]
    assert f"offset of {last}" in names
    assert done.exit_code == 1
    assert f"  {holed}: {found[holed].place}. The stored row lacks this event" in done.stdout
    lacks_one = "The stored row lacks one event: this one or one of"
    assert f"  {forgotten}: {found[forgotten].place}. {lacks_one}" in done.stdout
    assert "slot_units[3]: stored " in done.stdout
    assert "rows differ" in done.stderr
