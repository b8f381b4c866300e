"""TLS in front of a broker: certificates made for the test, and stunnel as the terminator."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

START_TIMEOUT_S = 10.0


class Certificates:
    """Certificates and keys as PEM files in a folder.

    ca, other_ca   authorities that signed the broker's certificate, and that signed none of it
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._brokers, self._clients, self._others = trustme.CA(), trustme.CA(), trustme.CA()
        self.ca = self._authority("ca", self._brokers)
        self.other_ca = self._authority("other-ca", self._others)
        self.client_ca = self._authority("client-ca", self._clients)

    def _authority(self, name: str, authority: trustme.CA) -> Path:
        path = self._home / f"{name}.pem"
        authority.cert_pem.write_to_path(str(path))
        return path

    def broker(self, host: str = "127.0.0.1", is_expired: bool = False) -> Path:
        """Certificate and key of a broker in one file."""
        now = datetime.now(timezone.utc)
        lifetime = (
            {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=2)}
            if is_expired
            else {}
        )
        made = self._brokers.issue_cert(host, **lifetime)
        path = self._home / f"broker-{host}-{is_expired}.pem"
        path.write_bytes(made.private_key_and_cert_chain_pem.bytes())
        return path

    def client(self, is_of_another: bool = False, password: str = "") -> tuple[Path, Path]:
        """Certificate and key of a client; the key is encrypted when there is a password."""
        made = (self._others if is_of_another else self._clients).issue_cert("interest-stream")
        cert, key = (self._home / f"client-{is_of_another}.{kind}" for kind in ("pem", "key"))
        cert.write_bytes(made.cert_chain_pems[0].bytes())
        key.write_bytes(_encrypted(made.private_key_pem.bytes(), password))
        return cert, key


def _encrypted(key: bytes, password: str) -> bytes:
    if not password:
        return key
    encryption = serialization.BestAvailableEncryption(password.encode())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return serialization.load_pem_private_key(key, None).private_bytes(pem, pkcs8, encryption)


def stunnel() -> str:
    """The terminator's program; skips the test where it is not installed, fails it in CI."""
    for name in ("stunnel4", "stunnel"):
        found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin")
        if found is not None:
            return found
    message = "stunnel is not installed; on Debian and Ubuntu it is the package stunnel4"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@contextmanager
def terminator(
    port: int, broker_port: int, certificate: Path, client_ca: Path | None = None
) -> Iterator[None]:
    """Speaks TLS on a loopback port and hands on to the broker's.

    client_ca: the authority of the clients' certificates, which are then asked for.
    """
    folder = certificate.parent
    lines = [
        "foreground = yes",
        "pid =",
        "[kafka]",
        f"accept = 127.0.0.1:{port}",
        f"connect = 127.0.0.1:{broker_port}",
        f"cert = {certificate}",
    ]
    if client_ca is not None:
        lines += [f"CAfile = {client_ca}", "verifyChain = yes"]
    conf, log = folder / f"stunnel-{port}.conf", folder / f"stunnel-{port}.log"
    conf.write_text("\n".join(lines) + "\n")
    program = stunnel()
    with open(log, "ab") as output:
        process = subprocess.Popen([program, str(conf)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0):
            return True
    except OSError:
        return False
