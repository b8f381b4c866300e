"""A yardstick: a program of one file that does a part of the worker's work, in the same session.

The file is a Faust app that reads JSON clicks keyed by user from the topic `clicks` with 4
partitions of the broker $BROKER, moves a small LSTM state per user, and writes "N events, R
events/s" to result.txt when it has $N of them. It is no part of the project: it compares machines
and sessions.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from model.events import EventType
from stream_app.admin import admin_client
from stream_app.partitioner import partitions_for
from stream_app.settings import Settings
from tests.benchmarks.processes import BenchmarkError, python_path, run_until
from tests.benchmarks.results import QUIX_FOLDER
from tests.benchmarks.workload import START_MS, InputRecord, produce

EVENTS = 200_000
USERS = 20_000
ITEMS = 5_000
PARTITIONS = 4
TOPICS = ("clicks", "out")


def left_out(program: Path) -> str | None:
    """Why the yardstick cannot be measured, None when it can."""
    if not program.is_file():
        return f"The yardstick is left out: there is no file {program.name} where it was named."
    if find_spec("orjson") is None and not (QUIX_FOLDER / "orjson").is_dir():
        return "The yardstick is left out: it needs orjson, which comes with Quix Streams."
    return None


def measure_yardstick(program: Path, bootstrap: str, home: Path) -> float:
    """Its events per second, on a broker that does not have its topics yet.

    Raises:
        BenchmarkError: it ends without a result.
    """
    settings = Settings(
        kafka_bootstrap=bootstrap, clicks_topic=TOPICS[0], partitions=PARTITIONS, data_dir=home
    )
    with admin_client(settings) as admin:
        admin.create_topics(
            {name: {"num_partitions": PARTITIONS, "replication_factor": 1} for name in TOPICS}
        )
        admin.wait_for_topics(list(TOPICS))
    produce(settings, _clicks())
    result = home / "result.txt"
    variables = {"BROKER": settings.faust_broker_url(), "N": str(EVENTS)}
    folders = [program.parent.resolve(), QUIX_FOLDER]
    command = [sys.executable, "-m", "faust", "-A", program.stem, "worker", "-l", "warn"]
    run_until(result, command, home, {**variables, **python_path(folders)}, home)
    found = re.search(r"([\d.]+) events/s", result.read_text("utf-8"))
    if found is None:
        raise BenchmarkError(f"{program.name} wrote no rate to its result.txt.")
    return float(found[1])


def _clicks() -> list[InputRecord]:
    rng = np.random.default_rng(0)
    users = [f"user-{number:06d}" for number in range(USERS)]
    keys = [user.encode() for user in users]
    places = partitions_for(keys, PARTITIONS)
    user, item = rng.integers(0, USERS, EVENTS), rng.integers(0, ITEMS, EVENTS)
    records = []
    for number, (u, i) in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        click = {
            "event_id": f"click-{number}",
            "user_id": users[u],
            "timestamp": START_MS + number,
            "item_id": f"i{i}",
            "action": "view",
        }
        value = json.dumps(click).encode()
        records.append(
            InputRecord(EventType.CLICK, int(places[u]), keys[u], value, START_MS + number)
        )
    return records
