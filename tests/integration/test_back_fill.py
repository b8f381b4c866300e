"""Rows from a file, published over a real broker, and workers that go on with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from kafka import KafkaProducer
from pyarrow import parquet

from model.checkpoint import Checkpoint
from model.event_log import event_log
from model.state import unpack
from stream_app import history_publishing, replay, topics
from stream_app.back_fill import Report, back_fill, what_next
from stream_app.demo.processes import WorkerProcess
from stream_app.errors import BrokerError, InterestStreamError, TopicError, UsageError
from stream_app.history import history_of
from stream_app.history_publishing import look, publish
from stream_app.history_rows import MadeRows, make_rows
from stream_app.lane.history_mark import BEGUN, COMPLETE, MARK_KEY, decode_mark
from stream_app.lane.reading import read_records
from stream_app.log_records import log_records
from stream_app.settings import PREFIX, Settings
from stream_app.verify import stored_rows, stored_values, with_worker_settings
from stream_app.verify_report import verify_partition
from tests.checkpoints import tiny_checkpoint
from tests.histories import history_table
from tests.unit.test_history_rows import OF_TOPICS, assert_equal
from tests.workers import (
    WAIT_S,
    committed_events,
    overrides_of,
    send_all,
    start_worker,
    wait_until,
)

FASTER = {"rebalance_timeout_s": 3.0, "commit_interval_s": 0.2}
EVENTS = 600
GAP = 100
"""Seconds between two halves of a history: no event of the second is as early as the first's."""


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(items=40, categories=6)


@pytest.fixture
def overrides(settings: Settings, checkpoint: Checkpoint, tmp_path: Path) -> dict[str, Any]:
    return {**overrides_of(settings, checkpoint, tmp_path), **FASTER}


@pytest.fixture
def own(settings: Settings, overrides: dict[str, Any]) -> Settings:
    """Settings as a worker has them; the topics are there."""
    topics.create(settings)
    return Settings(**overrides, data_dir=settings.data_dir)


def nothing(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


def write(path: Path, table: pa.Table) -> Path:
    parquet.write_table(table, path)
    return path


def rows_of(
    table: pa.Table, checkpoint: Checkpoint, settings: Settings, stem: str = "history"
) -> dict[bytes, bytes]:
    """The rows of a whole log, from memory."""
    used = with_worker_settings(checkpoint, settings)
    history = history_of(event_log(table, stem), settings.partitions, used.vocabulary)
    parts = make_rows(history, used, settings.partitions, settings.max_batch_events)
    return {key: row for part in parts for key, row in zip(part.keys, part.values, strict=True)}


def stored(settings: Settings) -> dict[bytes, bytes]:
    """The rows that the changelog ends with."""
    return {
        user.encode(): row
        for number in range(settings.partitions)
        for user, row in stored_rows(settings, number).items()
    }


def marks(settings: Settings) -> list[int | None]:
    found = [stored_values(settings, n).get(MARK_KEY) for n in range(settings.partitions)]
    return [None if value is None else decode_mark(value) for value in found]


def command(overrides: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of `interest-stream replay`."""
    variables = {f"{PREFIX}{key.upper()}": str(value) for key, value in overrides.items()}
    done = subprocess.run(
        [sys.executable, "-m", "stream_app.cli", "replay", *arguments],
        env={**os.environ, **variables, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.timeout(300)
def test_a_worker_goes_on_with_the_rows_of_a_file(
    own: Settings, overrides: dict[str, Any], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    first = history_table(1, EVENTS, users=20)
    # producers send the end of the file once more; then live events, also of users nobody has seen
    again = first.slice(first.num_rows - 8)
    live = pa.concat_tables([again, history_table(2, EVENTS, users=30, start=EVENTS + GAP)])
    whole = pa.concat_tables([first, live])
    path = write(tmp_path / "history.parquet", first)

    status, text = command(overrides, "--offline", str(path))
    assert status == 0, text
    assert f"Published 20 rows to {own.changelog_topic}, of " in text
    assert f"Now start the workers of {own.app_id}" in text
    assert marks(own) == [COMPLETE] * own.partitions
    assert_equal(stored(own), rows_of(first, checkpoint, own))

    events = send_all(own, log_records(event_log(live, "live")))
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(lambda: committed_events(own) == events, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()

    rows = stored(own)
    assert_equal(rows, rows_of(whole, checkpoint, own), OF_TOPICS)
    offsets = unpack(list(rows.values()), checkpoint.hidden)["offset"]
    assert offsets.max() < events
    assert (offsets >= -1).all()
    assert not any(read_records(own, own.dead_letters_topic, n) for n in range(own.partitions))

    # what nobody can tell from the topics is not called wrong
    reports = [verify_partition(own, checkpoint, number) for number in range(own.partitions)]
    assert [report.comparison.differing for report in reports] == [[]] * own.partitions
    assert sum(report.comparison.not_covered for report in reports) == 20
    assert sum(report.comparison.users for report in reports) == 10

    # rows that are made of the topics beside these do not claim to have the file
    beside = replay.prepare(own, 0, None, f"{own.app_id}-new").settings
    try:
        assert marks(beside) == [None] * own.partitions
    finally:
        topics.delete(beside)


@pytest.mark.timeout(300)
def test_rows_published_in_part_are_refused_and_begun_over(
    own: Settings, overrides: dict[str, Any], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    more, fewer = history_table(3, EVENTS, users=40), history_table(4, EVENTS, users=12)
    used = with_worker_settings(checkpoint, own)
    history = history_of(event_log(more, "more"), own.partitions, used.vocabulary)
    (part,) = make_rows(history, used, own.partitions, own.max_batch_events)

    def interrupted() -> Iterator[MadeRows]:
        for slots in (slice(0, 30), slice(30, 40)):  # the first are acknowledged before the second
            yield replace(
                part,
                partition=part.partition[slots],
                keys=part.keys[slots],
                values=part.values[slots],
            )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(own, look(own), interrupted())
    assert stored(own).keys() >= set(part.keys[:30])
    assert marks(own) == [BEGUN] * own.partitions

    worker = WorkerProcess(overrides, tmp_path)
    try:
        wait_until(lambda: worker.status() is not None)
        assert worker.status() == 1
        assert "published in part only; run interest-stream replay" in worker.last_line()
    finally:
        worker.kill()

    ground = look(own)
    assert ground.marks == [BEGUN] * own.partitions
    assert set().union(*ground.left) == stored(own).keys()
    path = write(tmp_path / "fewer.parquet", fewer)
    report = back_fill(own, path, nothing)
    assert (report.is_done, report.rows) == (True, 12)
    assert marks(own) == [COMPLETE] * own.partitions
    assert_equal(stored(own), rows_of(fewer, checkpoint, own, "fewer"))

    # the store of this worker holds rows of the first file
    events = send_all(own, log_records(event_log(more.slice(0, 100), "live")))
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(lambda: committed_events(own) == events, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    fewer_then_live = pa.concat_tables([fewer, more.slice(0, 100)])
    assert len(stored(own)) == len(set(fewer_then_live["user_id"].to_pylist()))


def test_rows_that_are_all_there_take_the_last_marks(
    own: Settings, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "history.parquet", history_table(5, 200))

    def cut_short(settings: Settings, ground: Any, producer: Any) -> None:
        producer.send(1, MARK_KEY, history_publishing._mark(settings, COMPLETE))
        producer.flush()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(history_publishing, "_complete", cut_short)
        report = back_fill(own, path, nothing)
    assert (report.is_done, report.is_begun) == (False, True)
    assert "rows published in part, with which no worker starts" in what_next(own, report)
    assert marks(own) == [BEGUN, COMPLETE, BEGUN, BEGUN]

    report = back_fill(own, tmp_path / "no file is read", nothing)
    assert (report.is_done, report.is_resumed) == (True, True)
    assert "is complete now; the file was not read" in what_next(own, report)
    assert marks(own) == [COMPLETE] * 4
    assert_equal(stored(own), rows_of(history_table(5, 200), checkpoint, own))
    with pytest.raises(UsageError, match="has rows already, or had some"):
        back_fill(own, path, nothing)


def test_another_writer_is_noticed(own: Settings, checkpoint: Checkpoint, tmp_path: Path) -> None:
    table = history_table(6, 200)
    used = with_worker_settings(checkpoint, own)
    history = history_of(event_log(table, "history"), own.partitions, used.vocabulary)

    def disturbed() -> Iterator[MadeRows]:
        other = KafkaProducer(**own.kafka_python(), acks="all")
        other.send(own.changelog_topic, None, b"ann", partition=0).get(WAIT_S)
        other.close()
        yield from make_rows(history, used, own.partitions, own.max_batch_events)

    with pytest.raises(BrokerError, match=r"Another has written to .* partition 0 meanwhile"):
        publish(own, look(own), disturbed())
    assert marks(own) == [BEGUN] * own.partitions


@pytest.mark.timeout(300)
def test_what_cannot_be_is_refused(
    own: Settings, overrides: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    path = write(tmp_path / "history.parquet", history_table(7, 100))

    def refusal(asked: Settings, file: Path = path) -> InterestStreamError:
        with pytest.raises(InterestStreamError) as caught:
            back_fill(asked, file, nothing)
        return caught.value

    assert "set INTEREST_CHECKPOINT" in str(refusal(settings))
    missing = refusal(own.model_copy(update={"app_id": f"{own.app_id}-other"}))
    assert isinstance(missing, TopicError)
    assert "is missing; run interest-stream topics create" in str(missing)
    uneven = refusal(own.model_copy(update={"partitions": 5}))
    assert "has 4 partitions and 5 are wanted" in str(uneven)
    status, text = command(overrides, "--offline", str(tmp_path / "none.parquet"))
    assert (status, "No such file" in text) == (1, True), text
    worker = start_worker(overrides, tmp_path)
    try:
        running = refusal(own)
        assert isinstance(running, UsageError)
        assert "has members, so its offsets cannot be set; end its workers" in str(running)
        events = send_all(own, log_records(event_log(history_table(8, 50), "live")))
        wait_until(lambda: committed_events(own) == events, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    assert "has rows already, or had some" in str(refusal(own))


def test_it_says_what_to_do_next() -> None:
    settings = Settings(app_id="shop")
    done = Report(events=900, repeats=3, users=20, rows=18, seconds=0.5, is_done=True)
    text = what_next(settings, done)
    assert text.startswith("Published 18 rows to shop-user_state-changelog, of 900 events (3 ")
    assert "2 users have expired: 0.5 s, 1,800 events/s. Now start the workers of shop" in text
    assert "before anything was published" in what_next(settings, Report())


def test_options_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    for arguments in (["--offline"], ["--offline", "f.csv", "--rate", "5"]):
        status, text = command({}, *arguments)
        assert status == 2
        assert "UsageError" in text
