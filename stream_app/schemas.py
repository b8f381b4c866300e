"""JSON Schema of everything on the wire, made from the structs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from stream_app.dead_letters import DeadLetterPointer
from stream_app.events import Click, Drift, Purchase, Recommendation, Search, schema_id
from stream_app.letter_topic import RedriveMark

_STRUCTS: dict[str, type[msgspec.Struct]] = {
    "click": Click,
    "search": Search,
    "purchase": Purchase,
    "drift": Drift,
    "recommendation": Recommendation,
    "dead-letter-pointer": DeadLetterPointer,
    "redrive-mark": RedriveMark,
}


def schemas() -> dict[str, dict[str, Any]]:
    """Name of a message -> its JSON Schema (2020-12), which stands alone: `$defs` are its own."""
    return {name: _schema(name, struct) for name, struct in _STRUCTS.items()}


def components(ref_template: str) -> dict[str, dict[str, Any]]:
    """Name of a struct -> its JSON Schema; all of them refer to each other by the template."""
    _, found = msgspec.json.schema_components(_STRUCTS.values(), ref_template=ref_template)
    for schema in found.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    return {name: order_choices(schema) for name, schema in sorted(found.items())}


def export_schemas(directory: Path) -> list[Path]:
    """Write one `<name>.schema.json` per message and return the files, sorted by name.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    for name, schema in sorted(schemas().items()):
        file = directory / f"{name}.schema.json"
        file.write_text(json.dumps(schema, indent=2) + "\n", "utf-8")
        files.append(file)
    return files


def _schema(name: str, struct: type[msgspec.Struct]) -> dict[str, Any]:
    (root,), components = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    own = root["$ref"].rpartition("/")[2]
    body = components.pop(own)
    for part in (body, *components.values()):
        part["description"] = inspect.cleandoc(part["description"])
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": schema_id(name),
        **body,
    }
    if components:
        schema["$defs"] = dict(sorted(components.items()))
    ordered: dict[str, Any] = order_choices(schema)
    return ordered


def order_choices(part: Any) -> Any:
    """Put the choices of each `anyOf` in one order, null last; msgspec's follows its version."""
    if isinstance(part, list):
        return [order_choices(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    ordered = {name: order_choices(inner) for name, inner in part.items()}
    if "anyOf" in ordered:
        ordered["anyOf"].sort(key=lambda choice: (choice.get("type") == "null", str(choice)))
    return ordered
