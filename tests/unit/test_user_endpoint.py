"""What a path and its parameters ask, for user ids of all kinds."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from yarl import URL

from stream_app.answers import Locale
from stream_app.errors import UsageError
from stream_app.health import HealthServer, WorkerHealth
from stream_app.user_endpoint import PATH, Question, read_question

TOKEN = "0123456789abcdef"


def read(target: str, accept_language: str = "") -> Question:
    url = URL(target, encoded=True)
    return read_question(url.raw_path, url.query.items(), accept_language)


@pytest.mark.parametrize(
    ("target", "question"),
    [
        ("/users/ann", Question("ann")),
        ("/users/ann?without=16", Question("ann", without=16)),
        ("/users/a%2Fb", Question("a/b")),
        ("/users/a/b", Question("a/b")),
        ("/users/%E5%90%8D%20%F0%9F%A6%8A", Question("名 🦊")),
        ("/users/a+b%3F%23%25", Question("a+b?#%")),
        ("/users/..", Question("..")),
        ("/users/line%0Abreak%00", Question("line\nbreak\0")),
        ("/users/summary", Question("summary")),
        ("/users/ann/summary", Question("ann", "en")),
        ("/users/ann/summary?locale=ja", Question("ann", "ja")),
        ("/users/ann%2Fsummary", Question("ann/summary")),
        ("/users/ann%2Fsummary/summary", Question("ann/summary", "en")),
        ("/users/ann/summary/", Question("ann/summary/")),
    ],
)
def test_a_path_names_a_user_and_what_is_asked(target: str, question: Question) -> None:
    assert read(target) == question


@given(
    user=st.text(min_size=1),
    locale=st.none() | st.sampled_from(["de", "en", "es", "fr", "ja", "zh"]),
    without=st.integers(0, 16),
)
def test_another_worker_reads_the_question_that_was_asked(
    user: str, locale: Locale | None, without: int
) -> None:
    question = Question(user, locale, 0 if locale else without)
    assert read(question.target) == question


def test_the_parameter_goes_before_the_header() -> None:
    assert read("/users/ann/summary", "fr-CA, en;q=0.5").locale == "fr"
    assert read("/users/ann/summary?locale=de", "fr").locale == "de"


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("/users/", "The user id is empty"),
        ("/users//summary", "The user id is empty"),
        ("/users/%FF", "The user id is not UTF-8"),
        ("/users/%ED%A0%80", "The user id is not UTF-8"),
        ("/users/\udc80", "The user id is not UTF-8"),
        ("/users/ann?without=0", "a number of steps from 1 to 16"),
        ("/users/ann?without=17", "a number of steps from 1 to 16"),
        ("/users/ann?without=-1", "a number of steps from 1 to 16"),
        ("/users/ann?without=", "a number of steps from 1 to 16"),
        ("/users/ann?without=%D9%A3", "a number of steps from 1 to 16"),
        ("/users/ann?without=9999999999999999999", "a number of steps from 1 to 16"),
        ("/users/ann?without=1&without=2", "given more than once"),
        ("/users/ann?witout=1", "The only parameter here is `without`"),
        ("/users/ann?locale=de", "The only parameter here is `without`"),
        ("/users/ann/summary?without=1", "The only parameter here is `locale`"),
        ("/users/ann/summary?locale=it", "ask for de, en, es, fr, ja, zh"),
        ("/users/ann/summary?locale=DE", "ask for de, en, es, fr, ja, zh"),
        ("/users/ann/summary?locale=", "ask for de, en, es, fr, ja, zh"),
    ],
)
def test_what_cannot_be_understood_is_one_sentence(target: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as caught:
        read_question(*_split(target), "")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def _split(target: str) -> tuple[str, list[tuple[str, str]]]:
    path, _, query = target.partition("?")
    return path, list(URL.build(path="/", query_string=query, encoded=True).query.items())


@pytest.mark.parametrize(
    "target",
    [
        "a%2Fsummary",
        "a/summary",
        "%0A",
        "%2525",
        "..",
        ".",
        "%2E%2E",
        "%FF",
        "a%2fb",
        "",
        "%F0%9F%A6%8A",
    ],
)
async def test_the_server_hands_on_the_path_as_it_was_sent(target: str) -> None:
    seen = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.rel_url.raw_path)
        return web.json_response({})

    server = HealthServer(WorkerHealth(), CollectorRegistry(), token=TOKEN)
    server.add_user_data(PATH, handler)
    port = await server.start()
    try:
        url = URL(f"http://127.0.0.1:{port}/users/{target}", encoded=True)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == 200
    finally:
        await server.stop()
    assert seen == [f"/users/{target}"]
