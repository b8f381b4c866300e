"""What a worker knows about one user, in words: over HTTP, from the worker that owns the partition.

    GET /users/{user_id}    200 with an `Inspection`, 404 when nothing is stored,
                            503 when the owner cannot be asked now

Whichever worker is asked, it passes the question on to the owner, once.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import msgspec
import numpy as np
from aiohttp import web
from msgspec import Struct

from model import drift, ranking
from model.events import EventType, Kind
from model.state import RECENT, UNIT_FLAG, unpack
from stream_app.lane.stored_rows import is_marker, marker_key, user_hash
from stream_app.partitioner import partition_for

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from stream_app.lane.lane import Lane

PASSED_ON = "X-Interest-Passed-On"
OWNER_TIMEOUT_S = 5.0
UNKNOWN = "(unknown)"


class KnownInterest(Struct, frozen=True, gc=False):
    """Probability, 0 to 1, that the user turns to the category within the horizon."""

    category: str
    probability: float
    uncertainty: float


class KnownStep(Struct, frozen=True, gc=False):
    """One of the last steps of a user, the latest first."""

    time: str
    kind: str
    item_id: str
    category: str


class Inspection(Struct, frozen=True, kw_only=True):
    """A row in words.

    erased            whether the user was erased; a row is then what came afterwards
    events, steps     applied events, and steps (line items counted)
    drift_statistic   of the test now, None before it has enough events; an alarm at the threshold
    offsets           per input topic the last applied offset, None for none
    row_checkpoint    whether the row was made by the loaded checkpoint's weights
    """

    user_id: str
    partition: int
    erased: bool
    stored: bool
    events: int
    steps: int
    last_event: str | None
    interests: list[KnownInterest]
    drift_statistic: float | None
    drift_threshold: float
    drifts: int
    last_drift: str | None
    recent: list[KnownStep]
    offsets: dict[str, int | None]
    model_version: str
    row_checkpoint: bool


def inspect_row(
    user: str,
    value: bytes | None,
    erased: bool,
    partition: int,
    topics: tuple[str, str, str],
    checkpoint: Checkpoint,
) -> Inspection:
    """The stored row of a user in words; pure.

    Raises:
        StateError: the value is no row of this checkpoint's size.
    """
    rows = unpack([value], checkpoint.hidden)
    row = rows[0]
    fits = bool(row["checkpoint"] == checkpoint.number) and int(row["steps"]) > 0
    statistic = None
    interests: list[KnownInterest] = []
    recent: list[KnownStep] = []
    if fits:
        fields = {name: rows[name] for name in rows.dtype.names or ()}
        _, best = drift.check(fields, np.array([0]), checkpoint)
        statistic = float(best[0]) if np.isfinite(best[0]) else None
        interests = _interests(rows, checkpoint)
        recent = _recent(row, checkpoint)
    return Inspection(
        user_id=user,
        partition=partition,
        erased=erased,
        stored=value is not None,
        events=int(row["events"]),
        steps=int(row["steps"]),
        last_event=_time(int(row["last_time_ms"])) if row["events"] else None,
        interests=interests,
        drift_statistic=statistic,
        drift_threshold=checkpoint.drift.threshold,
        drifts=int(row["drifts"]),
        last_drift=_time(int(row["drift_time_s"]) * 1000) if row["drift_time_s"] else None,
        recent=recent,
        offsets={
            topic: offset if offset >= 0 else None
            for topic, offset in zip(topics, row["offset"].tolist(), strict=True)
        },
        model_version=checkpoint.version,
        row_checkpoint=fits,
    )


def _interests(rows: np.ndarray, checkpoint: Checkpoint) -> list[KnownInterest]:
    found = ranking.rank(rows, rows["last_time_ms"], checkpoint, checkpoint.top_k).interests
    return [
        KnownInterest(_category(category, checkpoint), round(p, 4), round(bits, 4))
        for category, p, bits in zip(
            found.category[0].tolist(),
            found.probability[0].tolist(),
            found.uncertainty[0].tolist(),
            strict=True,
        )
    ]


def _recent(row: np.void, checkpoint: Checkpoint) -> list[KnownStep]:
    steps = int(row["steps"])
    found = []
    for step in range(steps - 1, max(steps - RECENT, 0) - 1, -1):
        at = step % RECENT
        item = int(row["recent_item"][at])
        found.append(
            KnownStep(
                _time(int(row["recent_time_s"][at]) * 1000),
                Kind(int(row["recent_kind"][at]) % UNIT_FLAG).name.lower(),
                checkpoint.vocabulary.item_name(item) or UNKNOWN,
                _category(int(row["recent_category"][at]), checkpoint),
            )
        )
    return found


def _category(index: int, checkpoint: Checkpoint) -> str:
    return checkpoint.vocabulary.category_name(index) or UNKNOWN


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, timezone.utc).isoformat(timespec="seconds")


class Inspector:
    """Answers for the partitions of this worker, and asks the owner about others.

    Args:
        lane: of the worker.
        assignor: Faust's, which knows the owners by the URLs of their HTTP servers.
        token: what user data asks for, see health.py.
    """

    def __init__(
        self,
        lane: Lane,
        assignor: Any,
        topics: tuple[str, str, str],
        changelog: str,
        partitions: int,
        checkpoint: Checkpoint,
        token: str | None,
    ) -> None:
        assert len(topics) == len(EventType)
        self._lane = lane
        self._assignor = assignor
        self._topics = topics
        self._changelog = changelog
        self._partitions = partitions
        self._checkpoint = checkpoint
        self._token = token

    async def get(self, request: web.Request) -> web.Response:
        """`GET /users/{user_id}`."""
        user = request.match_info["user_id"]
        partition = partition_for(user.encode(), self._partitions)
        if self._lane.owns(partition):
            return self._answer(user, partition)
        owner = None if PASSED_ON in request.headers else self._owner(partition)
        if owner is None:
            return _refusal(
                503, f"Nobody has partition {partition} at the moment; ask again in some seconds."
            )
        return await self._ask(owner, user)

    def _answer(self, user: str, partition: int) -> web.Response:
        key, marker = user.encode(), marker_key(user_hash(user))
        value, erased = self._lane.rows.read(partition, [key, marker])
        assert is_marker(marker)
        if value is None and erased is None:
            return _refusal(404, "Nothing is stored of this user.")
        found = inspect_row(
            user, value, erased is not None, partition, self._topics, self._checkpoint
        )
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    def _owner(self, partition: int) -> str | None:
        for url, tables in self._assignor.tables_metadata().items():
            if partition in tables.get(self._changelog, ()):
                return str(url).rstrip("/")
        return None

    async def _ask(self, owner: str, user: str) -> web.Response:
        headers = {PASSED_ON: "1", "Authorization": f"Bearer {self._token}"}
        timeout = aiohttp.ClientTimeout(total=OWNER_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(f"{owner}/users/{quote(user, safe='')}", headers=headers) as answer,
            ):
                body = await answer.read()
                return web.Response(
                    body=body, status=answer.status, content_type="application/json"
                )
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            return _refusal(
                503,
                f"The owner at {owner} does not answer ({type(error).__name__}); set "
                "INTEREST_HTTP_URL of each worker to a URL at which the others reach it.",
            )


def _refusal(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
