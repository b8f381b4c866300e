"""Worker, command line and demo over a real TLS connection, and one sentence when it fails.

stunnel stands in front of an embedded broker that sends its clients to stunnel's port.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import save
from stream_app import topics
from stream_app.broker import EmbeddedBroker, free_port
from stream_app.lane.reading import read_records
from stream_app.settings import PREFIX, Settings
from stream_app.verify import verify
from tests.acceptance.test_cli import interest_stream
from tests.checkpoints import tiny_checkpoint
from tests.conftest import own_settings
from tests.integration.test_worker import Feed
from tests.tls import Certificates, stunnel, terminator
from tests.workers import committed_events, overrides_of, start_worker, wait_until

COMMANDS = (["topics", "create"], ["topics", "check"], ["worker"], ["replay", "log.csv"])
EVENTS = 300
SECRET = "geheim-47114711"
BOUND_S = 120.0
"""Of a command that fails: it gives up after 10 s, the rest is the start of four at once."""


@dataclass(frozen=True)
class Place:
    """An embedded broker, the port that it sends its clients to, and certificates."""

    broker: EmbeddedBroker
    port: int
    certificates: Certificates


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    stunnel()
    port = free_port()
    with EmbeddedBroker(advertised_port=port) as broker:
        yield Place(broker, port, Certificates(tmp_path_factory.mktemp("certificates")))


def secured(place: Place, home: Path, **changes: Any) -> Settings:
    """Settings for the broker behind TLS, with names of this test alone."""
    settings = own_settings(f"127.0.0.1:{place.port}", home / "data")
    tls = {"kafka_security_protocol": "SSL", "kafka_ca_file": place.certificates.ca}
    return settings.model_copy(update={**tls, **changes})


def variables(overrides: dict[str, Any]) -> dict[str, str]:
    return {f"{PREFIX}{name.upper()}": str(value) for name, value in overrides.items()}


def test_a_worker_applies_events_over_tls_with_a_client_certificate(
    place: Place, tmp_path: Path
) -> None:
    made = place.certificates
    cert, key = made.client(password=SECRET)
    password = tmp_path / "password"
    password.write_text(SECRET)
    own = {"kafka_cert_file": cert, "kafka_key_file": key, "kafka_key_password_file": password}
    settings = secured(place, tmp_path, **own)
    checkpoint = tiny_checkpoint(items=40, categories=6)
    with terminator(place.port, place.broker.port, made.broker(), made.client_ca):
        topics.create(settings)
        overrides = overrides_of(settings, checkpoint, tmp_path)
        worker = start_worker({**overrides, "log_level": "debug"}, tmp_path)
        feed = Feed(settings)
        try:
            feed.send(EVENTS)
            wait_until(lambda: committed_events(settings) == EVENTS, worker)
            assert worker.stop() == 0
        finally:
            feed.close()
            worker.kill()
        comparison, offline = verify(settings, checkpoint)
        assert comparison.exact
        assert comparison.events == EVENTS
        assert SECRET not in worker.log_file.read_text(errors="replace")
        values = outputs(settings)
        assert values == offline.outputs
        assert any(key.startswith("recommendation:") for key in values)


def outputs(settings: Settings) -> dict[str, bytes]:
    """What stands on the output topics, by id."""
    return {
        json.loads(record.value)["id"]: record.value
        for topic in (settings.drift_topic, settings.recommendations_topic)
        for partition in range(settings.partitions)
        for record in read_records(settings, topic, partition)
    }


def test_the_demo_goes_over_tls_without_a_client_certificate(place: Place, tmp_path: Path) -> None:
    save(tiny_checkpoint(), tmp_path / "checkpoint", "For a test.")
    out = tmp_path / "out.json"
    arguments = ["--no-ui", "--seconds", "3", "--users", "30", "--days", "5"]
    arguments += ["--summary", str(out), "--checkpoint", str(tmp_path / "checkpoint")]
    tls = {
        "kafka_bootstrap": f"127.0.0.1:{place.port}",
        "kafka_security_protocol": "SSL",
        "kafka_ca_file": place.certificates.ca,
        "partitions": 2,
    }
    with terminator(place.port, place.broker.port, place.certificates.broker()):
        shown = interest_stream("demo", *arguments, **variables(tls))
    assert shown.returncode == 0, shown.stderr
    summary = json.loads(out.read_text())
    assert summary["events_applied"] == summary["events_produced"] > 0
    assert summary["rows_exact"] is True


@dataclass(frozen=True)
class Case:
    """What is wrong, and the words that the sentence must have.

    front     options of `terminator`: host or expired certificate, whether clients need one
    settings  what is changed of the settings
    """

    said: tuple[str, ...]
    wrong_host: bool = False
    expired: bool = False
    asks: bool = False
    other_ca: bool = False
    other_client: bool = False
    plain_client: bool = False
    plain_broker: bool = False


CASES = {
    "an authority that signed nothing": Case(
        ("certificate", "INTEREST_KAFKA_CA_FILE"), other_ca=True
    ),
    "another host name": Case(("not valid for", "INTEREST_KAFKA_BOOTSTRAP"), wrong_host=True),
    "an expired certificate": Case(("expired",), expired=True),
    "no client certificate": Case(("certificate", "INTEREST_KAFKA_CERT_FILE"), asks=True),
    "a client certificate of another authority": Case(
        ("certificate", "INTEREST_KAFKA_CERT_FILE"), asks=True, other_client=True
    ),
    "a plain client": Case(("TLS", "INTEREST_KAFKA_SECURITY_PROTOCOL"), plain_client=True),
    "a plain broker": Case(("TLS", "INTEREST_KAFKA_SECURITY_PROTOCOL"), plain_broker=True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_connection_that_fails_is_one_sentence(name: str, place: Place, tmp_path: Path) -> None:
    case, made = CASES[name], place.certificates
    port = place.broker.port if case.plain_broker else free_port()
    settings: dict[str, Any] = {"kafka_bootstrap": f"127.0.0.1:{port}"}
    if not case.plain_client:
        ca = made.other_ca if case.other_ca else made.ca
        settings |= {"kafka_security_protocol": "SSL", "kafka_ca_file": ca}
    if case.other_client:
        cert, key = made.client(is_of_another=True)
        settings |= {"kafka_cert_file": cert, "kafka_key_file": key}
    save(tiny_checkpoint(items=12, categories=4, hidden=4), tmp_path / "checkpoint", "")
    settings |= {"checkpoint": tmp_path / "checkpoint", "data_dir": tmp_path / "data"}
    log = "user_id,timestamp,event_type,action,item_id,category\n"
    (tmp_path / "log.csv").write_text(
        log + "ann,2026-03-01T10:00:00Z,click,view,item-1,category-1\n"
    )
    with ExitStack() as stack:
        if not case.plain_broker:
            certificate = made.broker("elsewhere.example") if case.wrong_host else made.broker()
            certificate = made.broker(is_expired=True) if case.expired else certificate
            client_ca = made.client_ca if case.asks else None
            stack.enter_context(terminator(port, place.broker.port, certificate, client_ca))
        environment = {**os.environ, **variables(settings), "COLUMNS": "80"}
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "stream_app.cli", *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            for command in COMMANDS
        ]
        for command, process in zip(COMMANDS, running, strict=True):
            _, told = process.communicate(timeout=BOUND_S)
            assert process.returncode == 1, (command, told)
            assert len(told.strip().splitlines()) == 1, (command, told)
            assert told.startswith("BrokerError: "), (command, told)
            for words in case.said:
                assert words in told, (command, told)
