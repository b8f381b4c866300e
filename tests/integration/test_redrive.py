"""Letters go to a real worker again, each of them once, however often and however it breaks off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from kafka import KafkaProducer

from model.checkpoint import Checkpoint
from model.events import EventType
from model.state import HASHES, unpack
from stream_app import admin, topics
from stream_app.dead_letters import Stored, dead_letter, place_of, read_letter
from stream_app.demo.processes import WorkerProcess
from stream_app.errors import BrokerError, DeadLetterError
from stream_app.events import Source
from stream_app.lane.reading import read_records
from stream_app.letter_records import follow
from stream_app.letter_sender import LEASE_MS, REDRIVEN_FROM
from stream_app.letter_topic import RedriveMark, read_letter_topic
from stream_app.partitioner import partition_for
from stream_app.redrive import Choice, Report, redrive
from stream_app.settings import PREFIX, Settings
from stream_app.verify import stored_rows, verify
from tests.integration.broken_messages import good_event
from tests.workers import WAIT_S, committed_events, overrides_of, start_worker, wait_until

CLICK, SEARCH, PURCHASE = EventType
EARLY = 2 * HASHES
"""Letters of one user: more than a row remembers ids of."""
TOO_LONG = 2000
DAY_MS = 86_400_000


def clock() -> int:
    return int(time.time() * 1000)


def later() -> int:
    """When a begun mark of now no longer counts as under way."""
    return clock() + LEASE_MS


class Shop:
    """Produces events, and remembers how many the worker takes in the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
        self.sent = 0

    def send(
        self,
        user: str,
        kind: EventType = CLICK,
        key: bytes | None = b"",
        shift: int = 0,
        produced_ms: int | None = None,
        value: bytes | None = None,
        **changes: Any,
    ) -> None:
        """One event; key b"" is the user's, and shift leads to another partition."""
        self.sent += 1
        if value is None:
            value = json.dumps(good_event(kind, user, self.sent, **changes)).encode()
        place = (partition_for(user.encode(), self.settings.partitions) + shift) % 4
        self.producer.send(
            self.settings.input_topics[kind],
            value,
            user.encode() if key == b"" else key,
            partition=place,
            timestamp_ms=produced_ms,
        )

    def send_all(self) -> None:
        """Good events, events of which the reason passes, and events that stay broken."""
        now = clock()
        for number in range(60):
            self.send(f"user-{number % 7}", EventType(number % 3))
        for _ in range(EARLY):  # produced before their time, which has come by now
            self.send("early", produced_ms=now - 2 * DAY_MS, timestamp=now - DAY_MS // 2)
            self.send("early", timestamp=now - DAY_MS // 2)
        self.send("nokey", SEARCH, key=None)
        self.send("other", PURCHASE, key=b"somebody")
        self.send("user-1", shift=1)
        self.send("long", shift=1, padding="x" * TOO_LONG)
        self.send("broken", value=b"{")
        self.send("broken", value=b'{"user_id": "broken"}')
        self.producer.flush(60)

    passing = EARLY + 4
    staying = 2


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"dead_letter_max_bytes": 1000})


@pytest.fixture
def shop(settings: Settings) -> Iterator[Shop]:
    topics.create(settings)
    one = Shop(settings)
    one.send_all()
    yield one
    one.producer.close()


@pytest.fixture
def worker(
    shop: Shop, settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> Iterator[WorkerProcess]:
    """A worker that has applied what the shop sent."""
    overrides = {**overrides_of(settings, checkpoint, tmp_path), "commit_interval_s": 0.2}
    one = start_worker(overrides, tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == shop.sent, one)
        yield one
    finally:
        one.kill()


def places(report: Report) -> list[str]:
    return [place_of(source) for source, _ in report.sent]


def redriven(settings: Settings, user: bytes | None = None) -> list[tuple[Source, str]]:
    """Where records (of a user) stand that were sent again, and the places they come from."""
    return [
        (Source(topic, partition, record.offset), dict(record.headers)[REDRIVEN_FROM].decode())
        for topic in settings.input_topics
        for partition in range(settings.partitions)
        for record in read_records(settings, topic, partition)
        if REDRIVEN_FROM in dict(record.headers) and user in (None, record.key)
    ]


def end(worker: WorkerProcess, shop: Shop, settings: Settings, checkpoint: Checkpoint) -> None:
    """Everything that can be applied was applied, once, and verify agrees."""
    total = shop.sent + Shop.passing
    wait_until(lambda: committed_events(settings) == total, worker)
    assert worker.stop() == 0
    assert len(redriven(settings)) == Shop.passing
    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    assert comparison.events == shop.sent - Shop.staying
    assert offline.duplicates == 0
    rows = {}
    for partition in range(settings.partitions):
        rows.update(stored_rows(settings, partition))
    events = {
        user: int(unpack([row], checkpoint.hidden)["events"][0]) for user, row in rows.items()
    }
    assert events["early"] == 2 * EARLY
    assert {events[user] for user in ("nokey", "other", "long")} == {1}
    assert "somebody" not in events


def test_redriven_once_twice_and_five_times_they_are_applied_once(
    worker: WorkerProcess, shop: Shop, settings: Settings, checkpoint: Checkpoint
) -> None:
    dry = redrive(settings, Choice(), clock, dry_run=True)
    assert {at for _, at in dry.sent} == {None}
    assert redriven(settings) == []

    first = redrive(settings, Choice(), clock)

    assert places(first) == places(dry)
    assert len(first.sent) == Shop.passing
    assert first.before == []
    assert {reason for _, reason in first.refused} == {
        "It would be refused again (invalid_json): "
        "The value is not JSON: Input data was truncated.",
        "It would be refused again (missing_field): Object missing required field `event_id`.",
    }
    for _ in range(4):
        again = redrive(settings, Choice(), clock)
        assert again.sent == []
        assert sorted(map(repr, again.before)) == sorted(map(repr, first.sent))
        assert len(again.refused) == Shop.staying
    found = redriven(settings)
    assert sorted((place_of(at), was) for at, was in found) == sorted(
        (place_of(at), place_of(source)) for source, at in first.sent if at
    )
    offsets = [int(was.rpartition(":")[2]) for _, was in redriven(settings, b"early")]
    assert offsets == sorted(offsets), "events of a user keep their order"
    assert len(offsets) == EARLY
    end(worker, shop, settings, checkpoint)


@pytest.mark.parametrize("step", ["after begun", "after sent"])
def test_killed_on_the_way_they_are_applied_once(
    worker: WorkerProcess, shop: Shop, settings: Settings, checkpoint: Checkpoint, step: str
) -> None:
    assert killed(settings, step) == -9
    assert len(redriven(settings)) == (Shop.passing if step == "after sent" else 0)

    with pytest.raises(DeadLetterError, match=r"Another redrive is sending .* again in \d+ s"):
        redrive(settings, Choice(), clock)
    report = redrive(settings, Choice(), later)
    assert len(report.before if step == "after sent" else report.sent) == Shop.passing
    again = redrive(settings, Choice(), clock)
    assert (len(again.sent), len(again.before)) == (0, Shop.passing)
    end(worker, shop, settings, checkpoint)


def killed(settings: Settings, step: str) -> int:
    """Exit status of a redrive that dies at a step."""
    changed = settings.model_dump(exclude_defaults=True)
    environment = {f"{PREFIX}{key.upper()}": str(value) for key, value in changed.items()}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.killed_redrive", step],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode


def meanwhile(step: str, other: Callable[[], object]) -> Callable[[str], None]:
    def at_step(name: str) -> None:
        if name == step:
            other()

    return at_step


def test_of_two_at_once_one_sends(
    worker: WorkerProcess, shop: Shop, settings: Settings, checkpoint: Checkpoint
) -> None:
    def other() -> None:
        with pytest.raises(DeadLetterError, match="Another redrive is sending"):
            redrive(settings, Choice("timestamp_in_future"), clock)
        seen.append("refused")

    seen: list[str] = []
    redrive(settings, Choice("timestamp_in_future"), clock, at_step=meanwhile("after begun", other))
    assert seen == ["refused"]
    # Both have read the letters before either has begun.
    overtakes = meanwhile("before begun", lambda: redrive(settings, Choice(), clock))
    with pytest.raises(DeadLetterError, match="Another redrive has begun"):
        redrive(settings, Choice(), clock, at_step=overtakes)
    end(worker, shop, settings, checkpoint)


def test_what_a_worker_may_read_again_waits(
    shop: Shop, settings: Settings, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    overrides = {**overrides_of(settings, checkpoint, tmp_path), "commit_interval_s": 3600.0}
    worker = start_worker(overrides, tmp_path)
    try:
        everything = Shop.passing + Shop.staying
        wait_until(
            lambda: len(read_letter_topic(settings, lambda letter: True).letters) == everything,
            worker,
        )
        early = redrive(settings, Choice(), clock)
        assert worker.stop() == 0
    finally:
        worker.kill()

    assert {why for _, why in early.refused} == {"The workers have not committed its source yet."}
    assert len(early.refused) == everything
    assert redriven(settings) == []
    assert len(redrive(settings, Choice(), clock).sent) == Shop.passing


def test_only_what_is_chosen_is_sent(worker: WorkerProcess, shop: Shop, settings: Settings) -> None:
    held = read_letter_topic(settings, lambda letter: True)
    assert len(held.letters) == Shop.passing + Shop.staying
    assert held.passed_over == 0
    missing = next(letter for letter in held.letters.values() if letter.reason == "key_missing")

    some = redrive(settings, Choice("timestamp_in_future", limit=3), clock)
    one = redrive(settings, Choice(places=frozenset({missing.source})), clock)
    more = redrive(settings, Choice("timestamp_in_future", limit=3), clock)
    broken = redrive(settings, Choice("invalid_json", limit=1), clock)

    assert [source for source, _ in one.sent] == [missing.source]
    assert len(some.sent) == len(more.sent) == 3
    assert (len(broken.sent), len(broken.refused)) == (0, 1)
    offsets = [source.offset for source, _ in [*some.sent, *more.sent]]
    assert offsets == sorted(set(offsets))
    with pytest.raises(DeadLetterError, match="There is no dead letter nowhere:0:1"):
        redrive(settings, Choice(places=frozenset({Source("nowhere", 0, 1)})), clock)


def test_what_nobody_can_know_is_refused(
    worker: WorkerProcess, shop: Shop, settings: Settings
) -> None:
    early = Choice("timestamp_in_future")
    (lost, *_) = redrive(settings, early, clock, dry_run=True).sent
    # Begun in a topic that has been made anew since: it ends before what is to be looked through.
    mark = RedriveMark(
        source=lost[0],
        run="killed",
        begun_ms=0,
        partition=partition_for(b"early", settings.partitions),
        after_offset=10**6,
    )
    shop.producer.send(
        settings.dead_letters_topic,
        msgspec.json.encode(mark),
        mark.key(),
        mark.headers(),
        lost[0].partition,
    )
    shop.producer.flush(60)

    report = redrive(settings, early, clock)

    ((refused, why),) = report.refused
    assert refused == lost[0]
    assert "no longer tells whether it was sent" in why
    assert len(report.sent) == EARLY - 1


def test_a_pointer_to_nothing_is_refused(settings: Settings) -> None:
    topics.create(settings)
    made = dead_letter(settings.clicks_topic, 0, 5, b"k", b"x" * 2000, "too_large", "Long.", 1000)
    record = SimpleNamespace(**vars(made), timestamp=0, offset=0)
    letter = read_letter(cast(Stored, record))
    assert letter is not None

    with pytest.raises(DeadLetterError, match="its source is gone"):
        follow(settings, letter)


def test_nothing_is_sent_without_a_broker(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:9"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admin, "BROKER_TIMEOUT_S", 0.3)
        with pytest.raises(BrokerError, match=r"127\.0\.0\.1:9"):
            redrive(nowhere, Choice(), clock)
