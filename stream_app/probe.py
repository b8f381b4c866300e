"""Connects to a broker one layer after the other, to say which of them fails.

The layers are the address, TLS, Kafka's ApiVersions, and SASL up to whether the broker takes us.
The Kafka clients try for as long as they may and then tell of a timeout, whatever the cause was.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kafka.net.sasl import get_sasl_mechanism

CLIENT_ID = b"interest-stream"
MAX_ANSWER_BYTES = 1_000_000
_CORRELATION = 1
_SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 17, 18, 36
_UNSUPPORTED_MECHANISM, _AUTHENTICATION_FAILED = 33, 58
_SASL_STEPS = 4
"""SCRAM takes two; OAUTHBEARER two when it fails."""
_TLS_ALERT = 0x15
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNSUPPORTED_PROTOCOL")
_WRONG_HOST = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_OUT_OF_DATE = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


@dataclass(frozen=True)
class Trouble:
    """Why a broker cannot be talked to: parts of a sentence.

    cause       what is wrong
    advice      what to check
    is_lasting  whether it is no use to wait and try again
    """

    cause: str
    advice: str
    is_lasting: bool = False


def probe(server: str, kafka_python: Mapping[str, Any], timeout_s: float) -> Trouble | None:
    """What is wrong with the broker at ``host:port``; None when it answers as Kafka does.

    Args:
        kafka_python: security, see `Settings.kafka_python`.
        timeout_s: for each of the steps.
    """
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    try:
        connection = socket.create_connection((host, int(port)), timeout_s)
    except socket.gaierror:
        return Trouble("its name is not known", "check INTEREST_KAFKA_BOOTSTRAP")
    except OSError:
        return Trouble("nothing listens there", "start one, or set INTEREST_KAFKA_BOOTSTRAP")
    context: ssl.SSLContext | None = kafka_python.get("ssl_context")
    with connection:
        if context is None:
            return _without_tls(connection) or _with_sasl(connection, kafka_python)
        return _with_tls(connection, context, host, kafka_python)


def _without_tls(connection: socket.socket) -> Trouble | None:
    advice = "check the port, and set INTEREST_KAFKA_SECURITY_PROTOCOL to SSL if it speaks TLS"
    try:
        head = _ask(connection)
    except OSError:
        return Trouble("it does not answer as Kafka does without TLS", advice)
    if head[:1] == bytes([_TLS_ALERT]):
        return Trouble("it speaks TLS", advice, is_lasting=True)
    return _judge(head, advice)


def _with_tls(
    connection: socket.socket, context: ssl.SSLContext, host: str, kafka_python: Mapping[str, Any]
) -> Trouble | None:
    try:
        secure = context.wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        return _not_accepted(error)
    except ssl.SSLError as error:
        return _alerted(error) or _no_tls(is_lasting=(error.reason or "") in _NOT_TLS)
    except OSError:
        return _no_tls(is_lasting=False)
    with secure:
        try:
            head = _ask(secure)
        except ssl.SSLError as error:
            return _alerted(error) or _closed()
        except OSError:
            return _closed()
        trouble = _judge(head, "check INTEREST_KAFKA_BOOTSTRAP")
        return trouble or _with_sasl(secure, kafka_python)


def _with_sasl(connection: socket.socket, kafka_python: Mapping[str, Any]) -> Trouble | None:
    """Trouble only where the broker says no: what else may happen is left to the clients."""
    name: str | None = kafka_python.get("sasl_mechanism")
    if name is None:
        return None
    options = {key: value for key, value in kafka_python.items() if key.startswith("sasl_")}
    mechanism = get_sasl_mechanism(name)(**options)
    try:
        handshake = _call(connection, _SASL_HANDSHAKE, 1, _short(name.encode()))
        if _error_of(handshake) == _UNSUPPORTED_MECHANISM:
            cause = f"it does not know SASL {name}"
            return Trouble(cause, "set INTEREST_KAFKA_SASL_MECHANISM to one that it knows", True)
        for _ in range(_SASL_STEPS):
            token: bytes = mechanism.auth_bytes()
            body = struct.pack(">i", len(token)) + token
            answer = _call(connection, _SASL_AUTHENTICATE, 0, body)
            if _error_of(answer) == _AUTHENTICATION_FAILED:
                return _unknown_user(name)
            if _error_of(answer) != 0:
                return None
            # After the error comes a nullable text, then the length and the bytes of the token.
            text = max(int.from_bytes(answer[2:4], "big", signed=True), 0)
            mechanism.receive(answer[4 + text + 4 :])
            if mechanism.is_done():
                return None
    except (OSError, ValueError, KeyError):
        return None
    return None


def _unknown_user(mechanism: str) -> Trouble:
    is_token = mechanism == "OAUTHBEARER"
    what = "the token" if is_token else "the user or the password"
    advice = "OAUTH_TOKEN" if is_token else "USERNAME and INTEREST_KAFKA_PASSWORD"
    return Trouble(
        f"it refuses {what} of SASL {mechanism}",
        f"check INTEREST_KAFKA_{advice}, or the file that holds it",
        is_lasting=True,
    )


def _not_accepted(error: ssl.SSLCertVerificationError) -> Trouble:
    if error.verify_code in _WRONG_HOST:
        advice = "name the broker in INTEREST_KAFKA_BOOTSTRAP as its certificate does"
    elif error.verify_code in _OUT_OF_DATE:
        advice = "give the broker a new certificate, or check the clock of this machine"
    else:
        advice = "set INTEREST_KAFKA_CA_FILE to the authority that signed it"
    what = error.verify_message.rstrip(".")
    return Trouble(f"its certificate is not accepted: {what}", advice, is_lasting=True)


def _alerted(error: ssl.SSLError) -> Trouble | None:
    """The broker says by an alert that it does not take us; None when the error is another."""
    reason = error.reason or ""
    if "ALERT" not in reason:
        return None
    what = reason.partition("ALERT_")[2].replace("_", " ").lower()
    advice = "check INTEREST_KAFKA_CERT_FILE and INTEREST_KAFKA_KEY_FILE"
    return Trouble(
        f"it refuses our certificate, or has none of us: {what}", advice, is_lasting=True
    )


def _no_tls(is_lasting: bool) -> Trouble:
    advice = "check the port, and INTEREST_KAFKA_SECURITY_PROTOCOL"
    return Trouble("it does not speak TLS", advice, is_lasting)


def _closed() -> Trouble:
    advice = "check INTEREST_KAFKA_CERT_FILE if it asks for a certificate, and the broker's log"
    return Trouble("it ends the connection after the TLS handshake", advice)


def _judge(head: bytes, advice: str) -> Trouble | None:
    size, correlation = struct.unpack(">ii", head)
    if 0 < size <= MAX_ANSWER_BYTES and correlation == _CORRELATION:
        return None
    return Trouble("what answers is not Kafka", advice, is_lasting=True)


def _ask(connection: socket.socket) -> bytes:
    """The first 8 bytes of the answer to ApiVersions, version 0, which every broker knows.

    Raises:
        OSError: the connection ends or stays silent.
    """
    _send(connection, _API_VERSIONS, 0, b"")
    head = _read(connection, 8)
    if not head:
        raise ConnectionResetError
    size = int.from_bytes(head[:4], "big")
    if len(head) == 8 and 4 < size <= MAX_ANSWER_BYTES:
        _read(connection, size - 4)
    return head.ljust(8, b"\0")  # an alert of TLS has 7 bytes


def _call(connection: socket.socket, api: int, version: int, body: bytes) -> bytes:
    """The body of the answer to a request; OSError when none comes, or one of another kind."""
    _send(connection, api, version, body)
    head = _read(connection, 8)
    size = int.from_bytes(head[:4], "big")
    if len(head) < 8 or not 4 < size <= MAX_ANSWER_BYTES:
        raise ConnectionResetError
    return _read(connection, size - 4)


def _send(connection: socket.socket, api: int, version: int, body: bytes) -> None:
    request = struct.pack(">hhi", api, version, _CORRELATION) + _short(CLIENT_ID) + body
    connection.sendall(struct.pack(">i", len(request)) + request)


def _short(text: bytes) -> bytes:
    return struct.pack(">h", len(text)) + text


def _error_of(answer: bytes) -> int:
    return int.from_bytes(answer[:2], "big", signed=True)


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes, fewer where the connection ends before."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            break
        data += part
    return data
