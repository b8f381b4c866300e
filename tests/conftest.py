"""A broker for the session, and settings of its own for each test."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.settings import Settings
from tests.sessions import ends_dead_sessions

# The tests run side by side, and threads of torch that wait for each other in a loop would take the
# processors from those that have work. It has to be set before torch is loaded, and holds for the
# programs that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How fast the machine is at the moment decides no test.
hypothesis_settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("any-machine")

_internal_errors: list[str] = []


def pytest_internalerror(excrepr: object) -> None:
    """Keep it: pytest-xdist ends with an error of its own that says nothing of the first."""
    _internal_errors.append(str(excrepr))


def pytest_unconfigure() -> None:
    """Say what broke pytest itself at the very end, where it is seen when output is cut."""
    if _internal_errors:
        last = "\n".join(_internal_errors[0].splitlines()[-25:])
        sys.stderr.write(f"The first internal error:\n{last}\n")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers: INTEREST_KAFKA_BOOTSTRAP if set, or else an embedded broker's."""
    bootstrap = os.environ.get("INTEREST_KAFKA_BOOTSTRAP")
    if bootstrap:
        yield bootstrap
        return
    log_file = tmp_path_factory.mktemp("broker") / "broker.log"
    with EmbeddedBroker(log_file=log_file) as broker:
        yield broker.bootstrap


@pytest.fixture
def settings(kafka: str, tmp_path: Path) -> Iterator[Settings]:
    """Settings with topics, group and folder of this test alone, all gone afterwards."""
    settings = own_settings(kafka, tmp_path / "data")
    yield settings
    topics.delete(settings)


@pytest.fixture(scope="session")
def dead_sessions_end(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips a test that kills workers when the cluster never gives their partitions to others.

    The embedded broker does, so there no test is skipped.
    """
    if "INTEREST_KAFKA_BOOTSTRAP" not in os.environ:
        return
    settings = own_settings(kafka, tmp_path_factory.mktemp("sessions"))
    topics.create(settings)
    try:
        if not ends_dead_sessions(settings):
            pytest.skip("this broker never ends the session of a consumer that died")
    finally:
        topics.delete(settings)


def own_settings(kafka: str, data_dir: Path) -> Settings:
    """Settings whose names nobody else has."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    return Settings(
        kafka_bootstrap=kafka,
        app_id=name,
        clicks_topic=f"{name}.clicks",
        searches_topic=f"{name}.searches",
        purchases_topic=f"{name}.purchases",
        drift_topic=f"{name}.drift",
        recommendations_topic=f"{name}.recommendations",
        dead_letters_topic=f"{name}.dead-letters",
        partitions=4,
        data_dir=data_dir,
        http_port=0,
    )
