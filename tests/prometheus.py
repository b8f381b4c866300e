"""Prometheus and promtool, where Debian's package `prometheus` has put them."""

from __future__ import annotations

import os
import shutil

import pytest


def program(name: str) -> str:
    """Path of ``prometheus`` or ``promtool``; skips the test without it, fails it in CI."""
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"{name} is not installed; on Debian and Ubuntu it is of the package prometheus"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
