"""Every code block of the documents is run, or has its reason here why it is not.

Java is parsed only, where a JDK is: to compile it takes the client's jar, which no package index
that the tests install from has.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import typer
import yaml

from model.events import EventType
from stream_app import cli
from stream_app.answers import Summary
from stream_app.openapi import document
from stream_app.settings import PREFIX, Settings
from tests.code_blocks import LANGUAGES, ROOT, Block, blocks
from tests.failures.chaos import __main__ as chaos
from tests.unit.test_readme import STRUCTS, example
from tests.unit.test_wire_events import NOW_MS, Raw, decode

BLOCKS = {one.name: one for one in blocks()}
DRAWING = "it is a drawing, or what a terminal shows"
NOT_RUN = {
    "README.md / Try it / text 1": DRAWING,
    "README.md / The way of an event / text 1": DRAWING,
    "README.md / How the code is laid out / text 1": DRAWING,
    "stream_app/lane/README.md / The batch lane / text 1": DRAWING,
}
MESSAGES = "deploy/MESSAGES.md"
RUN_BY = {
    f"{MESSAGES} / Produce / python 1": "tests.integration.test_code_blocks",
    f"{MESSAGES} / Produce / js 1": "tests.integration.test_code_blocks",
    f"{MESSAGES} / Consume / python 1": "tests.integration.test_code_blocks",
    f"{MESSAGES} / Consume / js 1": "tests.integration.test_code_blocks",
    f"{MESSAGES} / Delivery: at least once, and what consumers do with equal ids / python 1": (
        "tests.integration.test_readme_consumer"
    ),
    "deploy/README.md / More partitions / python 1": "tests.integration.test_readme_copy",
}
"""Blocks that take a broker, and the module that runs them."""


def of(*languages: str) -> list[str]:
    return [name for name, one in BLOCKS.items() if one.language in languages]


def test_every_block_is_run_or_has_a_reason() -> None:
    here = set(of("sh", "json", "java"))
    assert BLOCKS.keys() == here | RUN_BY.keys() | NOT_RUN.keys()
    assert not here & (RUN_BY.keys() | NOT_RUN.keys())
    for name, module in RUN_BY.items():
        assert importlib.util.find_spec(module) is not None, name


# JSON: each block is a message of its topic.

CLOUD_EVENT = f"{MESSAGES} / CloudEvents / json 1"
SUMMARY = f"{MESSAGES} / Ask about a user / json 1"


@pytest.mark.parametrize("name", of("json"))
def test_json_is_a_message(name: str) -> None:
    if name == CLOUD_EVENT:
        headers = (("content-type", b"application/cloudevents+json"),)
        value = BLOCKS[name].text.encode()
        subject = json.loads(value)["subject"].encode()
        record = Raw(subject, value, NOW_MS * 2, headers)
        (event,), rejections = decode(EventType.CLICK, [record])
        assert not rejections
        assert event is not None
        assert event.event_id == "https://shop.example/web 7f3a"
        return
    if name == SUMMARY:  # test_openapi.py holds it against what is said
        assert msgspec.json.decode(BLOCKS[name].text, type=Summary).user_id == "u-17"
        return
    # test_readme.py holds the examples of the topics against structs and schemas.
    assert BLOCKS[name].text.encode() in [example(topic) for topic in STRUCTS]


# Shell: options and arguments are those of the programs, variables those of the settings.


def lines(block: Block) -> list[list[str]]:
    """The commands of a block as words, without comments."""
    text = block.text.replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


COMMANDS = [words for name in of("sh") for words in lines(BLOCKS[name]) if words[0] != "export"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_one_that_there_is(words: list[str]) -> None:
    program_name, *arguments = words
    if Path(program_name).name == "interest-stream":
        parse(typer.main.get_command(cli.app), arguments)
    elif program_name == "make":
        check_make(arguments)
    elif program_name == "docker":
        command, _, profile, *_ = arguments
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
        assert command == "compose"
        assert any(profile in service.get("profiles", ()) for service in services.values())
    elif program_name == "curl":
        # A worker answers tests/integration/test_user_endpoint.py; what is asked has to be there.
        *_, url = arguments
        path = urlsplit(url).path.replace("u-17", "{user_id}")
        assert path in document()["paths"]
    else:
        # It takes a cluster of Kubernetes: what it applies has to be there.
        assert program_name == "kubectl"
        files = [after for before, after in pairwise(arguments) if before == "-f"]
        assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("name", of("sh"))
def test_exported_variables_are_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports = [words[1:] for words in lines(BLOCKS[name]) if words[0] == "export"]
    variables = dict(pair.split("=", 1) for pairs in exports for pair in pairs)
    monkeypatch.chdir(tmp_path)
    for file in ("ca.pem", "kafka-password"):
        Path(file).touch()
    values = {variable.removeprefix(PREFIX).lower(): text for variable, text in variables.items()}

    assert all(variable.startswith(PREFIX) for variable in variables)
    assert Settings(**values).model_fields_set >= values.keys()


def parse(command: Any, arguments: list[str]) -> None:
    """Parse a command line as the program does, down to the command that it names."""
    context = None
    name = "interest-stream"
    while True:
        context = command.make_context(name, list(arguments), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "resolve_command") or not rest:
            return
        name, command, arguments = command.resolve_command(context, rest)


def check_make(arguments: list[str]) -> None:
    target, *given = arguments
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(rf"^{target}: .*## ", makefile, re.MULTILINE), target
    if target == "chaos" and given:
        (assignment,) = given
        app = typer.Typer()
        app.command()(chaos.main)
        parse(typer.main.get_command(app), shlex.split(assignment.removeprefix("ARGS=")))


def test_a_wrong_command_is_seen() -> None:
    command = typer.main.get_command(cli.app)
    for wrong in ("verify --form 2026-03-01", "replai x", "dead-letters show", "topics make"):
        with pytest.raises(Exception, match=r"(?i)no such|missing"):
            parse(command, wrong.split())


# Java.


@pytest.mark.skipif(shutil.which("javac") is None, reason="there is no JDK")
def test_java_parses(tmp_path: Path) -> None:
    files = []
    for name in of("java"):
        found = re.search(r"public class (\w+)", BLOCKS[name].text)
        assert found is not None
        files.append(tmp_path / f"{found[1]}.java")
        files[-1].write_text(BLOCKS[name].text, "utf-8")
    wrong = tmp_path / "Wrong.java"
    wrong.write_text(files[0].read_text("utf-8").replace(");", ")", 1), "utf-8")

    command = ["java", "-XX:TieredStopAtLevel=1", str(LANGUAGES / "ParseJava.java")]
    command += map(str, [*files, wrong])
    run = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)

    assert [Path(line.partition(":")[0]).name for line in run.stdout.splitlines()] == [wrong.name]


def test_there_are_examples_in_three_languages() -> None:
    for heading in ("Produce", "Consume"):
        for language in ("python", "js", "java"):
            assert f"{MESSAGES} / {heading} / {language} 1" in BLOCKS
