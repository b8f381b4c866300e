"""What stands at the broker's address when it is no broker; TLS is in integration/test_tls.py."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stream_app.broker import free_port, wait_until_ready
from stream_app.errors import BrokerError
from stream_app.probe import Trouble, probe

TLS = {"ssl_context": ssl.create_default_context()}
KAFKA = b"\0\0\0\x0a\0\0\0\1\0\0\0\0\0\0"


@contextmanager
def server(answer: bytes | None) -> Iterator[str]:
    """Sends the answer to each connection that has sent something; None: stays silent."""
    over = threading.Event()

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            if answer is None:
                over.wait(30)
            else:
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=[0.05])
        thread.start()
        try:
            yield "{}:{}".format(*serving.server_address)
        finally:
            over.set()
            serving.shutdown()
            thread.join()


def test_an_answer_of_kafka() -> None:
    with server(KAFKA) as address:
        assert probe(address, {}, 5.0) is None


@pytest.mark.parametrize(
    ("answer", "cause", "is_lasting"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "what answers is not Kafka", True),
        (b"\x15\x03\x03\0\x02\x02\x28", "it speaks TLS", True),
        (b"", "it does not answer as Kafka does without TLS", False),
        (KAFKA[:7] + b"\2" + KAFKA[8:], "what answers is not Kafka", True),
    ],
)
def test_an_answer_of_something_else(answer: bytes, cause: str, is_lasting: bool) -> None:
    with server(answer) as address:
        found = probe(address, {}, 5.0)
    assert isinstance(found, Trouble)
    assert (found.cause, found.is_lasting) == (cause, is_lasting)


def test_silence_has_an_end() -> None:
    with server(None) as address:
        plain = probe(address, {}, 0.2)
        tls = probe(address, TLS, 0.2)
    assert plain == Trouble(
        "it does not answer as Kafka does without TLS",
        "check the port, and set INTEREST_KAFKA_SECURITY_PROTOCOL to SSL if it speaks TLS",
    )
    assert tls is not None
    assert tls.cause == "it does not speak TLS"


def test_http_is_no_tls() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n") as address:
        found = probe(address, TLS, 5.0)
    assert found is not None
    assert (found.cause, found.is_lasting) == ("it does not speak TLS", True)


def test_a_name_that_nobody_has() -> None:
    found = probe("no-such-host.invalid:9092", {}, 1.0)
    assert found is not None
    assert found.cause == "its name is not known"


def test_what_cannot_mend_is_told_at_once() -> None:
    with (
        server(b"HTTP/1.1 400 Bad Request\r\n") as address,
        pytest.raises(BrokerError, match=r"not Kafka.*INTEREST_KAFKA"),
    ):
        wait_until_ready({"bootstrap_servers": [address]}, 600.0)


def test_what_may_mend_is_waited_for() -> None:
    with server(b"HTTP/1.1 400 Bad Request\r\n") as address:
        servers = [address, f"127.0.0.1:{free_port()}"]
        with pytest.raises(BrokerError, match="nothing listens there"):
            wait_until_ready({"bootstrap_servers": servers}, 0.3)
