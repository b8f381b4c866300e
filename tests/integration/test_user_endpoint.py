"""What real workers answer about users: whichever is asked, and whatever is asked."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from kafka import KafkaProducer

from model.checkpoint import Checkpoint
from model.events import EventType
from stream_app import topics
from stream_app.answers import Inspection, Summary
from stream_app.demo.processes import WorkerProcess
from stream_app.partitioner import partition_for
from stream_app.settings import Settings
from stream_app.summaries import LANGUAGES, summary
from tests.conftest import own_settings
from tests.unit.lane_records import record
from tests.workers import (
    FASTER,
    WAIT_S,
    committed_events,
    overrides_of,
    start_worker,
    wait_until,
)

TOKEN = "a-token-for-the-tests-1234"
USERS = (
    "ann",
    "ann/summary",
    "summary",
    "a/b",
    "名前 🦊",
    "..",
    "%2F",
    "a?b=c#d",
    "line\nbreak",
    "+",
)
EVENTS = 23
"""Of each user; the last 7 stand behind the row's anchor."""
OPENAPI = Path(__file__).parents[2] / "deploy" / "openapi.json"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """Two workers that share the partitions."""

    one: WorkerProcess
    two: WorkerProcess
    logs: tuple[Path, Path]

    def get(self, target: str, worker: WorkerProcess | None = None, **headers: str) -> Answer:
        given = {"Authorization": f"Bearer {TOKEN}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        url = f"http://127.0.0.1:{(worker or self.one).port}{target}"
        try:
            request = urllib.request.Request(url, headers=given)
            with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
                return Answer(answer.status, answer.read())
        except urllib.error.HTTPError as refusal:
            return Answer(refusal.code, refusal.read())


@pytest.fixture(scope="module")
def served(
    kafka: str, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("users")
    settings = own_settings(kafka, home / "data")
    topics.create(settings)
    try:
        count = _send(settings)
        overrides = {**overrides_of(settings, checkpoint, home), **FASTER, "http_token": TOKEN}
        one = start_worker(overrides, home, "one")
        two = WorkerProcess(overrides, home, "two")
        try:
            two.wait_until_ready(WAIT_S)
            wait_until(lambda: committed_events(settings) == count, one)
            wait_until(lambda: one.is_ready() and two.is_ready(), one)
            yield Served(one, two, (one.log_file, two.log_file))
            assert one.stop() == two.stop() == 0
        finally:
            one.kill()
            two.kill()
    finally:
        topics.delete(settings)


def _send(settings: Settings) -> int:
    producer = KafkaProducer(**settings.kafka_python(), linger_ms=5)
    for number in range(EVENTS * len(USERS)):
        user = USERS[number % len(USERS)]
        kind = EventType.PURCHASE if number % 7 == 0 else EventType.CLICK
        one = record(kind, number, 3600 * number, user)
        place = partition_for(user.encode(), settings.partitions)
        producer.send(settings.input_topics[kind], one.value, one.key, partition=place)
    producer.flush(WAIT_S)
    producer.close()
    return EVENTS * len(USERS)


def path_of(user: str) -> str:
    return f"/users/{quote(user, safe='')}"


@pytest.mark.parametrize("user", USERS)
def test_both_workers_say_the_same_of_a_user(served: Served, user: str) -> None:
    one, two = (served.get(path_of(user), worker) for worker in (served.one, served.two))
    assert one == two
    assert one.status == 200
    found = msgspec.json.decode(one.body, type=Inspection)
    assert (found.user_id, found.events, found.without) == (user, EVENTS, 0)
    assert found.interests
    assert found.items
    assert found.drift_history.count == found.drifts
    texts = {
        locale: served.get(f"{path_of(user)}/summary?locale={locale}", worker)
        for worker in (served.one, served.two)
        for locale in LANGUAGES
    }
    for locale, answer in texts.items():
        said = msgspec.json.decode(answer.body, type=Summary)
        assert said == Summary(user, locale, summary(found, locale, 30 * 86_400))


def test_each_of_them_has_users_whom_it_asks_the_other_about(served: Served) -> None:
    """So that the comparison above does pass questions on, and only once."""
    asked = [
        {served.get(path_of(user), worker, X_Interest_Passed_On="1").status for user in USERS}
        for worker in (served.one, served.two)
    ]
    assert asked == [{200, 503}, {200, 503}]


def test_the_language_of_the_reader(served: Served) -> None:
    for worker in (served.one, served.two):
        for header, locale in (("fr-CH, de;q=0.9", "fr"), ("it", "en")):
            answer = served.get("/users/ann/summary", worker, Accept_Language=header)
            assert answer.json["locale"] == locale
    assert served.get("/users/ann/summary").json["locale"] == "en"


def test_without_the_last_steps(served: Served) -> None:
    for worker in (served.one, served.two):
        whole = served.get("/users/ann", worker).json
        less = served.get("/users/ann?without=2", worker).json
        assert less["without"] == 2
        assert less["steps"] == whole["steps"] - 2
        assert less["recent"] == whole["recent"][2:]
        assert less["interests"] != whole["interests"]
        most = served.get("/users/ann?without=16", worker).json
        assert most["without"] == (whole["steps"] - 1) % 16 + 1


@pytest.mark.parametrize(
    "target",
    [
        "/users/ann?without=0",
        "/users/ann?without=x",
        "/users/ann?other=1",
        "/users/ann/summary?locale=it",
        "/users/%FF",
        "/users/",
    ],
)
def test_what_is_not_understood_is_one_sentence(served: Served, target: str) -> None:
    answer = served.get(target)
    assert answer.status == 400
    assert answer.json["error"].endswith(".")


@pytest.mark.parametrize("user", ["nobody", "__faust\0offset__", "x" * 300])
def test_nothing_is_stored_of_others(served: Served, user: str) -> None:
    for worker in (served.one, served.two):
        for target in (path_of(user), f"{path_of(user)}/summary"):
            answer = served.get(target, worker)
            assert (answer.status, list(answer.json)) == (404, ["error"])


def test_nothing_is_said_without_the_token(served: Served) -> None:
    for target in ("/users/ann", "/users/ann/summary", "/users/"):
        assert served.get(target, Authorization="Bearer no-token-at-all").status == 401


def test_the_document_is_open_and_the_committed_one(served: Served) -> None:
    answer = served.get("/openapi.json", Authorization="")
    assert answer == Answer(200, OPENAPI.read_bytes())


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_questions_made_of_the_document_get_answers_that_fit_it(
    served: Served, mode: str, user: str | None
) -> None:
    """Users of any name, and one who is there; the parameters follow the document, or break it."""
    schemathesis = pytest.importorskip("schemathesis")
    api = schemathesis.openapi.from_url(f"http://127.0.0.1:{served.one.port}/openapi.json")
    asked = api.include(path_regex="^/users/") if user or mode == "negative" else api
    cases = asked.as_strategy(
        schemathesis.GenerationMode(mode), path_parameters=user and {"user_id": user}
    )
    statuses = set()

    @hypothesis_settings(max_examples=20, derandomize=True, database=None)
    @given(case=cases)
    def ask(case: Any) -> None:
        answer = case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})
        statuses.add(answer.status_code)

    ask()
    expected = {"positive": {200} if user else {200, 404}, "negative": {400}}[mode]
    assert expected <= statuses
    assert max(statuses) < 500


def test_no_log_names_a_user(served: Served) -> None:
    for log in served.logs:
        text = log.read_text()
        assert not any(user in text for user in ("ann/summary", "名前", "a?b=c", "nobody"))
