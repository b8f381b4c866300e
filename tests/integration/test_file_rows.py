"""Rows that a worker makes from Kafka equal the rows that the file commands make from the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model.event_log import read_event_log
from model.events import Source
from model.prediction import event_cuts
from model.simulation import ShopSettings, simulate, write_simulated
from model.state import new_rows, pack
from model.transition import transition
from stream_app import topics
from stream_app.comparison import compare
from stream_app.log_records import log_records
from stream_app.settings import Settings
from stream_app.verify import stored_rows
from tests.checkpoints import named_checkpoint
from tests.workers import committed_events, overrides_of, send_all, start_worker, wait_until


@pytest.mark.timeout(240)
def test_rows_from_kafka_equal_rows_from_the_file(settings: Settings, tmp_path: Path) -> None:
    # one partition numbers the events of a topic as the file does
    settings = settings.model_copy(update={"partitions": 1})
    path = tmp_path / "shop.parquet"
    write_simulated(simulate(ShopSettings(users=60, days=40, seed=4)), path)
    log = read_event_log(path)
    checkpoint = named_checkpoint(log.items, log.categories)
    topics.create(settings)
    events = send_all(settings, log_records(log))
    worker = start_worker(overrides_of(settings, checkpoint, tmp_path), tmp_path)
    try:
        wait_until(lambda: committed_events(settings) == events, worker)
        assert worker.stop() == 0
    finally:
        worker.kill()

    batch, users = log.batch(checkpoint.vocabulary)
    used = replace(checkpoint, recommend_every=settings.recommend_every, top_k=settings.top_k)
    source = Source(topics.epochs(settings), partitions=1)
    rows = new_rows(len(users), checkpoint.hidden)
    for start, end in event_cuts(batch, 5000):
        part = batch.take(slice(start, end))
        rows, _ = transition(rows, part, source, used)
    from_file = dict(zip(users, pack(rows), strict=True))
    comparison = compare(from_file, stored_rows(settings, 0), checkpoint.hidden)
    assert comparison.events == events
    assert comparison.differing == []
    assert comparison.hidden_difference < 0.005
