"""Kill -9 in the middle of a replay, again and again: equal rows, no output lost or changed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from model.event_log import read_event_log
from model.learning import LearningSettings
from model.training import TrainingConfig, train
from stream_app import topics
from stream_app.lane.reading import read_records
from stream_app.log_records import log_records
from stream_app.settings import Settings
from stream_app.verify import verify
from tests.shared_data import shared_log
from tests.workers import (
    committed_events,
    overrides_of,
    send_all,
    start_worker,
    wait_until,
)

KILLS = 20
SEED = 20
EVENTS = 182_880


@pytest.mark.usefixtures("dead_sessions_end")
@pytest.mark.timeout(900)
def test_killed_at_20_random_moments_the_rows_are_the_same(
    settings: Settings, tmp_path: Path
) -> None:
    log = read_event_log(shared_log("tmall2014"))
    short = LearningSettings(max_steps=10, counter_steps=20, validate_every=10)
    config = TrainingConfig(refit=False, windows=1000, learning=short)
    checkpoint = train(log.before(int(np.quantile(log.time_ms, 0.2))), config).checkpoint
    overrides = overrides_of(settings, checkpoint, tmp_path)
    topics.create(settings)
    assert send_all(settings, log_records(log)) == EVENTS

    random = np.random.default_rng(SEED)
    killed_midway = 0
    for _ in range(KILLS):
        worker = start_worker(overrides, tmp_path)
        time.sleep(float(random.uniform(0.02, 0.5)))
        worker.kill()
        killed_midway += committed_events(settings) < EVENTS
    worker = start_worker(overrides, tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == EVENTS, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()

    assert killed_midway >= KILLS // 2, "most kills are meant to fall into the replay"
    comparison, offline = verify(settings, checkpoint)
    assert comparison.differing == []
    assert comparison.hidden_difference < 0.005
    assert comparison.events == EVENTS
    assert comparison.users == 884
    assert_outputs_hold(settings, offline.outputs)


def assert_outputs_hold(settings: Settings, expected: dict[str, bytes]) -> None:
    """Every expected output stands on its topic, repeats are equal, and there is no other."""
    seen: dict[str, dict] = {}
    for topic in (settings.drift_topic, settings.recommendations_topic):
        for partition in range(settings.partitions):
            for record in read_records(settings, topic, partition):
                message = json.loads(record.value)
                before = seen.setdefault(message["id"], message)
                assert before == message, "a repeated output differs from the first one"
    assert seen.keys() == expected.keys()
    for name, value in expected.items():
        assert json.loads(value) == seen[name]
