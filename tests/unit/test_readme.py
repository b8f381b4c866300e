"""What the documentation shows is what the program takes and gives."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from model.events import EventType
from stream_app.dead_letters import DeadLetterPointer
from stream_app.events import Click, Drift, Purchase, Reason, Recommendation, Search, output_id
from stream_app.metrics import Metrics
from stream_app.schemas import schemas
from stream_app.settings import Settings

ROOT = Path(__file__).parents[2]
MESSAGES = (ROOT / "deploy" / "MESSAGES.md").read_text("utf-8")
OPERATE = (ROOT / "deploy" / "README.md").read_text("utf-8")
STRUCTS: dict[str, type[msgspec.Struct]] = {
    "interest.clicks.v1": Click,
    "interest.searches.v1": Search,
    "interest.purchases.v1": Purchase,
    "interest.drift.v1": Drift,
    "interest.recommendations.v1": Recommendation,
    "interest.dead-letters.v1": DeadLetterPointer,
}


def example(topic: str) -> bytes:
    """The first JSON block after the bold name of a topic."""
    _, found, after = MESSAGES.partition(f"**`{topic}`**")
    assert found, f"MESSAGES.md has no paragraph for {topic}"
    block = re.search(r"```json\n(.*?)```", after, re.DOTALL)
    assert block is not None
    return block[1].encode()


@pytest.mark.parametrize("topic", STRUCTS)
def test_an_example_decodes_and_has_no_unknown_field(topic: str) -> None:
    raw = msgspec.json.decode(example(topic))
    message = msgspec.json.decode(example(topic), type=STRUCTS[topic])
    assert _names(raw) <= _names(msgspec.json.decode(msgspec.json.encode(message)))


def _names(value: object, path: str = "") -> set[str]:
    """The paths of all fields of a JSON value; the entries of an array share one."""
    if isinstance(value, dict):
        here = {f"{path}.{key}" for key in value}
        return here.union(*(_names(inner, f"{path}.{key}") for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(_names(inner, f"{path}[]") for inner in value))
    return set()


@pytest.mark.parametrize("topic", STRUCTS)
def test_an_example_fits_the_exported_schema(topic: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    titles = {schema["title"]: schema for schema in schemas().values()}
    schema = titles[STRUCTS[topic].__name__]
    jsonschema.validate(msgspec.json.decode(example(topic)), schema)


@pytest.mark.parametrize("kind", ["drift", "recommendation"])
def test_the_id_of_an_example_names_its_source(kind: str) -> None:
    struct = Drift if kind == "drift" else Recommendation
    topic = "interest.drift.v1" if kind == "drift" else "interest.recommendations.v1"
    message = msgspec.json.decode(example(topic), type=struct)
    source = message.source
    assert message.id.startswith(f"{kind}:")
    assert message.id == output_id(
        "drift" if kind == "drift" else "recommendation",
        source.topic,
        source.partition,
        source.offset,
        epoch=0x1F3A90C4,
    )


def test_the_python_examples_are_short_and_compile() -> None:
    blocks = re.findall(r"```python\n(.*?)```", MESSAGES + OPERATE, re.DOTALL)
    assert len(blocks) == 4
    for block in blocks:
        ast.parse(block)
        assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_a_consumer_remembers_as_many_ids_as_a_batch_may_repeat() -> None:
    _, _, section = MESSAGES.partition("## Delivery")
    remembered = re.search(r"len\(ids\) > (\d+)", section)
    assert remembered is not None
    assert int(remembered[1]) == Settings.model_fields["max_batch_events"].default


def test_every_reason_is_listed_and_no_other() -> None:
    listed = MESSAGES.partition("<!-- reasons -->")[2].partition("<!-- /reasons -->")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == {reason.value for reason in Reason}


def test_every_setting_is_listed_with_its_default() -> None:
    rows = re.findall(r"^\| (`INTEREST_.*?) \| (.*?) \|", OPERATE, re.MULTILINE)
    listed = {
        name.removeprefix("INTEREST_").lower(): default.strip()
        for names, default in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert listed.keys() == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        default = field.default
        if default is None:
            continue
        expected = f"{default:g}" if isinstance(default, float) else str(default)
        assert listed[name].lower() == expected.lower(), name


def test_every_metric_is_listed_and_no_other() -> None:
    registry = CollectorRegistry()
    Metrics(registry).set_model("1", 64)
    suffix = {"counter": "_total", "info": "_info"}
    exported = {f.name + suffix.get(f.type, "") for f in registry.collect()}
    assert set(re.findall(r"^\| `(interest_\w+)`", OPERATE, re.MULTILINE)) == exported


def test_input_topics_are_those_of_the_event_types() -> None:
    settings = Settings.model_fields
    names = [settings[f"{name}_topic"].default for name in ("clicks", "searches", "purchases")]
    assert names == list(STRUCTS)[: len(EventType)]


DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "deploy/*.md", "model/*.md", "tests/*/*.md", "stream_app/*/*.md")
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text("utf-8")):
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", path.read_text("utf-8"), re.MULTILINE)
            assert heading in {_anchor(title) for title in titles}, target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_the_readme_stays_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 160
