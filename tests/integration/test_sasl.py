"""SASL as far as the handshake, with a stand-in for the broker, or whole with a cluster.

Run it against a cluster that authenticates by INTEREST_KAFKA_BOOTSTRAP,
INTEREST_KAFKA_SECURITY_PROTOCOL, INTEREST_KAFKA_SASL_MECHANISM and the credentials.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from model.checkpoint import save
from stream_app.broker import free_port, wait_until_ready
from stream_app.errors import BrokerError
from stream_app.security import hide_credentials
from stream_app.settings import PREFIX, Settings
from tests.acceptance.test_cli import interest_stream
from tests.checkpoints import tiny_checkpoint
from tests.sasl_server import METADATA, SaslServer, sasl_server
from tests.tls import Certificates, stunnel, terminator

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
USER, PASSWORD, TOKEN = "worker-1", "geheim-47114711", "token-geheim-0815"
WRONG = "falsch-99119911"


@dataclass(frozen=True)
class Peer:
    """Who is asked: `values` are the settings for it; `server` is None for a real cluster."""

    mechanism: str
    values: dict[str, Any]
    server: SaslServer | None

    @property
    def who(self) -> str:
        return TOKEN if self.mechanism == "OAUTHBEARER" else USER

    def wrong(self) -> dict[str, Any]:
        secret = "kafka_oauth_token" if self.mechanism == "OAUTHBEARER" else "kafka_password"
        return {**self.values, secret: WRONG}


@pytest.fixture(params=MECHANISMS)
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    mechanism = request.param
    if f"{PREFIX}KAFKA_BOOTSTRAP" in os.environ:
        if os.environ.get(f"{PREFIX}KAFKA_SASL_MECHANISM", "").upper() != mechanism:
            pytest.skip(f"the cluster is not asked with {mechanism}")
        yield Peer(mechanism, {}, None)
        return
    with sasl_server(USER, PASSWORD, TOKEN) as server:
        yield Peer(mechanism, values(server.bootstrap, mechanism), server)


def values(bootstrap: str, mechanism: str) -> dict[str, Any]:
    own = {"kafka_username": USER, "kafka_password": PASSWORD}
    if mechanism == "OAUTHBEARER":
        own = {"kafka_oauth_token": TOKEN}
    return {
        "kafka_bootstrap": bootstrap,
        "kafka_security_protocol": "SASL_PLAINTEXT",
        "kafka_sasl_mechanism": mechanism,
        **own,
    }


async def faust_connects(settings: Settings) -> None:
    """As Faust does it; KafkaError when it fails."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap.split(","),
        **credentials_to_aiokafka_auth(settings.faust_credentials(), None),
    )
    try:
        await consumer.start()
    finally:
        await consumer.stop()


def assert_was_let_in(peer: Peer) -> None:
    if peer.server is not None:
        assert peer.server.refused == []
        assert set(peer.server.accepted) == {(peer.mechanism, peer.who)}
        assert set(peer.server.later) == {METADATA}


def test_kafka_python_is_let_in(peer: Peer) -> None:
    settings = Settings(**peer.values)
    if peer.server is None:
        wait_until_ready(settings.kafka_python(), 10.0)
    else:
        # Behind the handshake the stand-in has nothing: the client is let in, and gets no answer.
        with pytest.raises(BrokerError, match="KafkaTimeoutError"):
            wait_until_ready(settings.kafka_python(), 0.5)
    assert_was_let_in(peer)


async def test_faust_is_let_in(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hide_credentials()
    settings = Settings(**peer.values)
    if peer.server is None:
        await faust_connects(settings)
    else:
        with pytest.raises(KafkaError):
            await faust_connects(settings)
        assert PASSWORD not in caplog.text
        assert TOKEN not in caplog.text
    assert_was_let_in(peer)


def test_a_refusal_is_one_sentence(peer: Peer, tmp_path: Path) -> None:
    save(tiny_checkpoint(items=12, categories=4, hidden=4), tmp_path / "checkpoint", "")
    wrong = {**peer.wrong(), "checkpoint": tmp_path / "checkpoint", "data_dir": tmp_path / "data"}
    environment = {f"{PREFIX}{name.upper()}": str(value) for name, value in wrong.items()}
    commands = [["topics", "check"]]
    if peer.mechanism == "PLAIN":  # the same connection, with the start of a worker round it
        commands.append(["worker"])
    for command in commands:
        shown = interest_stream(*command, **environment)
        assert shown.returncode == 1, shown.stderr
        assert len(shown.stderr.strip().splitlines()) == 1, shown.stderr
        assert f"SASL {peer.mechanism}" in shown.stderr
        assert "check INTEREST_KAFKA_" in shown.stderr
        for secret in (WRONG, PASSWORD, TOKEN):
            assert secret not in shown.stderr + shown.stdout
    if peer.server is not None:
        assert set(peer.server.refused) == {peer.mechanism}
        assert peer.server.accepted == []


async def test_faust_is_refused(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hide_credentials()
    with pytest.raises(KafkaError):
        await faust_connects(Settings(**peer.wrong()))
    assert WRONG not in caplog.text
    if peer.server is not None:
        assert set(peer.server.refused) == {peer.mechanism}


def test_a_mechanism_that_the_broker_does_not_know() -> None:
    with sasl_server(USER, PASSWORD, TOKEN, knows=("PLAIN",)) as server:
        settings = Settings(**values(server.bootstrap, "SCRAM-SHA-512"))
        with pytest.raises(BrokerError, match="does not know SASL SCRAM-SHA-512"):
            wait_until_ready(settings.kafka_python(), 600.0)


async def test_sasl_over_tls(tmp_path: Path) -> None:
    stunnel()
    certificates, port = Certificates(tmp_path), free_port()
    with sasl_server(USER, PASSWORD, TOKEN) as server:
        broker_port = int(server.bootstrap.rpartition(":")[2])
        secured = {
            **values(f"127.0.0.1:{port}", "SCRAM-SHA-512"),
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ca_file": certificates.ca,
        }
        with terminator(port, broker_port, certificates.broker()):
            settings = Settings(**secured)
            with suppress(BrokerError):  # as above: nothing answers behind the handshake
                wait_until_ready(settings.kafka_python(), 0.5)
            with pytest.raises(KafkaError):
                await faust_connects(settings)
            assert set(server.accepted) == {("SCRAM-SHA-512", USER)}
            wrong = Settings(**{**secured, "kafka_password": WRONG})
            with pytest.raises(BrokerError, match="refuses the user or the password"):
                wait_until_ready(wrong.kafka_python(), 600.0)
