"""The program in deploy/README.md that copies a topic by key, run against a broker."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from stream_app.lane.reading import read_records
from stream_app.partitioner import partition_for
from stream_app.settings import Settings

OPERATE = (Path(__file__).parents[2] / "deploy" / "README.md").read_text("utf-8")
OLD, NEW = 4, 8


def test_each_key_goes_to_its_partition_in_its_order(settings: Settings) -> None:
    old, new = f"{settings.app_id}.old", f"{settings.app_id}.new"
    admin = KafkaAdminClient(**settings.kafka_python())
    for name, count in ((old, OLD), (new, NEW)):
        admin.create_topics({name: {"num_partitions": count, "replication_factor": 1}})
    producer = KafkaProducer(**settings.kafka_python(), acks="all")
    for number in range(500):
        key = b"user-%d" % (number % 30)
        headers, time_ms = [("adapted-from", b"place-%d" % number)], 1_772_360_000_000 + number
        place = partition_for(key, OLD)
        producer.send(old, b"%d" % number, key, headers, partition=place, timestamp_ms=time_ms)
    producer.flush()
    producer.close()

    subprocess.run([sys.executable, "-c", program(settings, old, new)], check=True, timeout=60)

    found: dict[bytes, list[int]] = defaultdict(list)
    for partition in range(NEW):
        for record in read_records(settings, new, partition):
            assert partition_for(record.key, NEW) == partition
            number = int(record.value)
            assert dict(record.headers) == {"adapted-from": b"place-%d" % number}
            assert record.timestamp == 1_772_360_000_000 + number
            found[record.key].append(number)
    admin.delete_topics([old, new])
    admin.close()
    assert found == {b"user-%d" % user: list(range(user, 500, 30)) for user in range(30)}


def program(settings: Settings, old: str, new: str) -> str:
    """The program, with the broker and the topics of this test."""
    _, _, section = OPERATE.partition("## More partitions")
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    found = block[1]
    for shown, own in {
        "127.0.0.1:9092": settings.kafka_bootstrap,
        "interest.clicks.v1": old,
        "interest.clicks.v2": new,
    }.items():
        assert shown in found
        found = found.replace(shown, own)
    return found
