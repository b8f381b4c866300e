"""Topics of the wrong partition count, with more partitions than before, and made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient

from model.events import EventType
from stream_app import topics
from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from tests.failures.chaos.brokers import DiskBroker
from tests.failures.chaos.counts import check_counts
from tests.failures.chaos.invariants import Figures
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.load import Load, Message, Sent
from tests.failures.chaos.refusals import require_refusal
from tests.failures.chaos.run import Run
from tests.failures.chaos.workers import Supervised

EVENTS = 1500
RAISED = 16


@scenario("a topic of another partition count")
def wrong_count(run: Run) -> None:
    """One input topic has a partition more than the others: refused at the start."""
    count, name = run.settings.partitions, f"{run.settings.app_id}.more"
    with _admin(run) as admin:
        admin.create_topics({name: {"num_partitions": count + 1, "replication_factor": 1}})
    try:
        worker = run.worker("refused", ready=False, searches_topic=name)
        require_refusal(run, worker, f"{name} has {count + 1} partitions and {count} are wanted")
        run.note()
    finally:
        with _admin(run) as admin:
            admin.delete_topics([name])
    run.load.send(EVENTS)


@scenario("partitions raised", settles=False, partitions=8, broker=DiskBroker)
def partitions_raised(run: Run) -> None:
    """All topics of 8 partitions get 16 under rows: refused, and a copy by key is the way out."""
    one = run.supervise()
    run.load.send(EVENTS)
    run.wait_until(run.is_settled, "all is applied")
    with _admin(run) as admin:
        names = [name for name in admin.list_topics() if name.startswith(run.settings.app_id)]
        admin.create_partitions(dict.fromkeys(names, RAISED))
    run.note()
    run.wait_until(lambda: bool(one.ends), "the running worker ends")
    words = f"has {RAISED} partitions and {run.settings.partitions} are wanted"
    run.require(words in one.ends[0].sentence, f"the worker ended: {one.ends[0].sentence}")
    one.abandon()
    # With its own rows, and with those of the changelog.
    for name in ("one", "empty") if run.long else ("empty",):
        worker = run.worker(name, ready=False, partitions=RAISED)
        require_refusal(run, worker, "made with 8 partitions", "have 16", "copy the records by key")
    run.figures = _rebuilt_from_a_copy(run)


def _rebuilt_from_a_copy(run: Run) -> Figures:
    """What the invariants say of a worker that reads a copy of the input topics."""
    raised = run.settings.model_copy(update={"partitions": RAISED})
    later = Load(raised, run.seed)
    later.send_messages(later.messages(EVENTS, users="later"))
    later.close()
    home = run.home / "copy"
    home.mkdir()
    copy = Run(run.settings.kafka_bootstrap, home, run.seed, run.long, RAISED)
    copy.overrides |= run.broker.overrides
    try:
        for kind, topic in zip(EventType, run.settings.input_topics, strict=True):
            for partition in range(RAISED):  # old records of a user before those after the raise
                copy.load.send_messages(
                    _moved(kind, record) for record in read_records(raised, topic, partition)
                )
        run.require(copy.load.count == 2 * EVENTS, f"{copy.load.count} records were copied")
        copy.worker()
        return copy.check()
    finally:
        copy.close()


def _moved(kind: EventType, record: Any) -> Message:
    event_id = json.loads(record.value)["event_id"]
    place = partition_for(record.key, RAISED)
    return Message(kind, record.key, record.value, place, event_id)


@scenario("a topic made again between runs", settles=False)
def made_again_between_runs(run: Run) -> None:
    """Topics are deleted and made again while no worker runs: rows are kept, no event is lost."""
    before: list[Sent] = []
    names = run.settings.input_topics
    for topic in (*names, names[0]) if run.long else names[:1]:
        worker = run.worker()
        run.load.send(EVENTS)
        run.wait_until(lambda: _is_settled(run), "all is applied")
        run.require(worker.stop() == 0, "the worker does not end in order")
        before += _make_again(run, topic)
    run.worker()
    _finish(run, before)


@scenario("a topic made again under a worker", settles=False)
def made_again_under_a_worker(run: Run) -> None:
    """A topic is made again while the worker runs, which says so, and is started again."""
    names = run.settings.input_topics
    one = run.supervise()
    before: list[Sent] = []
    for topic in names if run.long else names[:1]:
        before += _made_again_under(run, one, topic)
    _finish(run, before)


def _made_again_under(run: Run, one: Supervised, topic: str) -> list[Sent]:
    """Make the topic again, and wait for the next worker; what was sent before."""
    run.load.send(EVENTS)
    run.wait_until(lambda: _is_settled(run), "all is applied")
    restarts = len(one.ends)
    before = _make_again(run, topic)
    run.load.send(EVENTS // 2)  # fewer than there were
    run.wait_until(lambda: len(one.ends) > restarts, "the worker ends")
    run.wait_until(lambda: _is_settled(run), "the next worker applies what is new")
    return before


def _finish(run: Run, before: list[Sent]) -> None:
    run.load.send(EVENTS)
    run.wait_until(lambda: _is_settled(run), "all is applied")
    run.stop_workers()
    check_counts(run, [*before, *run.load.all()])


def _make_again(run: Run, topic: str) -> list[Sent]:
    """Delete the topic and make it again; what all topics were sent before, which is forgotten."""
    before = run.load.all()
    run.load.forget()
    with _admin(run) as admin:
        admin.delete_topics([topic])
    topics.create(run.settings)
    run.note()
    return before


def _is_settled(run: Run) -> bool:
    """Whether the committed offsets are the ends, and not those of a topic that is gone."""
    committed = run.committed()
    return all(committed.get(place, 0) == end for place, end in run.load.ends().items())


@contextmanager
def _admin(run: Run) -> Iterator[Any]:
    admin = KafkaAdminClient(**run.settings.kafka_python())
    try:
        yield admin
    finally:
        admin.close()
