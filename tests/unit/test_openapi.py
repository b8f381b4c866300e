"""The OpenAPI document: the one that is committed, and one that the answers fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from stream_app.answers import KnownInterest, Liveness, Readiness, Refusal, Summary
from stream_app.health import HealthServer, WorkerHealth
from stream_app.openapi import document, export_openapi, to_json
from stream_app.summaries import LANGUAGES, summary
from tests.unit.test_summaries import known

DEPLOY = Path(__file__).parents[2] / "deploy"
COMMITTED = DEPLOY / "openapi.json"
MESSAGES = (DEPLOY / "MESSAGES.md").read_text("utf-8")


def test_the_committed_document_is_the_one_of_the_structs(tmp_path: Path) -> None:
    made = export_openapi(tmp_path / "openapi.json")
    assert COMMITTED.read_bytes() == made.read_bytes(), "make schemas writes it anew"


def schema_of(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}", "components": document()["components"]}


@pytest.mark.parametrize(
    "answer",
    [
        known(),
        known(interests=[], items=[], drift_statistic=None, last_drift=None),
        Summary("ann", "zh", "…"),
        Refusal("It is broken."),
        Liveness(live=True),
        Liveness(live=False, reasons=["the disk is full"]),
        Readiness(ready=False, reasons=["no partitions assigned yet"]),
    ],
)
def test_answers_fit_their_schema(answer: msgspec.Struct) -> None:
    schema = schema_of(type(answer).__name__)
    jsonschema.Draft202012Validator.check_schema(schema)
    body = json.loads(msgspec.json.encode(answer))
    jsonschema.validate(body, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schema)


def test_every_reference_has_its_schema() -> None:
    text = to_json().decode()
    schemas = document()["components"]["schemas"]
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(schemas)
    for schema in schemas.values():
        assert schema["description"]


def test_locales_are_those_that_are_spoken() -> None:
    (locale,) = [
        parameter
        for parameter in document()["paths"]["/users/{user_id}/summary"]["get"]["parameters"]
        if parameter["name"] == "locale"
    ]
    assert locale["schema"]["enum"] == sorted(LANGUAGES)


def test_the_example_of_the_documentation_is_what_is_said() -> None:
    _, _, after = MESSAGES.partition("**`/users/USER/summary")
    block = re.search(r"```json\n(.*?)```", after, re.DOTALL)
    assert block is not None
    example = msgspec.json.decode(block[1], type=Summary)
    many = known()
    found = known(
        events=34,
        interests=[
            KnownInterest("outdoor", 0.75, 0.8, 0.66, 0.83),
            KnownInterest("kitchen", 0.31, 0.9, 0.22, 0.4),
        ],
        drifts=1,
        last_drift="2026-03-01T10:15:00+00:00",
        items=[msgspec.structs.replace(many.items[0], item_id="boots-8")],
    )
    assert example.text == summary(found, example.locale, 30 * 86_400)


async def test_it_is_served_without_a_token() -> None:
    server = HealthServer(WorkerHealth(), CollectorRegistry(), token="0123456789abcdef")
    port = await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/openapi.json") as answer,
        ):
            assert answer.status == 200
            assert answer.content_type == "application/json"
            assert await answer.read() == COMMITTED.read_bytes()
    finally:
        await server.stop()
