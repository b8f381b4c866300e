"""The workers as the page asks them, over HTTP: their metrics, and what they know of a user."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from msgspec import Struct

from stream_app.errors import WorkerError
from stream_app.worker_http import UnknownUserError, ask, no_worker

TIMEOUT_S = 3.0


class Liking(Struct, frozen=True):
    """An interest as a worker states it; low and high bound the probability."""

    category: str
    probability: float
    uncertainty: float | None = None
    low: float | None = None
    high: float | None = None


class Why(Struct, frozen=True):
    """Why an item is recommended."""

    text: str
    kind: str = ""


class Item(Struct, frozen=True):
    """A recommended item."""

    item_id: str
    score: float | None = None
    reason: Why | None = None


class Step(Struct, frozen=True):
    """One of the last events; the time in RFC 3339."""

    time: str
    kind: str
    item_id: str = ""
    category: str = ""


class KnownUser(Struct, frozen=True):
    """The answer to `GET /users/{user_id}`; what a worker leaves out stays None or empty.

    without  how many of the last events the answer leaves out
    """

    user_id: str
    events: int | None = None
    last_event: str | None = None
    interests: list[Liking] = []
    items: list[Item] = []
    recent: list[Step] = []
    drift_statistic: float | None = None
    drift_threshold: float | None = None
    drifts: int | None = None
    last_drift: str | None = None
    model_version: str | None = None
    without: int | None = None


_decode = msgspec.json.Decoder(KnownUser).decode


@dataclass(frozen=True)
class Workers:
    """The addresses of workers, any of which answers for all users, and the token they ask for."""

    urls: tuple[str, ...]
    token: str | None

    def metrics(self, url: str) -> str:
        """The metrics of one worker; WorkerError when it does not answer."""
        return ask(f"{url}/metrics", None, TIMEOUT_S).decode("utf-8", "replace")

    def user(self, user_id: str, without: int = 0) -> KnownUser | None:
        """What the workers know of a user, None when nothing is stored.

        Args:
            without: leave out so many of the last events.

        Raises:
            WorkerError: none of them answers, or they refuse; one sentence.
        """
        path = f"/users/{quote(user_id, safe='')}" + (f"?without={without}" if without else "")
        trouble: WorkerError | None = None
        for url in self.urls:
            try:
                return _decode(ask(url + path, self.token, TIMEOUT_S))
            except UnknownUserError:
                return None
            except WorkerError as error:
                trouble = error
            except msgspec.MsgspecError:
                trouble = no_worker(url)
        raise trouble or WorkerError("No worker is named; name one with --url.")
