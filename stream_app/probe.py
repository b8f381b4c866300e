"""Asks a broker for its API versions, one layer after the other, to say which of them fails.

The Kafka clients try for as long as they may and then tell of a timeout, whatever the cause was.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass

CLIENT_ID = b"interest-stream"
MAX_ANSWER_BYTES = 1_000_000
_CORRELATION = 1
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


def probe(server: str, context: ssl.SSLContext | None, timeout_s: float) -> Trouble | None:
    """What is wrong with the broker at ``host:port``; None when it answers as Kafka does.

    Args:
        context: for TLS, None without.
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
    with connection:
        if context is None:
            return _without_tls(connection)
        return _with_tls(connection, context, host)


def _without_tls(connection: socket.socket) -> Trouble | None:
    advice = "check the port, and set INTEREST_KAFKA_SECURITY_PROTOCOL to SSL if it speaks TLS"
    try:
        head = _ask(connection)
    except OSError:
        return Trouble("it does not answer as Kafka does without TLS", advice)
    if head[:1] == bytes([_TLS_ALERT]):
        return Trouble("it speaks TLS", advice, is_lasting=True)
    return _judge(head, advice)


def _with_tls(connection: socket.socket, context: ssl.SSLContext, host: str) -> Trouble | None:
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
    return _judge(head, "check INTEREST_KAFKA_BOOTSTRAP")


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
    request = struct.pack(">hhih", 18, 0, _CORRELATION, len(CLIENT_ID)) + CLIENT_ID
    connection.sendall(struct.pack(">i", len(request)) + request)
    head = b""
    while len(head) < 8:
        part = connection.recv(8 - len(head))
        if not part:
            # An alert of TLS has 7 bytes.
            if head:
                return head.ljust(8, b"\0")
            raise ConnectionResetError
        head += part
    return head
