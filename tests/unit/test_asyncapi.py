"""The AsyncAPI document is the one of the structs, and AsyncAPI's own parser takes it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from deploy import asyncapi
from stream_app.schemas import schemas
from stream_app.settings import Settings
from stream_app.topics import layouts
from tests.code_blocks import node_folder, program

DOCUMENT = asyncapi.document()
SETTINGS = Settings.model_construct()
OUTSIDE = {SETTINGS.changelog_topic, SETTINGS.journal_topic, SETTINGS.control_topic}
"""Topics that are the worker's own."""
WARNING = 1  # of the parser's severities; 0 is an error, 2 a hint


def test_the_parser_takes_it_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = asyncapi.document()
    wrong["channels"][SETTINGS.clicks_topic]["bindings"]["kafka"]["partitions"] = 0
    wrong["operations"]["receive_click"]["action"] = "take"
    wrong["components"]["messages"]["search"]["payload"]["$ref"] += "Z"
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(wrong), "utf-8")

    command = [program("node", "nodejs"), "check_asyncapi.mjs", str(asyncapi.FILE), str(file)]
    run = subprocess.run(command, cwd=node_folder(), check=True, capture_output=True, timeout=120)
    ours, others = json.loads(run.stdout)

    assert ours["channels"] == sorted(layouts(SETTINGS).keys() - OUTSIDE)
    assert [one for one in ours["diagnostics"] if one["severity"] <= WARNING] == []
    places = " ".join(one["path"] for one in others["diagnostics"])
    for place in ("bindings.kafka.partitions", "operations.receive_click", "messages.search"):
        assert place in places


def test_the_committed_document_is_the_one_that_is_made() -> None:
    assert asyncapi.FILE.read_text("utf-8") == asyncapi.text(), "run make schemas"


def test_topics_are_as_they_are_made() -> None:
    made = layouts(SETTINGS)
    for address, channel in DOCUMENT["channels"].items():
        kafka = channel["bindings"]["kafka"]
        assert kafka["partitions"] == made[address].partitions
        config = {
            name: ",".join(value) if isinstance(value, list) else str(value)
            for name, value in kafka["topicConfiguration"].items()
        }
        assert config == made[address].config


def test_the_worker_receives_inputs_and_sends_the_rest() -> None:
    actions = {
        one["channel"]["$ref"].rpartition("/")[2]: one["action"]
        for one in DOCUMENT["operations"].values()
    }
    inputs = dict.fromkeys(SETTINGS.input_topics, "receive")
    assert actions == {**dict.fromkeys(DOCUMENT["channels"], "send"), **inputs}


def test_every_message_has_a_key_and_every_schema_is_in_it() -> None:
    messages = DOCUMENT["components"]["messages"]
    assert all(one["bindings"]["kafka"]["key"]["type"] == "string" for one in messages.values())
    names = {schema["title"] for schema in schemas().values()}
    assert names <= DOCUMENT["components"]["schemas"].keys()


@pytest.mark.parametrize("name", DOCUMENT["components"]["messages"])
def test_examples_fit_their_schemas(name: str) -> None:
    message = DOCUMENT["components"]["messages"][name]
    for example in message.get("examples", ()):
        for part in ("payload", "headers"):
            if part in example:
                schema = {**message[part], "components": DOCUMENT["components"]}
                jsonschema.Draft7Validator(schema).validate(example[part])
        assert "payload" in example
