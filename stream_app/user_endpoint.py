"""What a worker answers about one user, over HTTP, from the worker that owns the partition.

    GET /users/{user_id}            200 with an `Inspection`, 404 when nothing is stored,
                                    503 when the owner cannot be asked now
        ?without=N                  as it would be without the last N steps, 1 to 16
    GET /users/{user_id}/summary    200 with a `Summary`
        ?locale=de|en|es|fr|ja|zh   Accept-Language where it is not given

Whichever worker is asked, it passes the question on to the owner, once. The user id is
percent-encoded UTF-8; a slash of its own is written %2F, so that every id has an address.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

import aiohttp
from aiohttp import web
from yarl import URL

from model.events import EventType
from model.state import RECENT
from stream_app.answers import Inspection, Locale, Refusal, Summary
from stream_app.errors import UsageError
from stream_app.events import RESERVED_KEY
from stream_app.health import json_response
from stream_app.inspection import inspect_row
from stream_app.lane.stored_rows import marker_key, user_hash
from stream_app.partitioner import partition_for
from stream_app.summaries import LANGUAGES, known_locale, preferred_locale, summary

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from stream_app.lane.lane import Lane

PATH = "/users/{question:(?s:.*)}"
"""What aiohttp matches; `read_question` reads the path, as only it tells %2F from a slash."""
PASSED_ON = "X-Interest-Passed-On"
OWNER_TIMEOUT_S = 5.0
SUMMARY = "/summary"

_NUMBER = re.compile("[0-9]{1,3}", re.ASCII)


@dataclass(frozen=True)
class Question:
    """What is asked about a user.

    locale   of the summary, None where the row is asked for
    without  last steps of the row that are to be left out
    """

    user: str
    locale: Locale | None = None
    without: int = 0

    @property
    def target(self) -> str:
        """Path and query by which another worker is asked the same."""
        path = f"/users/{quote(self.user, safe='')}"
        if self.locale is not None:
            return f"{path}{SUMMARY}?locale={self.locale}"
        return f"{path}?without={self.without}" if self.without else path


def read_question(
    raw_path: str, query: Iterable[tuple[str, str]], accept_language: str
) -> Question:
    """The question behind a request.

    Args:
        raw_path: as it was sent, percent-encoded.
        query: its parameters, decoded.
        accept_language: the header, which may be empty.

    Raises:
        UsageError: it is none; one sentence says why.
    """
    rest = raw_path.split("/", 2)[2]
    user = rest.removesuffix(SUMMARY)
    of_summary = user != rest
    given = _parameters(query, "locale" if of_summary else "without")
    try:
        name = unquote_to_bytes(user).decode()
    except UnicodeError:
        raise UsageError("The user id is not UTF-8; percent-encode its UTF-8 bytes.") from None
    if not name:
        raise UsageError("The user id is empty; ask for /users/USER, percent-encoded.")
    if of_summary:
        return Question(name, locale=_locale(given, accept_language))
    return Question(name, without=_without(given))


def _parameters(query: Iterable[tuple[str, str]], known: str) -> str | None:
    """The value of the one parameter that is known, None where it is not given."""
    value = None
    for name, given in query:
        if name != known:
            raise UsageError(f"The only parameter here is `{known}`; leave others out.")
        if value is not None:
            raise UsageError(f"The parameter `{known}` is given more than once; give it once.")
        value = given
    return value


def _locale(given: str | None, accept_language: str) -> Locale:
    if given is None:
        return preferred_locale(accept_language)
    locale = known_locale(given)
    if locale is None:
        raise UsageError(f"There is no summary in this locale; ask for {', '.join(LANGUAGES)}.")
    return locale


def _without(given: str | None) -> int:
    if given is None:
        return 0
    if not _NUMBER.fullmatch(given) or not 1 <= int(given) <= RECENT:
        raise UsageError(f"The parameter `without` is a number of steps from 1 to {RECENT}.")
    return int(given)


class UserEndpoint:
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
        """Both paths."""
        url, headers = request.rel_url, request.headers
        try:
            question = read_question(
                url.raw_path, url.query.items(), headers.get("Accept-Language", "")
            )
        except UsageError as error:
            return _refusal(400, str(error))
        partition = partition_for(question.user.encode(), self._partitions)
        if self._lane.owns(partition):
            return self._answer(question, partition)
        owner = None if PASSED_ON in headers else self._owner(partition)
        if owner is None:
            return _refusal(
                503, f"Nobody has partition {partition} at the moment; ask again in some seconds."
            )
        return await self._ask(owner, question)

    def _answer(self, question: Question, partition: int) -> web.Response:
        found = self._inspect(question, partition)
        if found is None:
            return _refusal(404, "Nothing is stored of this user.")
        if question.locale is None:
            return json_response(found)
        text = summary(found, question.locale, self._checkpoint.horizon_s)
        return json_response(Summary(question.user, question.locale, text))

    def _inspect(self, question: Question, partition: int) -> Inspection | None:
        key = question.user.encode()
        if key == RESERVED_KEY:  # what stands there is no row
            return None
        value, marker = self._lane.rows.read(partition, [key, marker_key(user_hash(question.user))])
        if value is None and marker is None:
            return None
        return inspect_row(
            question.user,
            value,
            marker is not None,
            partition,
            self._topics,
            self._checkpoint,
            question.without,
        )

    def _owner(self, partition: int) -> str | None:
        for url, tables in self._assignor.tables_metadata().items():
            if partition in tables.get(self._changelog, ()):
                return str(url).rstrip("/")
        return None

    async def _ask(self, owner: str, question: Question) -> web.Response:
        headers = {PASSED_ON: "1", "Authorization": f"Bearer {self._token}"}
        timeout = aiohttp.ClientTimeout(total=OWNER_TIMEOUT_S)
        url = URL(f"{owner}{question.target}", encoded=True)  # a user may be called ".."
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, headers=headers) as answer,
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
    return json_response(Refusal(sentence), status)
