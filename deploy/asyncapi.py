"""Writes the AsyncAPI document, ``make schemas``: of the structs, and of how topics are made."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from stream_app.cloud_events import STRUCTURED
from stream_app.events import MAX_ID_LENGTH, Reason
from stream_app.letter_topic import MARK_HEADER
from stream_app.output_format import JSON
from stream_app.schemas import components
from stream_app.settings import Settings
from stream_app.topics import Layout, layouts

HERE = Path(__file__).parent
FILE = HERE / "asyncapi.yaml"
SCHEMAS = "#/components/schemas/"
KAFKA = {"bindingVersion": "0.5.0"}
FILLED_IN = {"event_id", "timestamp", "user_id"}
"""Fields that the attributes of a CloudEvent fill in."""
PLACE = r"^[A-Za-z0-9._-]+:[0-9]+:[0-9]+$"

Json = dict[str, Any]

INPUTS = {"click": "clicks_topic", "search": "searches_topic", "purchase": "purchases_topic"}
OUTPUTS = {"drift": "drift_topic", "recommendation": "recommendations_topic"}
"""Message -> the setting that names its topic."""


def document() -> Json:
    """The document, for the default settings."""
    settings = Settings.model_construct()
    made = layouts(settings)
    structs = components(SCHEMAS + "{name}")
    schemas: Json = {**structs, **_cloud_event_schemas(structs)}
    channels: Json = {}
    operations: Json = {}
    messages: Json = {}
    for kind, field in (INPUTS | OUTPUTS).items():
        topic = getattr(settings, field)
        own = _messages(kind, topic, structs)
        messages |= own
        channels[topic] = _channel(topic, made[topic], own, structs[kind.capitalize()])
        action = "receive" if kind in INPUTS else "send"
        operations[f"{action}_{kind}"] = _operation(action, topic, settings)
    letters = settings.dead_letters_topic
    messages |= (own := _letter_messages(letters))
    about = {"description": "Records that are no events, with the reason."}
    channels[letters] = _channel(letters, made[letters], own, about)
    operations["send_dead_letter"] = _operation("send", letters, settings)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:interest-stream",
        "info": {
            "title": "interest-stream",
            "version": version("interest-stream"),
            "description": "Clicks, searches and purchases come in; drift events and "
            "recommendations go out. Operations are those of the worker: it receives what others "
            "send, and sends what others receive. deploy/MESSAGES.md says it at length.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": JSON,
        "servers": {
            "kafka": {"host": settings.kafka_bootstrap, "protocol": "kafka"},
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def example(topic: str) -> Any:
    """The first JSON block of MESSAGES.md after the bold name of a topic."""
    _, _, after = (HERE / "MESSAGES.md").read_text("utf-8").partition(f"**`{topic}`**")
    block = re.search(r"```json\n(.*?)```", after, re.DOTALL)
    if block is None:
        raise SystemExit(f"deploy/MESSAGES.md has no example for {topic}; write one.")
    return json.loads(block[1])


def text() -> str:
    """The document as YAML."""
    head = "# Made by `make schemas` of the structs and topic settings in stream_app.\n"
    body = yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)
    return head + str(body)


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _channel(topic: str, layout: Layout, messages: Json, schema: Json) -> Json:
    config: Json = {
        name: value.split(",") if name == "cleanup.policy" else int(value)
        for name, value in layout.config.items()
    }
    return {
        "address": topic,
        "description": schema["description"],
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "kafka": {
                "topic": topic,
                "partitions": layout.partitions,
                "replicas": layout.replication,
                "topicConfiguration": config,
                **KAFKA,
            }
        },
    }


def _operation(action: str, topic: str, settings: Settings) -> Json:
    operation: Json = {"action": action, "channel": {"$ref": f"#/channels/{topic}"}}
    if action == "receive":
        group = {"type": "string", "enum": [settings.app_id]}
        operation["bindings"] = {"kafka": {"groupId": group, **KAFKA}}
    return operation


def _messages(kind: str, topic: str, structs: Json) -> Json:
    """The three forms in which a message may come, or be asked for: plain, and as CloudEvent."""
    struct = kind.capitalize()
    data = SCHEMAS + (f"{struct}Data" if kind in INPUTS else struct)
    known = example(topic)
    attributes = _attributes(kind, known)
    headers = {f"ce_{name}": value for name, value in attributes.items()}
    return {
        kind: _message(kind, JSON, {"$ref": SCHEMAS + struct}, example={"payload": known}),
        f"{kind}BinaryCloudEvent": _message(
            kind,
            JSON,
            {"$ref": data},
            headers={"$ref": SCHEMAS + "CloudEventHeaders"},
            example={"headers": {**headers, "content-type": JSON}, "payload": known},
            summary=_summary(kind, "binary"),
        ),
        f"{kind}StructuredCloudEvent": _message(
            kind,
            STRUCTURED,
            {"allOf": [{"$ref": SCHEMAS + "CloudEvent"}, {"properties": {"data": {"$ref": data}}}]},
            example={"payload": {**attributes, "data": known}},
            summary=_summary(kind, "structured"),
        ),
    }


def _message(
    kind: str,
    content_type: str,
    payload: Json,
    example: Json,
    headers: Json | None = None,
    summary: str = "",
) -> Json:
    key = {
        "type": "string",
        "description": "The user id in UTF-8; murmur2 of it gives the partition.",
        "minLength": 1,
        "maxLength": MAX_ID_LENGTH,
    }
    return {
        "name": kind,
        **({"summary": summary} if summary else {}),
        "contentType": content_type,
        **({"headers": headers} if headers else {}),
        "payload": payload,
        "bindings": {"kafka": {"key": key, **KAFKA}},
        "examples": [example],
    }


def _summary(kind: str, mode: str) -> str:
    if kind in INPUTS:
        return f"As CloudEvent in {mode} mode."
    return f"Where INTEREST_OUTPUT_FORMAT is cloudevents-{mode}."


def _attributes(kind: str, known: Json) -> Json:
    """Attributes of an example: of ours for an output, of a shop's for an input."""
    if kind in OUTPUTS:
        return {
            "specversion": "1.0",
            "id": known["id"],
            "source": "/interest-stream/interest-stream",
            "type": f"com.interest-stream.{kind}.v1",
            "subject": known["user_id"],
        }
    return {
        "specversion": "1.0",
        "id": known["event_id"],
        "source": "https://shop.example/web",
        "type": f"example.shop.{kind}",
        "subject": known["user_id"],
    }


def _cloud_event_schemas(structs: Json) -> Json:
    attributes: Json = {
        "specversion": {"type": "string", "enum": ["1.0"]},
        "id": {"type": "string", "minLength": 1},
        "source": {"type": "string", "minLength": 1, "format": "uri-reference"},
        "type": {"type": "string", "minLength": 1},
        "subject": {"type": "string"},
        "time": {"type": "string", "format": "date-time"},
        "dataschema": {"type": "string"},
    }
    needed = ["specversion", "id", "source", "type"]
    schemas: Json = {
        "CloudEvent": {
            "type": "object",
            "description": "The envelope of the structured mode.",
            "properties": {**attributes, "datacontenttype": {"type": "string"}, "data": {}},
            "required": [*needed, "data"],
        },
        "CloudEventHeaders": {
            "type": "object",
            "description": "The headers of the binary mode.",
            "properties": {
                **{f"ce_{name}": schema for name, schema in attributes.items()},
                "content-type": {"type": "string"},
            },
            "required": [f"ce_{name}" for name in needed],
        },
    }
    for kind in INPUTS:
        plain = structs[kind.capitalize()]
        schemas[f"{kind.capitalize()}Data"] = {
            **plain,
            "title": f"{plain['title']}Data",
            "description": f"{plain['description']} Source and id, time and subject of the "
            "CloudEvent fill in what is left out of event_id, timestamp and user_id.",
            "required": [name for name in plain["required"] if name not in FILLED_IN],
        }
    return schemas


def _letter_messages(topic: str) -> Json:
    number = {"type": "string", "pattern": "^[0-9]+$"}
    headers: Json = {
        "type": "object",
        "properties": {
            "source-topic": {"type": "string"},
            "source-partition": number,
            "source-offset": number,
            "source-key": {"type": "string", "description": "The record's own key, as it came."},
            "reason": {"type": "string", "enum": [reason.value for reason in Reason]},
            "message": {"type": "string", "description": "One sentence."},
            "null": {"type": "string", "enum": ["value"]},
            "pointer": {"type": "string", "enum": ["true"]},
            "key-size": number,
            "key-sha256": {"type": "string"},
        },
        "patternProperties": {
            "^source-(ce_.+|content-type)$": {
                "type": "string",
                "description": "What made the record a CloudEvent.",
            }
        },
        "required": ["source-topic", "source-partition", "source-offset", "reason", "message"],
    }
    pointer = example(topic)
    place = f"{pointer['topic']}:{pointer['partition']}:{pointer['offset']}"
    shown = {
        "source-topic": pointer["topic"],
        "source-partition": str(pointer["partition"]),
        "source-offset": str(pointer["offset"]),
    }
    key = {"type": "string", "description": f"The place of the source, as {place}."}
    kafka = {"kafka": {"key": {**key, "pattern": PLACE}, **KAFKA}}
    return {
        "deadLetter": {
            "name": "dead letter",
            "contentType": "application/octet-stream",
            "headers": headers,
            "payload": {"description": "The bytes of the record, whatever they are."},
            "bindings": kafka,
            "examples": [
                {
                    "headers": {**shown, "reason": "invalid_json", "message": "It is no JSON."},
                    "payload": "view",
                }
            ],
        },
        "deadLetterPointer": {
            "name": "dead letter of a value too long to be copied",
            "contentType": JSON,
            "headers": {
                **headers,
                "required": [*headers["required"], "pointer"],
            },
            "payload": {"$ref": SCHEMAS + "DeadLetterPointer"},
            "bindings": kafka,
            "examples": [
                {
                    "headers": {
                        **shown,
                        "reason": "too_large",
                        "message": "It is too long.",
                        "pointer": "true",
                    },
                    "payload": pointer,
                }
            ],
        },
        "redriveMark": {
            "name": "mark of a letter that is sent again",
            "contentType": JSON,
            "headers": {
                "type": "object",
                "properties": {MARK_HEADER: {"type": "string", "enum": ["begun", "done"]}},
                "required": [MARK_HEADER],
            },
            "payload": {"$ref": SCHEMAS + "RedriveMark"},
            "bindings": {"kafka": {"key": {**key, "pattern": f"^{MARK_HEADER}:.+$"}, **KAFKA}},
        },
    }


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
    print(FILE.relative_to(HERE.parent))  # noqa: T201
