"""Schemas change so that nobody breaks who holds to a released one, or they get a new version.

`deploy/schemas/released/<version>` keeps the schemas of each release. A released schema and the
present one of the same `$id` have to go together; what cannot gets the next version in its `$id`,
and its topic the next one in its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from model.events import EventType
from stream_app.schemas import schemas
from stream_app.settings import Settings
from tests.integration.broken_messages import good_event
from tests.schema_changes import Break, Direction, breaks
from tests.unit.test_readme import MESSAGES, example

Json = dict[str, Any]

RELEASED = Path(__file__).parents[2] / "deploy" / "schemas" / "released"
FILES = sorted(RELEASED.glob("*/*.schema.json"))
DIRECTIONS: dict[str, tuple[Direction, ...]] = {
    "click": ("input",),
    "search": ("input",),
    "purchase": ("input",),
    "drift": ("output",),
    "recommendation": ("output",),
    "dead-letter-pointer": ("output", "input"),  # redrive reads those of older workers
    "redrive-mark": ("output", "input"),
}
TOPICS = {
    "click": "clicks_topic",
    "search": "searches_topic",
    "purchase": "purchases_topic",
    "drift": "drift_topic",
    "recommendation": "recommendations_topic",
    "dead-letter-pointer": "dead_letters_topic",
    "redrive-mark": "dead_letters_topic",
}


def read(file: Path) -> Json:
    found: Json = json.loads(file.read_text("utf-8"))
    return found


def name_and_version(schema: Json) -> tuple[str, int]:
    found = re.fullmatch(r"urn:interest-stream:([a-z-]+):v(\d+)", schema["$id"])
    assert found is not None, schema["$id"]
    return found[1], int(found[2])


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_who_holds_to_a_released_schema_is_not_broken(file: Path) -> None:
    released = read(file)
    name, version = name_and_version(released)
    present = schemas()
    assert name in present, f"{name} was released and is gone"
    now = name_and_version(present[name])[1]
    assert now >= version
    if now > version:
        return
    found = [
        one
        for direction in DIRECTIONS[name]
        for one in breaks(released, present[name], direction)
        # Consumers were told of a new value where their documentation lists it.
        if one.value is None or f"`{one.value}`" not in MESSAGES
    ]
    assert not found, (
        f"{name} breaks those who hold to release {file.parent.name}: "
        f"{'; '.join(map(str, found))}; give it the next version, in its $id and its topic's name"
    )


def test_every_message_is_released_and_a_topic_has_the_version_of_its_message() -> None:
    assert FILES
    assert {name_and_version(read(file))[0] for file in FILES} <= schemas().keys()
    assert schemas().keys() == DIRECTIONS.keys() == TOPICS.keys()
    for name, schema in schemas().items():
        topic = Settings.model_fields[TOPICS[name]].default
        assert topic.endswith(f".v{name_and_version(schema)[1]}"), name


# The comparison itself: changes that break somebody, and changes that do not.

CLICK, PURCHASE = good_event(EventType.CLICK, "u", 1), good_event(EventType.PURCHASE, "u", 1)
DRIFT = json.loads(example("interest.drift.v1"))
LIST = json.loads(example("interest.recommendations.v1"))
KEEP = object()

Change = Callable[[Json], None]


def put(path: str, value: Any) -> Change:
    """Replaces or adds what is at a path of a schema; KEEP takes it away."""

    def change(schema: Json) -> None:
        *way, last = path.split("/")
        for step in way:
            schema = schema[step]
        if value is KEEP:
            del schema[last]
        else:
            schema[last] = value

    return change


def need(*names: str, of: str = "") -> Change:
    def change(schema: Json) -> None:
        place = schema["$defs"][of] if of else schema
        place["required"] = [*place.get("required", ()), *names]

    return change


def drop(name: str, of: str = "") -> Change:
    def change(schema: Json) -> None:
        place = schema["$defs"][of] if of else schema
        del place["properties"][name]
        place["required"].remove(name)

    return change


def spare(name: str) -> Change:
    return lambda schema: schema["required"].remove(name)


def without(document: Json, name: str) -> Json:
    return {key: value for key, value in document.items() if key != name}


NULLABLE = {"anyOf": [{"type": "string"}, {"type": "null"}]}
WITHOUT_CART = {"enum": ["view", "favourite"]}

BREAKING: dict[str, tuple[str, Change, str, Json]] = {
    # Message, change, where it is seen, and a document: of an input one that was taken and is
    # refused now, of an output one that is written now and was not.
    "a field is required": ("click", need("locale"), "$.locale", CLICK),
    "a new field is required": (
        "click",
        lambda s: (put("properties/shop", {"type": "string"})(s), need("shop")(s))[0],
        "$.shop",
        CLICK,
    ),
    "a field of a line is required": (
        "purchase",
        need("category", of="PurchaseItem"),
        "$.items[].category",
        PURCHASE,
    ),
    "a form of a field is gone": (
        "click",
        put("properties/timestamp", {"type": "string", "format": "date-time"}),
        "$.timestamp",
        CLICK,
    ),
    "null is gone": (
        "click",
        put("properties/category", {"type": "string", "maxLength": 256}),
        "$.category",
        {**CLICK, "category": None},
    ),
    "another type": ("click", put("properties/item_id", {"type": "integer"}), "$.item_id", CLICK),
    "a shorter text": (
        "click",
        put("properties/item_id/maxLength", 5),
        "$.item_id",
        {**CLICK, "item_id": "longer"},
    ),
    "a longer text": ("click", put("properties/item_id/minLength", 9), "$.item_id", CLICK),
    "a pattern": ("click", put("properties/item_id/pattern", "^[0-9]+$"), "$.item_id", CLICK),
    "a value is gone": (
        "click",
        put("properties/action", WITHOUT_CART),
        "$.action",
        {**CLICK, "action": "cart"},
    ),
    "a list of values": ("click", put("properties/item_id", {"enum": ["a"]}), "$.item_id", CLICK),
    "fewer items": ("purchase", put("properties/items/maxItems", 0), "$.items", PURCHASE),
    "a smaller number": (
        "purchase",
        put("$defs/PurchaseItem/properties/quantity/maximum", 1),
        "$.items[].quantity",
        PURCHASE,
    ),
    "an output's field is gone": ("drift", drop("since"), "$.since", without(DRIFT, "since")),
    "an inner field is gone": (
        "recommendation",
        drop("score", of="RecommendedItem"),
        "$.items[].score",
        {**LIST, "items": [without(LIST["items"][0], "score")]},
    ),
    "an output's field may be missing": (
        "drift",
        spare("since"),
        "$.since",
        without(DRIFT, "since"),
    ),
    "an output's field may be null": (
        "drift",
        put("properties/user_id", NULLABLE),
        "$.user_id",
        {**DRIFT, "user_id": None},
    ),
    "an integer becomes a number": (
        "drift",
        put("properties/since", {"type": "number"}),
        "$.since",
        {**DRIFT, "since": 1.5},
    ),
    "a new value of an output": (
        "recommendation",
        put("properties/trigger/enum", ["drift", "first_event", "interval", "purchase", "new"]),
        "$.trigger",
        {**LIST, "trigger": "new"},
    ),
    "any text instead of a list of values": (
        "recommendation",
        put("properties/trigger", {"type": "string"}),
        "$.trigger",
        {**LIST, "trigger": "new"},
    ),
}
HARMLESS: dict[str, tuple[str, Change]] = {
    "a field that may be missing": ("click", put("properties/shop", {"type": "string"})),
    "a field need not be given any more": ("click", spare("item_id")),
    "a longer text": ("click", put("properties/item_id/maxLength", 1000)),
    "no limit": ("click", put("properties/item_id/maxLength", KEEP)),
    "a new value of an input": (
        "click",
        put("properties/action/enum", ["view", "favourite", "cart", "share"]),
    ),
    "any text": ("click", put("properties/action", {"type": "string"})),
    "another form of a field": ("click", put("properties/item_id", NULLABLE)),
    "a number instead of an integer": (
        "purchase",
        put("$defs/PurchaseItem/properties/quantity", {"type": "number", "minimum": 0}),
    ),
    "another description": ("drift", put("description", "New.")),
    "a new field of an output": ("drift", put("properties/more", {"type": "string"})),
    "a new field that is always there": (
        "drift",
        lambda s: (put("properties/more", {"type": "string"})(s), need("more")(s))[0],
    ),
    "an output's value is gone": ("recommendation", put("properties/trigger/enum", ["drift"])),
    "an output is never null": ("drift", put("properties/average_run_length", {"type": "number"})),
}


def changed(name: str, change: Change) -> tuple[Json, list[Break]]:
    present = deepcopy(schemas()[name])
    change(present)
    return present, breaks(schemas()[name], present, DIRECTIONS[name][0])


@pytest.mark.parametrize("case", BREAKING)
def test_a_breaking_change_is_seen_at_its_place(case: str) -> None:
    name, change, path, document = BREAKING[case]
    present, found = changed(name, change)

    assert {one.path for one in found} == {path}
    takes = [
        jsonschema.Draft202012Validator(schema).is_valid(document)
        for schema in (schemas()[name], present)
    ]
    assert takes == ([True, False] if DIRECTIONS[name] == ("input",) else [False, True])


@pytest.mark.parametrize("case", HARMLESS)
def test_a_harmless_change_is_none(case: str) -> None:
    name, change = HARMLESS[case]
    present, found = changed(name, change)

    assert present != schemas()[name]
    assert found == []


def test_a_new_value_of_an_output_names_itself() -> None:
    name, change, *_ = BREAKING["a new value of an output"]
    _, found = changed(name, change)
    assert [one.value for one in found] == ["new"]


def test_an_unknown_keyword_is_an_error() -> None:
    with pytest.raises(ValueError, match="propertyNames"):
        changed("click", put("propertyNames", {}))
