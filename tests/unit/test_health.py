"""Readiness as a function of the clock, and the HTTP answers as a probe sees them."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from stream_app.health import HealthServer, WorkerHealth
from stream_app.metrics import Metrics

CLICKS = ("interest.clicks.v1", 3)
SEARCHES = ("interest.searches.v1", 3)


def ready_worker() -> WorkerHealth:
    health = WorkerHealth(stalled_after_seconds=30, commit_overdue_after_seconds=60)
    health.assign([CLICKS, SEARCHES])
    health.recovering(remaining=0, total=0)
    health.warm = True
    return health


def test_a_new_worker_says_everything_that_is_missing() -> None:
    assert WorkerHealth().readiness(0.0) == [
        "no partitions assigned yet",
        "recovering: 0 changelog records left",
        "the model is not warmed up yet",
    ]


def test_a_recovery_that_stands_says_for_how_long() -> None:
    health = ready_worker()
    health.recovering(remaining=5, total=9, still_s=10.0)
    assert health.readiness(0.0) == ["recovering: 5 changelog records left"]
    health.recovering(remaining=5, total=9, still_s=42.4)
    assert health.readiness(0.0) == [
        "recovering: 5 changelog records left, and none has come for 42 s"
    ]


def test_an_idle_worker_stays_ready() -> None:
    health = ready_worker()
    health.record(CLICKS, position=10, lag_events=0, now=0.0)
    health.applied(4, now=0.0)
    health.committed(now=0.1)
    assert health.readiness(1e6) == []


def test_a_worker_without_partitions_is_a_ready_standby() -> None:
    health = ready_worker()
    health.assign([])
    assert health.readiness(0.0) == []


def test_recovery_says_how_much_is_left() -> None:
    health = ready_worker()
    assert WorkerHealth().recovery_progress() == 0.0
    health.recovering(remaining=750, total=1000)
    assert health.readiness(0.0) == ["recovering: 750 changelog records left"]
    assert health.recovery_progress() == 0.25
    health.recovering(remaining=0, total=1000)
    assert health.recovery_progress() == 1.0


@pytest.mark.parametrize(("now", "stalled"), [(30.0, False), (30.5, True)])
def test_a_partition_that_stands_still_with_records_waiting(now: float, stalled: bool) -> None:
    health = ready_worker()
    health.record(CLICKS, position=10, lag_events=5, now=0.0)
    health.record(SEARCHES, position=4, lag_events=0, now=0.0)
    health.record(CLICKS, position=10, lag_events=9, now=20.0)  # more wait, none is applied
    expected = (
        ["interest.clicks.v1 partition 3 makes no progress for 30 s although 9 records wait"]
        if stalled
        else []
    )
    assert health.readiness(now) == expected


def test_progress_and_idleness_start_the_clock_anew() -> None:
    health = ready_worker()
    health.record(CLICKS, position=10, lag_events=5, now=0.0)
    health.record(CLICKS, position=11, lag_events=5, now=29.0)
    assert health.readiness(58.0) == []
    health.record(CLICKS, position=16, lag_events=0, now=58.0)
    health.record(CLICKS, position=16, lag_events=3, now=1000.0)  # the first records after a pause
    assert health.readiness(1029.0) == []
    assert len(health.readiness(1031.0)) == 1


def test_a_revoked_partition_gives_no_reason() -> None:
    health = ready_worker()
    health.record(CLICKS, position=10, lag_events=5, now=0.0)
    health.record(SEARCHES, position=2, lag_events=1, now=90.0)
    health.assign([SEARCHES])
    assert health.readiness(100.0) == []
    assert set(health.partitions) == {SEARCHES}


def test_a_commit_that_is_overdue() -> None:
    health = ready_worker()
    health.committed(now=0.0)
    health.applied(0, now=50.0)
    assert health.commit_age(100.0) == 0.0
    # An hour without events makes no commit overdue: the wait begins with the first event.
    health.applied(7, now=3600.0)
    health.applied(3, now=3650.0)
    assert health.readiness(3660.0) == []
    assert health.readiness(3661.0) == ["10 applied events wait 61 s for a commit"]
    health.committed(now=3661.0, still_uncommitted=2)
    assert health.commit_age(3671.0) == 10.0


@dataclass
class Served:
    """A health server on a free port, its state and a clock that the test moves."""

    health: WorkerHealth
    now: float = 0.0
    base: str = ""
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    state = Served(WorkerHealth())
    Metrics(state.registry).follow(state.health, lambda: state.now)
    server = HealthServer(state.health, state.registry, clock=lambda: state.now)
    port = await server.start()
    state.base = f"http://127.0.0.1:{port}"
    yield state
    await server.stop()


async def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Accept": accept}) as response,
    ):
        return response.status, response.headers["Content-Type"], await response.text()


async def test_readyz_follows_the_worker(served: Served) -> None:
    status, _, body = await get(served.base + "/readyz")
    assert status == 503
    assert "no partitions assigned yet" in json.loads(body)["reasons"]
    served.health.assign([CLICKS])
    served.health.recovering(remaining=0, total=0)
    served.health.warm = True
    status, _, body = await get(served.base + "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    served.health.record(CLICKS, position=0, lag_events=8, now=0.0)
    served.now = 31.0
    status, _, body = await get(served.base + "/readyz")
    assert status == 503
    assert json.loads(body)["reasons"] == [
        "interest.clicks.v1 partition 3 makes no progress for 31 s although 8 records wait"
    ]


async def test_livez_fails_only_after_a_fatal_error(served: Served) -> None:
    status, _, body = await get(served.base + "/livez")
    assert (status, json.loads(body)) == (200, {"live": True})
    served.health.fatal = "the dead-letter topic refuses writes"
    status, _, body = await get(served.base + "/livez")
    assert status == 503
    assert json.loads(body)["reasons"] == ["the dead-letter topic refuses writes"]
    _, _, body = await get(served.base + "/readyz")
    assert "stopped: the dead-letter topic refuses writes" in json.loads(body)["reasons"]


async def test_metrics_are_served_in_the_form_that_is_asked_for(served: Served) -> None:
    status, content_type, body = await get(served.base + "/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert "interest_ready 0.0" in body
    assert 'interest_events_total{event_type="click",outcome="applied"} 0.0' in body
    _, content_type, body = await get(served.base + "/metrics", "application/openmetrics-text")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


TOKEN = "0123456789abcdef"


async def user_data(
    token: str | None, headers: dict[str, str], failure: Exception | None = None
) -> tuple[int, str]:
    """The answer of a worker with a path that carries data of a user."""

    async def handler(request: web.Request) -> web.Response:
        if failure is not None:
            raise failure
        return web.json_response({"interests": request.match_info["user_id"]})

    server = HealthServer(WorkerHealth(), CollectorRegistry(), token=token)
    server.add_user_data("/users/{user_id}", handler)
    port = await server.start()
    try:
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"http://127.0.0.1:{port}/users/ann") as response,
        ):
            return response.status, await response.text()
    finally:
        await server.stop()


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_user_data_for_whoever_has_the_token(scheme: str) -> None:
    answer = await user_data(TOKEN, {"Authorization": f"{scheme} {TOKEN}"})
    assert answer == (200, '{"interests": "ann"}')


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN.upper()}"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer ä"},
    ],
)
async def test_no_user_data_without_the_token(headers: dict[str, str]) -> None:
    status, body = await user_data(TOKEN, headers)
    assert status == 401
    assert "ann" not in body
    assert TOKEN not in body


@pytest.mark.parametrize("given", ["", TOKEN, "None"])
async def test_a_worker_without_a_token_serves_no_user_data(given: str) -> None:
    status, body = await user_data(None, {"Authorization": f"Bearer {given}"})
    assert status == 403
    assert "INTEREST_HTTP_TOKEN_FILE" in body
    assert "ann" not in body


async def test_a_failure_names_no_user(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    status, body = await user_data(TOKEN, headers, KeyError("geheime-person"))
    assert status == 500
    assert "A request for user data failed (KeyError)" in caplog.text
    assert "geheim" not in body + caplog.text
    assert (await user_data(TOKEN, headers, web.HTTPNotFound()))[0] == 404


async def test_what_is_open_stays_open_beside_user_data() -> None:
    server = HealthServer(WorkerHealth(), CollectorRegistry(), token=TOKEN)
    port = await server.start()
    try:
        for path, expected in (("livez", 200), ("readyz", 503), ("metrics", 200)):
            status, _, _ = await get(f"http://127.0.0.1:{port}/{path}")
            assert status == expected
    finally:
        await server.stop()


async def test_no_other_path_answers(served: Served) -> None:
    status, _, _ = await get(served.base + "/")
    assert status == 404


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_behind(served: Served) -> None:
    second = HealthServer(served.health, served.registry)
    with pytest.raises(OSError, match="in use"):
        await second.start(port=int(served.base.rsplit(":", 1)[1]))
    port = await second.start()
    with pytest.raises(RuntimeError, match="already running"):
        await second.start()
    await second.stop()
    await second.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(f"http://127.0.0.1:{port}/livez")
