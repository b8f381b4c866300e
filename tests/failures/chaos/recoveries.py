"""Recoveries from a changelog that is not as the worker left it."""

from __future__ import annotations

import shutil
from typing import Any

import rocksdict
from faust.stores.rocksdb import Store
from kafka import KafkaProducer
from kafka.errors import KafkaError

from stream_app.verify import stored_values
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.run import Run
from tests.failures.chaos.workers import ChaosWorker

EVENTS = 1500
AHEAD = 1000
READY_S = 60.0


@scenario("changelog without its last record")
def without_tail(run: Run) -> None:
    """No record stands at the changelog's last offsets, as after a compaction or a transaction."""
    for turn in range(4 if run.long else 1):
        worker = run.worker()
        run.wait_until(run.applied(run.load.send(EVENTS)), "the events are applied")
        run.require(worker.stop() == 0, "the worker does not end in order")
        _end_with_nothing(run)
        if turn % 2:
            shutil.rmtree(run.home / "one")
        run.note()
    _start(run)
    run.load.send(EVENTS)


@scenario("store ahead of its changelog")
def store_ahead(run: Run) -> None:
    """The store has reached offsets that the changelog does not have; the rows come back."""
    for _ in range(5 if run.long else 1):
        worker = run.worker()
        run.wait_until(run.applied(run.load.send(EVENTS)), "the events are applied")
        run.require(worker.stop() == 0, "the worker does not end in order")
        for path in sorted(run.home.glob("one/**/user_state-*.db")):
            store = rocksdict.Rdict(str(path), options=rocksdict.Options(raw_mode=True))
            reached: Any = store[Store.offset_key]
            store[Store.offset_key] = str(int(reached) + AHEAD).encode()
            store.close()
            run.note()
        _start(run)
        run.load.send(EVENTS)
        run.settle()
        run.stop_workers()


def _start(run: Run) -> ChaosWorker:
    """A worker that is ready; where it is refused and told to delete its folder, after that."""
    worker = run.worker(ready=False)
    run.wait_until(
        lambda: worker.status() is not None or worker.is_ready(),
        "the worker is ready, or is gone with a sentence",
        READY_S,
    )
    if worker.status() is None:
        return worker
    folder = run.home / "one"
    run.require(f"copy of the folder {folder}, delete it" in worker.last_line(), worker.last_line())
    shutil.rmtree(folder)
    return run.worker()


def _end_with_nothing(run: Run) -> None:
    """Commit a transaction to each partition of the changelog: its marker takes the last offset.

    The record in it is a row as it stands there already.
    """
    producer = KafkaProducer(**run.settings.kafka_python(), transactional_id=run.settings.app_id)
    try:
        producer.init_transactions()
        for partition in range(run.settings.partitions):
            key, value = next(iter(stored_values(run.settings, partition).items()))
            producer.begin_transaction()
            producer.send(run.settings.changelog_topic, value, key, partition=partition)
            producer.commit_transaction()
    except KafkaError as error:
        run.skip(f"this broker has no transactions ({error})")
    finally:
        producer.close()
