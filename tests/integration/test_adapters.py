"""Mixed topics of all vendors come to the input topics once, whatever breaks on the way."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from model.checkpoint import Checkpoint
from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.demo.processes import WorkerProcess
from stream_app.letter_topic import read_letter_topic
from stream_app.log_tail import Where, read_tail
from stream_app.redrive import Choice, redrive
from stream_app.repartition import step as step_module
from stream_app.repartition.step import STEPS, Repartition
from stream_app.settings import Settings
from stream_app.verify import verify
from tests import mixed_topics
from tests.conftest import own_settings
from tests.mixed_topics import MADE, Mixed, adapter_topics
from tests.noida import NoidaBroker
from tests.workers import start_worker, wait_until

RECORDS = 240
"""Of each vendor: more than all those who are killed can map before."""
LATER = 60
BATCH = 40
KILLED = [f"{when} {step}" for step in STEPS for when in ("before", "after")]
STOPPED = ("before adapted", "before request")


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"adapter_topics": adapter_topics(settings)})


@pytest.fixture
def worker_overrides(settings: Settings, overrides: dict[str, Any]) -> dict[str, Any]:
    return {**overrides, "adapter_topics": settings.adapter_topics, "max_batch_events": BATCH}


@pytest.fixture
def mixed(settings: Settings, overrides: dict[str, Any]) -> Iterator[Mixed]:
    one = Mixed(settings)
    yield one
    one.close()


@pytest.mark.usefixtures("dead_sessions_end")
def test_all_vendors_come_once_though_those_who_map_them_are_killed_and_stopped_and_wake_up(
    settings: Settings,
    checkpoint: Checkpoint,
    mixed: Mixed,
    worker_overrides: dict[str, Any],
    tmp_path: Path,
) -> None:
    mixed.send(RECORDS)
    assert mixed.break_off(10) > 50
    with ExitStack() as all_of_them:

        def step_alone(*fault: str) -> WorkerProcess:
            """The step in a process of its own, which gets a signal in its second batch."""
            program = ("tests.integration.adapter_step", *fault, "2")
            one = WorkerProcess(worker_overrides, tmp_path, "-".join(fault), program)
            all_of_them.callback(one.kill)
            return one

        # They share the partitions, and take over from those who are gone.
        killed = [step_alone("SIGKILL", step) for step in KILLED]
        stopped = [step_alone("SIGSTOP", step) for step in STOPPED]
        processes = [psutil.Process(one.pid) for one in stopped]
        wait_until(lambda: all(one.status() is not None for one in killed))
        assert [one.status() for one in killed] == [-signal.SIGKILL] * len(killed), [
            one.last_line() for one in killed
        ]
        wait_until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in processes))
        assert not mixed.is_mapped(), "all this is meant to come before the end"

        worker = start_worker(worker_overrides, tmp_path)
        all_of_them.callback(worker.kill)
        wait_until(mixed.is_done, worker)
        for process in processes:
            os.kill(process.pid, signal.SIGCONT)
        mixed.send(LATER)
        wait_until(mixed.is_done, worker)
        for one in stopped:
            one.check_alive()
            one.kill()
        wait_until(lambda: lags(worker) == dict.fromkeys(settings.adapters, 0.0), worker)
        assert worker.stop() == 0
    assert mixed.broken() == []
    held = read_letter_topic(settings, lambda letter: True).letters
    assert {source: letter.reason for source, letter in held.items()} == mixed.letters()
    comparison, _ = verify(settings, checkpoint)
    assert comparison.differing == []
    ids = {(one.key, json.loads(one.value)["event_id"]) for one in mixed.events().values()}
    assert comparison.events == len(ids) == len(mixed.events())
    refused = redrive(settings, Choice(), lambda: int(time.time() * 1000), dry_run=True).refused
    assert dict(refused) == dict.fromkeys(
        mixed.letters(), "It is an event of another product; send it, mended, to its own topic."
    )


def lags(worker: WorkerProcess) -> dict[str, float]:
    """Of each mixed topic, the records that are not mapped."""
    found: dict[str, float] = {}
    for (name, labels), value in worker.metrics().items():
        if name == "interest_consumer_lag_events" and labels[1].endswith(tuple(MADE)):
            found[labels[1]] = found.get(labels[1], 0.0) + value
    return found


def test_brokers_that_do_not_answer_are_waited_for(tmp_path: Path) -> None:
    with EmbeddedBroker(log_file=tmp_path / "broker.log") as broker:
        settings = own_settings(broker.bootstrap, tmp_path)
        changes = {"adapter_topics": adapter_topics(settings), "max_batch_events": BATCH}
        times = {"session_timeout_s": 2.0, "heartbeat_s": 0.5, "rebalance_timeout_s": 3.0}
        settings = settings.model_copy(update={**changes, **times})
        topics.create(settings)
        mixed = Mixed(settings)
        mixed.send(RECORDS)
        processes = psutil.Process(broker._process.pid).children(recursive=True)
        is_still = threading.Event()
        batches = 0

        def at_step(name: str) -> None:
            nonlocal batches
            batches += name == "before adapted"
            if batches == 3 and not is_still.is_set():
                for process in processes:
                    process.suspend()
                is_still.set()

        failures: list[Exception] = []
        step = Repartition(settings, lambda report: None, failures.append, at_step)
        step.start()
        try:
            wait_until(is_still.is_set)
            time.sleep(2 * settings.session_timeout_s)  # so that the batch is broken off
            for process in processes:
                process.resume()
            wait_until(lambda: bool(failures) or mixed.is_mapped())
        finally:
            step.stop()
        assert failures == []
        assert mixed.broken() == []
        mixed.close()


def test_who_takes_over_looks_from_where_the_commit_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("noida_db", reason="noida-db, which keeps metadata, is not installed")
    monkeypatch.setattr(mixed_topics, "PRODUCED_MS", int(time.time() * 1000) - 100_000)
    begun: list[int] = []

    def noted(settings: Settings, starts: dict[Where, int], ends: dict[Where, int]) -> Any:
        begun.append(sum(starts.values()))
        return read_tail(settings, starts, ends)

    monkeypatch.setattr(step_module, "read_tail", noted)
    with NoidaBroker(tmp_path / "noida") as broker:
        settings = own_settings(broker.bootstrap, tmp_path)
        settings = settings.model_copy(update={"adapter_topics": adapter_topics(settings)})
        topics.create(settings)
        mixed = Mixed(settings)
        for _ in range(2):
            written = len(mixed.events()) + len(mixed.letters())
            mixed.send(LATER)
            failures: list[Exception] = []
            step = Repartition(settings, lambda report: None, failures.append)
            step.start()
            try:
                wait_until(lambda found=failures: bool(found) or mixed.is_mapped())  # type: ignore[misc]
            finally:
                step.stop()
            assert failures == []
            assert begun[-1] == written
        assert mixed.broken() == []
        mixed.close()


def test_what_a_short_commit_leaves_behind_is_still_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("noida_db", reason="noida-db, which keeps metadata, is not installed")
    monkeypatch.setattr(mixed_topics, "PRODUCED_MS", int(time.time() * 1000) - 100_000)
    with NoidaBroker(tmp_path / "noida") as broker:
        settings = own_settings(broker.bootstrap, tmp_path)
        settings = settings.model_copy(update={"adapter_topics": adapter_topics(settings)})
        topics.create(settings)
        mixed = Mixed(settings)
        mixed.send(LATER)

        def run_until_broken(step_name: str, batch: int) -> None:
            def break_at(name: str) -> None:
                if name == step_name:
                    raise InterruptedError(name)

            failures: list[Exception] = []
            few = settings.model_copy(update={"max_batch_events": batch})
            step = Repartition(few, lambda report: None, failures.append, break_at)
            step.start()
            try:
                wait_until(lambda: bool(failures))
            finally:
                step.stop()
            assert [str(failure) for failure in failures] == [step_name]

        # The first leaves a batch without a commit, the second commits one record of it.
        run_until_broken("before adapter_offsets", BATCH)
        run_until_broken("after adapter_offsets", 1)
        step = Repartition(settings, lambda report: None, lambda error: None)
        step.start()
        try:
            wait_until(mixed.is_mapped)
        finally:
            step.stop()
        assert mixed.broken() == []
        mixed.close()


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
