"""Questions to workers: addresses, refusals, and answers that no worker gives."""

from __future__ import annotations

import socket
import threading

import pytest
from rich.text import Text

from stream_app.errors import UsageError, WorkerError
from stream_app.terminal import plain
from stream_app.worker_http import UnknownUserError, ask, worker_url

TIMEOUT_S = 5.0


def answered(answer: bytes) -> bytes:
    """What comes of a question to a server that gives this answer, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return ask(f"http://127.0.0.1:{listener.getsockname()[1]}/users/ann", "t", TIMEOUT_S)
        finally:
            thread.join()


def test_an_answer_and_the_refusals() -> None:
    assert answered(b"HTTP/1.0 200 OK\r\n\r\n{}") == b"{}"
    with pytest.raises(UnknownUserError, match="Nobody"):
        answered(b'HTTP/1.0 404 Not Found\r\n\r\n{"error": "Nobody."}')
    with pytest.raises(WorkerError, match="answers 500; look at its log"):
        answered(b"HTTP/1.0 500 Oh\r\n\r\nno JSON")
    with pytest.raises(WorkerError, match="No worker answers at http://127"):
        answered(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(WorkerError, match="No worker answers at http://h:abc"):
        ask("http://h:abc/users/ann", None, TIMEOUT_S)


def test_the_address_of_a_worker() -> None:
    assert worker_url("http://worker-1:6066/") == "http://worker-1:6066"
    for wrong in ("localhost", "localhost:6066", "http://a b", "ftp://a", "http://a/path"):
        with pytest.raises(UsageError, match="is no URL of a worker"):
            worker_url(wrong)


def test_text_has_no_markup_of_its_own() -> None:
    for text in ("a[/]b", "[sale] shoes", "[red]x[/red]"):
        assert Text.from_markup(plain(text)).plain == text
    assert Text.from_markup(plain("\x1b[31m")).plain == r"\x1b[31m"  # steers no terminal
