"""Mixed topics of all vendors come to the input topics once, whatever breaks on the way."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaProducer, TopicPartition

from model.checkpoint import Checkpoint
from stream_app import topics
from stream_app.adapters.adapt import VENDORS, Adapted, adapt
from stream_app.admin import admin_client
from stream_app.demo.processes import WorkerProcess
from stream_app.events import Source
from stream_app.lane.reading import read_records
from stream_app.letter_topic import read_letter_topic
from stream_app.partitioner import partition_for
from stream_app.repartition.places import LETTER, Place, read_place
from stream_app.repartition.step import STEPS, Repartition, group_of
from stream_app.settings import Settings
from stream_app.verify import verify
from tests.unit.adapters.examples import (
    action,
    described,
    ga4_item,
    ga4_row,
    retail_event,
    segment_call,
    snowplow_line,
)
from tests.workers import committed_events, start_worker, wait_until

MIXED_PARTITIONS = 3
RECORDS = 240
"""Of each vendor."""
PRODUCED_MS = 1_772_360_105_000
BATCH = 40


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def ga4(number: int, user: str) -> bytes:
    time = 1_772_360_000_000_000 + number * 1_000_000
    if number % 5 == 0:
        events = [
            {"name": "view_item", "params": {"items": [{"item_id": f"item-{number % 40}"}]}},
            {"name": "page_view", "params": {"n": number}},
            {"name": "search", "params": {"search_term": f"term {number % 7}"}},
        ]
        body = {"client_id": user, "timestamp_micros": time, "events": events}
        return _json(body)
    items = [ga4_item(f"item-{(number + n) % 40}", f"category-{number % 6}") for n in range(2)]
    name = ("add_to_cart", "select_item", "purchase", "page_view")[number % 4]
    return _json(ga4_row(name, user_id=user, event_timestamp=time, items=items))


def segment(number: int, user: str) -> bytes:
    product = {"product_id": f"item-{number % 40}", "category": f"category-{number % 6}"}
    name, properties = (
        ("Product Viewed", product),
        ("Products Searched", {"query": f"term {number % 7}"}),
        ("Order Completed", {"order_id": f"o-{number}", "products": [product]}),
        ("Coupon Entered", {}),
    )[number % 4]
    return _json(segment_call(name, properties, userId=user, messageId=f"segment-{number}"))


def retail(number: int, user: str) -> bytes:
    details = [{"product": {"id": f"item-{number % 40}"}, "quantity": 1}]
    name = ("detail-page-view", "purchase-complete", "home-page-view")[number % 3]
    more = {"userInfo": {"userId": user}, "sessionId": f"s-{number}"}
    return _json(retail_event(name, productDetails=details, **more))


def snowplow(number: int, user: str) -> bytes:
    product = described(
        "product", {"id": f"item-{number % 40}", "category": f"category-{number % 6}"}
    )
    if number % 4 == 3:
        return b"broken\tline"
    name = ("product_view", "add_to_cart", "transaction")[number % 4]
    return snowplow_line(action(name), [product, product], f12=user, f6=f"snowplow-{number}")


MADE: dict[str, Callable[[int, str], bytes]] = {
    "ga4": ga4,
    "segment": segment,
    "retail": retail,
    "snowplow": snowplow,
}


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    named = ",".join(f"{settings.app_id}.{vendor}={vendor}" for vendor in MADE)
    changed = settings.model_copy(update={"adapter_topics": named, "max_batch_events": BATCH})
    with admin_client(changed) as admin:
        config = {"num_partitions": MIXED_PARTITIONS, "replication_factor": 1}
        admin.create_topics(dict.fromkeys(changed.adapters, config))
        admin.wait_for_topics(list(changed.adapters))
    yield changed
    with admin_client(changed) as admin:
        admin.delete_topics(list(changed.adapters), raise_errors=False)
        admin.delete_groups([group_of(changed)])


class Mixed:
    """What was written to the mixed topics, and what has to come of it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.epochs = topics.adapter_epochs(settings)
        self.records: dict[tuple[str, int], list[tuple[int, Adapted]]] = {}
        self.count = 0

    def send(self, records: int = RECORDS) -> None:
        """As many records of each vendor, with keys that say nothing of the user."""
        producer = KafkaProducer(**self.settings.kafka_python(), linger_ms=5)
        for topic, vendor in self.settings.adapters.items():
            futures = []
            for number in range(self.count, self.count + records):
                value = MADE[vendor](number, f"{vendor}-user-{number % 11}")
                key = None if number % 3 else b"session-%d" % (number % 5)
                place = number % MIXED_PARTITIONS
                future = producer.send(
                    topic, value, key, partition=place, timestamp_ms=PRODUCED_MS + number
                )
                made = adapt(
                    VENDORS[vendor],
                    value,
                    PRODUCED_MS + number,
                    partitions=self.settings.partitions,
                    future_allowance_ms=self.settings.future_allowance_ms,
                    max_value_bytes=self.settings.max_event_bytes,
                )
                futures.append((place, made, future))
            for place, made, future in futures:
                row = future.get(60).offset, made
                self.records.setdefault((topic, place), []).append(row)
        producer.close()
        self.count += records

    def events(self) -> dict[Place, Any]:
        """The events that have to come, by their places."""
        return {
            Place(where, self.epochs[where[0]], offset, number): one
            for where, rows in self.records.items()
            for offset, made in rows
            for number, one in enumerate(made.events)
        }

    def letters(self) -> dict[Source, str]:
        """The dead letters that have to come, and their reasons."""
        return {
            Source(*where, offset): str(made.refused.reason)
            for where, rows in self.records.items()
            for offset, made in rows
            if made.refused is not None
        }

    def is_mapped(self) -> bool:
        """Whether the group has committed all of it."""
        with admin_client(self.settings) as admin:
            group = group_of(self.settings)
            found = admin.list_group_offsets(group).get(group, {})
        return all(
            found.get(TopicPartition(*where)) is not None
            and found[TopicPartition(*where)].offset == rows[-1][0] + 1
            for where, rows in self.records.items()
        )

    def is_done(self) -> bool:
        """Whether all is mapped and applied."""
        return self.is_mapped() and committed_events(self.settings) >= len(self.events())


def check(mixed: Mixed) -> None:
    """Every event and letter stands where it has to, once, and in the order of its source."""
    settings = mixed.settings
    found: Counter[Place] = Counter()
    expected = mixed.events()
    last: dict[tuple[Any, ...], int] = {}
    for topic in settings.input_topics:
        for partition in range(settings.partitions):
            for record in read_records(settings, topic, partition):
                place = read_place(record.headers)
                assert place is not None
                found[place] += 1
                one = expected[place]
                assert (record.key, record.value) == (one.key, one.value)
                assert topic == settings.input_topics[one.event_type]
                assert partition == partition_for(one.key, settings.partitions)
                assert last.get((topic, record.key, place.where), -1) <= place.offset
                last[topic, record.key, place.where] = place.offset
    assert found == Counter(list(expected))
    letters: Counter[Source] = Counter()
    for partition in range(settings.partitions):
        for record in read_records(settings, settings.dead_letters_topic, partition):
            place = read_place(record.headers)
            assert place is not None
            assert place.number == LETTER
            letters[Source(*place.where, place.offset)] += 1
    wanted = mixed.letters()
    assert letters == Counter(list(wanted))
    held = read_letter_topic(settings, lambda letter: True).letters
    assert {source: letter.reason for source, letter in held.items()} == wanted


def run_step(settings: Settings, until: Callable[[], bool]) -> None:
    """Runs the step alone, without a worker."""
    failures: list[Exception] = []
    step = Repartition(settings, lambda report: None, failures.append)
    step.start()
    try:
        wait_until(lambda: until() or bool(failures))
    finally:
        step.stop()
    assert failures == []


def test_what_is_on_its_topic_already_is_left_out(settings: Settings) -> None:
    topics.create(settings)
    mixed = Mixed(settings)
    mixed.send(60)
    run_step(settings, mixed.is_mapped)
    mixed.send(60)
    producer = KafkaProducer(**settings.kafka_python())
    # A batch that broke off: of each partition some events and letters stand there, uncommitted.
    for place, one in mixed.events().items():
        rows = [offset for offset, _ in mixed.records[place.where]]
        if place.offset > rows[len(rows) // 2 - 1] and (place.offset + place.number) % 2:
            producer.send(
                settings.input_topics[one.event_type],
                one.value,
                one.key,
                headers=[place.header()],
                partition=one.partition,
            )
    producer.close()
    run_step(settings, mixed.is_mapped)
    expected, found = mixed.events(), Counter[Place]()
    for topic in settings.input_topics:
        for partition in range(settings.partitions):
            for record in read_records(settings, topic, partition):
                place = read_place(record.headers)
                assert place is not None
                found[place] += 1
    assert found == Counter(list(expected))


@pytest.fixture
def worker_overrides(settings: Settings, overrides: dict[str, Any]) -> dict[str, Any]:
    return {**overrides, "adapter_topics": settings.adapter_topics, "max_batch_events": BATCH}


def step_alone(overrides: dict[str, Any], home: Path, name: str, *fault: str) -> WorkerProcess:
    """The step in a process of its own, which gets a signal."""
    return WorkerProcess(overrides, home, name, ("tests.integration.adapter_step", *fault))


@pytest.mark.usefixtures("dead_sessions_end")
def test_all_vendors_come_once_though_the_step_is_killed_at_each_of_its_steps(
    settings: Settings,
    checkpoint: Checkpoint,
    worker_overrides: dict[str, Any],
    tmp_path: Path,
) -> None:
    mixed = Mixed(settings)
    mixed.send()
    for kill in [f"{when} {step}" for step in STEPS for when in ("before", "after")]:
        one = step_alone(worker_overrides, tmp_path, "step", "SIGKILL", kill, "2")
        try:
            wait_until(lambda one=one: one.status() is not None)  # type: ignore[misc]
            assert one.status() == -signal.SIGKILL, one.last_line()
        finally:
            one.kill()
        assert not mixed.is_mapped(), "kills are meant to come before the end"
    worker = start_worker(worker_overrides, tmp_path)
    try:
        wait_until(mixed.is_done, worker)
        wait_until(lambda: lags(worker) == dict.fromkeys(settings.adapters, 0.0), worker)
        assert worker.stop() == 0
    finally:
        worker.kill()
    check(mixed)
    comparison, _ = verify(settings, checkpoint)
    assert comparison.differing == []
    ids = {(one.key, json.loads(one.value)["event_id"]) for one in mixed.events().values()}
    assert comparison.events == len(ids) == len(mixed.events())


def lags(worker: WorkerProcess) -> dict[str, float]:
    """Of each mixed topic, the records that are not mapped."""
    found: dict[str, float] = {}
    for (name, labels), value in worker.metrics().items():
        if name == "interest_consumer_lag_events" and labels[1].endswith(tuple(MADE)):
            found[labels[1]] = found.get(labels[1], 0.0) + value
    return found


@pytest.mark.usefixtures("dead_sessions_end")
def test_a_step_that_was_stopped_and_wakes_up_doubles_nothing(
    settings: Settings, worker_overrides: dict[str, Any], tmp_path: Path
) -> None:
    mixed = Mixed(settings)
    mixed.send(90)
    stopped = step_alone(worker_overrides, tmp_path, "stopped", "SIGSTOP", "before adapted", "2")
    try:
        process = psutil.Process(stopped.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
        run_step(settings, mixed.is_mapped)
        process.resume()
        mixed.send(30)
        wait_until(mixed.is_mapped, stopped)
    finally:
        stopped.kill()
    check(mixed)


def test_a_missing_mixed_topic_is_one_sentence(settings: Settings) -> None:
    topics.create(settings)
    changed = settings.model_copy(update={"adapter_topics": "nowhere=ga4"})
    sentence = (
        "Topic nowhere of INTEREST_ADAPTER_TOPICS is missing; make it, or take it out of the "
        "setting."
    )
    assert sentence in [str(finding) for finding in topics.check(changed) if finding.is_certain]
    failures: list[Exception] = []
    step = Repartition(changed, lambda report: None, failures.append)
    step.start()
    wait_until(lambda: bool(failures))
    assert [str(failure) for failure in failures] == [sentence]
