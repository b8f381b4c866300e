"""A stand-in for a broker that authenticates: nothing behind the SASL handshake works.

It speaks Kafka's protocol for ApiVersions, SaslHandshake and SaslAuthenticate, checks what the
client sends as a broker does, remembers it, and ends the connection at the first other request.
"""

from __future__ import annotations

import hashlib
import hmac
import socketserver
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

SASL_HANDSHAKE, METADATA, API_VERSIONS, SASL_AUTHENTICATE = 17, 3, 18, 36
UNSUPPORTED_VERSION, UNSUPPORTED_MECHANISM, AUTHENTICATION_FAILED = 35, 33, 58
APIS = ((API_VERSIONS, 0, 0), (SASL_HANDSHAKE, 1, 1), (SASL_AUTHENTICATE, 0, 0), (METADATA, 0, 5))
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
SALT, ITERATIONS, NONCE = b"0123456789abcdef", 4096, "server-nonce"


@dataclass
class SaslServer:
    """What the one known user has, and what came.

    accepted   (mechanism, user or token) of each handshake that was right
    refused    mechanism of each one that was wrong
    later      requests that came after a handshake that was right
    knows      mechanisms
    """

    user: str
    password: str
    token: str
    knows: tuple[str, ...] = ("PLAIN", "OAUTHBEARER", *HASHES)
    bootstrap: str = ""
    accepted: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    later: list[int] = field(default_factory=list)


class Refused(Exception):
    """Wrong credentials."""


@contextmanager
def sasl_server(user: str, password: str, token: str, **changes: Any) -> Iterator[SaslServer]:
    """The stand-in on a free loopback port."""
    state = SaslServer(user, password, token, **changes)

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                _serve(self, state)
            except (ConnectionError, EOFError):
                return

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Connection) as serving:
        state.bootstrap = "{}:{}".format(*serving.server_address)
        thread = threading.Thread(target=serving.serve_forever, args=[0.05])
        thread.start()
        try:
            yield state
        finally:
            serving.shutdown()
            thread.join()


def _serve(connection: socketserver.StreamRequestHandler, state: SaslServer) -> None:
    mechanism: str | None = None
    scram: list[str] = []
    while True:
        api, version, correlation, body = _read_request(connection)
        if api == API_VERSIONS:
            answer = _api_versions(version)
        elif api == SASL_HANDSHAKE:
            mechanism = _string(body)
            answer = _handshake(mechanism, state.knows)
        elif api == SASL_AUTHENTICATE and mechanism is not None:
            given = body[4:]
            try:
                reply, who = _authenticate(mechanism, given, scram, state)
            except Refused:
                state.refused.append(mechanism)
                text = b"Authentication failed: wrong credentials"
                answer = struct.pack(">hh", AUTHENTICATION_FAILED, len(text)) + text
                answer += struct.pack(">i", 0)
            else:
                if who is not None:
                    state.accepted.append((mechanism, who))
                answer = struct.pack(">hhi", 0, -1, len(reply)) + reply
        else:
            state.later.append(api)
            return
        frame = struct.pack(">i", correlation) + answer
        connection.wfile.write(struct.pack(">i", len(frame)) + frame)


def _read_request(connection: socketserver.StreamRequestHandler) -> tuple[int, int, int, bytes]:
    (size,) = struct.unpack(">i", _exactly(connection, 4))
    data = _exactly(connection, size)
    api, version, correlation, client = struct.unpack(">hhih", data[:10])
    return api, version, correlation, data[10 + max(client, 0) :]


def _exactly(connection: socketserver.StreamRequestHandler, size: int) -> bytes:
    data = connection.rfile.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _string(body: bytes) -> str:
    (size,) = struct.unpack(">h", body[:2])
    return body[2 : 2 + size].decode()


def _api_versions(version: int) -> bytes:
    """Version 0, also where a newer one is asked for: clients then ask again."""
    error = UNSUPPORTED_VERSION if version > 0 else 0
    listed = b"".join(struct.pack(">hhh", *api) for api in APIS)
    return struct.pack(">hi", error, len(APIS)) + listed


def _handshake(mechanism: str, known: tuple[str, ...]) -> bytes:
    error = 0 if mechanism in known else UNSUPPORTED_MECHANISM
    listed = b"".join(struct.pack(">h", len(name)) + name.encode() for name in known)
    return struct.pack(">hi", error, len(known)) + listed


def _authenticate(
    mechanism: str, given: bytes, scram: list[str], state: SaslServer
) -> tuple[bytes, str | None]:
    """The reply, and who it is once that is known; Refused when it is nobody."""
    if mechanism == "PLAIN":
        _, user, password = given.decode().split("\0")
        if (user, password) != (state.user, state.password):
            raise Refused
        return b"", user
    if mechanism == "OAUTHBEARER":
        if given == b"\x01":  # RFC 7628, section 3.2.3: the client has read why
            raise Refused
        head, auth, *_ = given.decode().split("\x01")
        if not head.startswith("n,") or auth != f"auth=Bearer {state.token}":
            state.refused.append(mechanism)
            return b'{"status":"invalid_token"}', None
        return b"", state.token
    if not scram:
        scram.append(given.decode())
        return _scram_first(scram), None
    return _scram_final(HASHES[mechanism], given.decode(), scram, state)


def _scram_first(scram: list[str]) -> bytes:
    nonce = _fields(scram[0].removeprefix("n,,"))["r"] + NONCE
    scram.append(f"r={nonce},s={b64encode(SALT).decode()},i={ITERATIONS}")
    return scram[1].encode()


def _scram_final(
    algorithm: str, final: str, scram: list[str], state: SaslServer
) -> tuple[bytes, str]:
    """RFC 5802, section 3: the proof shows that the client knows the password."""
    first = scram[0].removeprefix("n,,")
    bare, _, proof = final.rpartition(",p=")
    message = f"{first},{scram[1]},{bare}".encode()
    salted = hashlib.pbkdf2_hmac(algorithm, state.password.encode(), SALT, ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", algorithm)
    stored_key = hashlib.new(algorithm, client_key).digest()
    signature = hmac.digest(stored_key, message, algorithm)
    given = bytes(a ^ b for a, b in zip(b64decode(proof), signature, strict=True))
    user = _fields(first)["n"]
    is_right = hashlib.new(algorithm, given).digest() == stored_key
    if user != state.user or not is_right or _fields(bare)["r"] != _fields(scram[1])["r"]:
        raise Refused
    server_key = hmac.digest(salted, b"Server Key", algorithm)
    verifier = b64encode(hmac.digest(server_key, message, algorithm)).decode()
    return f"v={verifier}".encode(), user


def _fields(message: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in message.split(",") if "=" in part)
