"""Whether a worker lives and is ready, and the HTTP server that says so.

`WorkerHealth` is plain state: the lane writes it, `readiness` reads it. The clock is an input, so
that a test can move it. `HealthServer` runs in the worker's event loop and answers

    GET /livez         200 while nothing fatal has happened, else 503
    GET /readyz        200 when the worker keeps up, else 503 with the reasons
    GET /metrics       the registry in the Prometheus text format
    GET /openapi.json  what the server answers, user data included

None of them carries data of a user, so they are open. What does is added with
`HealthServer.add_user_data` and asks for a token.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from stream_app import openapi
from stream_app.answers import Liveness, Readiness, Refusal

logger = logging.getLogger(__name__)

TopicPartition = tuple[str, int]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class PartitionProgress:
    """How far one source partition has come."""

    position: int  # next offset to apply
    lag_events: int  # records at or beyond `position`
    moved_at: float  # when the position moved last, or the lag was zero, in seconds


@dataclass
class WorkerHealth:
    """What the lane knows about itself; every time is in seconds of one monotonic clock."""

    stalled_after_seconds: float = 30.0
    commit_overdue_after_seconds: float = 60.0
    recovery_stalled_after_seconds: float = 10.0
    assigned: frozenset[TopicPartition] | None = None  # None before the first assignment
    recovered: bool = False
    recovery_total: int = 0
    recovery_remaining: int = 0
    recovery_still_s: float = 0.0
    warm: bool = False
    partitions: dict[TopicPartition, PartitionProgress] = field(default_factory=dict)
    uncommitted_events: int = 0
    uncommitted_since: float | None = None
    fatal: str | None = None

    def assign(self, partitions: Iterable[TopicPartition]) -> None:
        """Take over an assignment; what is known of partitions that stay is kept."""
        self.assigned = frozenset(partitions)
        self.partitions = {
            tp: progress for tp, progress in self.partitions.items() if tp in self.assigned
        }

    def recovering(self, remaining: int, total: int, still_s: float = 0.0) -> None:
        """Note how many changelog records are still to be read, of how many in this recovery.

        `still_s` is how long none has come, in seconds.
        """
        self.recovered = remaining == 0
        self.recovery_remaining = remaining
        self.recovery_total = total
        self.recovery_still_s = still_s

    def record(self, partition: TopicPartition, position: int, lag_events: int, now: float) -> None:
        """Note the position and the lag of a partition.

        A partition that stands still stalls only while records wait for it: the time of the last
        move starts anew when its lag was zero.
        """
        known = self.partitions.get(partition)
        waits = known is not None and known.position == position and known.lag_events > 0
        moved_at = known.moved_at if known is not None and waits else now
        self.partitions[partition] = PartitionProgress(position, lag_events, moved_at)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drop what is known of partitions that are no longer ours."""
        for partition in partitions:
            self.partitions.pop(partition, None)

    def applied(self, events: int, now: float) -> None:
        """Note that events were applied whose offsets are not committed yet."""
        if events and self.uncommitted_since is None:
            self.uncommitted_since = now
        self.uncommitted_events += events

    def committed(self, now: float, still_uncommitted: int = 0) -> None:
        """Note a commit and how many applied events it left out."""
        self.uncommitted_events = still_uncommitted
        self.uncommitted_since = now if still_uncommitted else None

    def commit_age(self, now: float) -> float:
        """Seconds that applied events have waited for a commit; 0 when none waits."""
        return 0.0 if self.uncommitted_since is None else max(0.0, now - self.uncommitted_since)

    def recovery_progress(self) -> float:
        """Share of the changelog that has been read: 1 after recovery, 0 before it begins."""
        if self.recovered:
            return 1.0
        if self.recovery_total == 0:
            return 0.0
        return 1.0 - self.recovery_remaining / self.recovery_total

    def readiness(self, now: float) -> list[str]:
        """The reasons why the worker is not ready, one sentence each; empty when it is."""
        reasons = []
        if self.fatal is not None:
            reasons.append(f"stopped: {self.fatal}")
        if self.assigned is None:
            reasons.append("no partitions assigned yet")
        if not self.recovered:
            reason = f"recovering: {self.recovery_remaining} changelog records left"
            if self.recovery_still_s > self.recovery_stalled_after_seconds:
                reason += f", and none has come for {self.recovery_still_s:.0f} s"
            reasons.append(reason)
        if not self.warm:
            reasons.append("the model is not warmed up yet")
        for (topic, partition), progress in sorted(self.partitions.items()):
            still = now - progress.moved_at
            if progress.lag_events > 0 and still > self.stalled_after_seconds:
                reasons.append(
                    f"{topic} partition {partition} makes no progress for {still:.0f} s "
                    f"although {progress.lag_events} records wait"
                )
        age = self.commit_age(now)
        if age > self.commit_overdue_after_seconds:
            reasons.append(
                f"{self.uncommitted_events} applied events wait {age:.0f} s for a commit"
            )
        return reasons


class HealthServer:
    """Serves the health of one worker and its metrics over HTTP, in the running event loop."""

    def __init__(
        self,
        health: WorkerHealth,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        token: str | None = None,
    ) -> None:
        self._health = health
        self._registry = registry
        self._clock = clock
        self._token = token
        self._user_data: list[tuple[str, Handler]] = []
        self._runner: web.AppRunner | None = None

    def add_user_data(self, path: str, handler: Handler) -> None:
        """Answer GET on a path that carries data of a user, to whoever has the token.

        Without the token the answer is 401; where the worker has none, 403. Call it before `start`.
        """
        self._user_data.append((path, protected(handler, self._token)))

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen on `host` and return the port, a free one when `port` is 0.

        Raises OSError when the port is taken or the host is not an address of this machine.
        """
        if self._runner is not None:
            raise RuntimeError("the health server is already running")
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/openapi.json", self._openapi)
        for path, handler in self._user_data:
            app.router.add_get(path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the port; does nothing when the server is not running."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        fatal = self._health.fatal
        if fatal is None:
            return json_response(Liveness(live=True))
        return json_response(Liveness(live=False, reasons=[fatal]), 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        reasons = self._health.readiness(self._clock())
        return json_response(Readiness(not reasons, reasons), 503 if reasons else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self._registry), headers={"Content-Type": content_type})

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=openapi.to_json(), content_type="application/json")


def json_response(
    answer: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    """An answer as JSON."""
    body = msgspec.json.encode(answer)
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def protected(handler: Handler, token: str | None) -> Handler:
    """The handler behind `Authorization: Bearer TOKEN`; closed to all when `token` is None."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        if token is None:
            sentence = (
                "User data is not served by a worker without a token; set INTEREST_HTTP_TOKEN_FILE."
            )
            return json_response(Refusal(sentence), 403)
        if not _carries(request.headers.get("Authorization", ""), token):
            return json_response(
                Refusal("User data asks for the header Authorization: Bearer TOKEN."),
                401,
                {"WWW-Authenticate": "Bearer"},
            )
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except Exception as error:
            # Its message, and aiohttp's own log of it, may name the user.
            logger.error("A request for user data failed (%s)", type(error).__name__)
            logger.debug("The request that failed", exc_info=True)
            return json_response(Refusal("The worker could not answer."), 500)

    return guarded


def _carries(header: str, token: str) -> bool:
    scheme, _, given = header.partition(" ")
    # In a time that says nothing about how much of the token is right.
    is_equal = hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), token.encode("utf-8")
    )
    return is_equal and scheme.lower() == "bearer"
