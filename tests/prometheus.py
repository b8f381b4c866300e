"""Prometheus and promtool, where Debian's package `prometheus` has put them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_app.broker import free_port

FOLDER = Path(__file__).parents[1] / "deploy" / "prometheus"
START_TIMEOUT_S = 60.0


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; skips the test without it, fails it in CI."""
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"{name} is not installed; on Debian and Ubuntu it is of the package prometheus"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Prometheus:
    """The HTTP API of a Prometheus on a loopback port."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, expression: str) -> list[float]:
        """The values of an instant vector, or of a scalar; AssertionError when it is an error."""
        query = urllib.parse.urlencode({"query": expression})
        data = self._get(f"query?{query}")
        if data["resultType"] == "scalar":
            return [float(data["result"][1])]
        assert data["resultType"] == "vector", expression
        return [float(sample["value"][1]) for sample in data["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as its last evaluation has left it."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(json.load(refused)["error"]) from None


@contextmanager
def scraping(worker_port: int, home: Path) -> Iterator[Prometheus]:
    """A Prometheus with the project's own files that scrapes one worker every second."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{worker_port}"]}]
    (home / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    port, log = free_port(), home / "prometheus.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={home / 'prometheus.yml'}",
                f"--storage.tsdb.path={home / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=output,
        )
    try:
        server = Prometheus(port)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not server.is_ready():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(30)
