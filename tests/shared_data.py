"""The real logs that tests read: beside the checkout in ../shared/data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared_log(name: str) -> Path:
    """Path of an event log; skips the test where the data are not there, fails it in CI."""
    path = SHARED / f"{name}.parquet"
    if not path.exists():
        message = f"{path.name} is not in ../shared/data beside the checkout"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
