"""The worker that most integration tests start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from model.checkpoint import Checkpoint
from stream_app import topics
from stream_app.settings import Settings
from tests.checkpoints import tiny_checkpoint
from tests.workers import FASTER, overrides_of


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """A small model with random weights."""
    return tiny_checkpoint(items=40, categories=6)


@pytest.fixture
def overrides(settings: Settings, checkpoint: Checkpoint, tmp_path: Path) -> dict[str, Any]:
    """Settings of a worker on topics of this test, which are there."""
    topics.create(settings)
    return {**overrides_of(settings, checkpoint, tmp_path), **FASTER}
