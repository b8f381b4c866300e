"""The OpenAPI document of the worker's HTTP server, made from the structs that it answers with."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec

from model.state import RECENT
from stream_app.answers import (
    Inspection,
    Liveness,
    Locale,
    Readiness,
    Refusal,
    Summary,
)
from stream_app.events import MAX_ID_LENGTH
from stream_app.schemas import order_choices

API_VERSION = "1.0.0"
REFUSALS = {
    "400": "The question is not understood.",
    "401": "The token is missing or wrong.",
    "403": "The worker has no token, and so serves no user data.",
    "404": "Nothing is stored of this user.",
    "500": "The worker could not answer.",
    "503": "The worker that has the user's partition cannot be asked now.",
}

_ANSWERS = (Liveness, Readiness, Inspection, Summary, Refusal)


def document() -> dict[str, Any]:
    """The document, OpenAPI 3.1."""
    references, components = msgspec.json.schema_components(
        _ANSWERS, ref_template="#/components/schemas/{name}"
    )
    for schema in components.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    of = dict(zip(_ANSWERS, references, strict=True))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "interest-stream worker",
            "version": API_VERSION,
            "description": "What a worker knows about a user, and whether it keeps up. Any worker "
            "of the group answers about any user.",
        },
        "paths": {
            "/livez": _open(
                "livez",
                "Whether the worker lives",
                {"200": "It does.", "503": "It does not, with the reasons."},
                _json(of[Liveness]),
            ),
            "/readyz": _open(
                "readyz",
                "Whether the worker keeps up",
                {"200": "It does.", "503": "It does not, with the reasons."},
                _json(of[Readiness]),
            ),
            "/metrics": _open(
                "metrics",
                "Metrics of the worker",
                {"200": "In the Prometheus text format, or OpenMetrics where that is asked for."},
                {
                    "text/plain": {"schema": {"type": "string"}},
                    "application/openmetrics-text": {"schema": {"type": "string"}},
                },
            ),
            "/openapi.json": _open(
                "openapi", "This document", {"200": "OpenAPI 3.1."}, _json({"type": "object"})
            ),
            "/users/{user_id}": _of_user(
                "inspectUser",
                "What is known of a user",
                [_WITHOUT],
                of[Inspection],
                of[Refusal],
            ),
            "/users/{user_id}/summary": _of_user(
                "sumUpUser",
                "A user in one short paragraph",
                [_LOCALE, _ACCEPT_LANGUAGE],
                of[Summary],
                of[Refusal],
            ),
        },
        "components": {
            "schemas": order_choices(dict(sorted(components.items()))),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


@cache
def to_json() -> bytes:
    """The document as text."""
    return (json.dumps(document(), indent=2, ensure_ascii=False) + "\n").encode()


def export_openapi(file: Path) -> Path:
    """Write the document, and return its file.

    Raises:
        OSError: the file cannot be written.
    """
    file.write_bytes(to_json())
    return file


_USER = {
    "name": "user_id",
    "in": "path",
    "required": True,
    "description": "The user id as UTF-8, percent-encoded; a slash of its own is written %2F.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
}
_WITHOUT = {
    "name": "without",
    "in": "query",
    "description": "As it would be without the user's last steps, so many of them. The answer says "
    "how many are left out, which are fewer where the row does not reach as far back.",
    "schema": {"type": "integer", "minimum": 1, "maximum": RECENT},
}
_LOCALE = {
    "name": "locale",
    "in": "query",
    "description": "Language of the paragraph; that of Accept-Language where it is not given.",
    "schema": {"type": "string", "enum": sorted(get_args(Locale))},
}
_ACCEPT_LANGUAGE = {
    "name": "Accept-Language",
    "in": "header",
    "description": "The languages that the reader likes; English where we have none of them.",
    "schema": {"type": "string"},
}


def _open(
    name: str, summary: str, answers: dict[str, str], content: dict[str, Any]
) -> dict[str, Any]:
    """A path that everybody may ask, whose answers have one form."""
    responses = {
        status: {"description": text, "content": content} for status, text in answers.items()
    }
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}


def _of_user(
    name: str,
    summary: str,
    parameters: list[Any],
    answer: dict[str, Any],
    refusal: dict[str, Any],
) -> dict[str, Any]:
    """A path that carries data of a user."""
    responses = {
        "200": {"description": "The answer.", "content": _json(answer)},
        **{
            status: {"description": text, "content": _json(refusal)}
            for status, text in REFUSALS.items()
        },
    }
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": [_USER, *parameters],
            "security": [{"token": []}],
            "responses": responses,
        }
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
