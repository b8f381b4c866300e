"""`dead-letters list` and `show` over letters in a real topic."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer
from typer.testing import CliRunner

from stream_app import topics
from stream_app.cli import app
from stream_app.dead_letters import dead_letter
from stream_app.errors import DeadLetterError
from stream_app.events import Reason, Source
from stream_app.letter_topic import RedriveMark
from stream_app.settings import PREFIX, Settings
from stream_app.terminal import output
from stream_app.times import format_time

BINARY = bytes(range(256)) * 20
STEERING = "\x1b[31m[bold]Red."
# Recent: a broker lets go of what is older than its retention.
LATE_MS = int(time.time() * 1000) - 3_600_000
EARLY_MS = LATE_MS - 3_600_000

Run = Callable[..., str]


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    changed = settings.model_dump(exclude_defaults=True)
    for key, value in changed.items():
        monkeypatch.setenv(f"{PREFIX}{key.upper()}", str(value))
    monkeypatch.setattr(output, "_width", 200)  # read from the environment at the import

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["dead-letters", *arguments])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return invoke


@pytest.fixture
def clicks(settings: Settings) -> Iterator[str]:
    """Letters of three records of the clicks, and a fourth that has a tombstone."""
    topics.create(settings)
    name = settings.clicks_topic
    producer = KafkaProducer(**settings.kafka_python())

    def write(key: bytes, value: bytes | None, headers: Any = (), time_ms: int = EARLY_MS) -> None:
        producer.send(
            settings.dead_letters_topic, value, key, list(headers), 0, timestamp_ms=time_ms
        )

    def letter(offset: int, value: bytes | None, reason: Reason, time_ms: int, **more: Any) -> None:
        values = {"key": b"secret-user", "message": "It is broken.", "max_bytes": 10_000, **more}
        made = dead_letter(name, 0, offset, value=value, reason=str(reason), **values)
        write(made.key, made.value, made.headers, time_ms)

    letter(1, b'{"user_id": "secret-user"', Reason.INVALID_JSON, EARLY_MS)
    letter(2, BINARY, Reason.INVALID_UTF8, LATE_MS, message=STEERING)
    letter(3, None, Reason.NULL_VALUE, LATE_MS + 1, key=None)
    letter(4, b"{}", Reason.MISSING_FIELD, LATE_MS)
    write(f"{name}:0:4".encode(), None)
    done = RedriveMark(
        source=Source(name, 0, 1),
        run="a",
        begun_ms=0,
        partition=0,
        after_offset=0,
        sent=Source(name, 2, 7),
    )
    write(done.key(), msgspec.json.encode(done), done.headers())
    write(b"stranger", b"?")
    producer.flush(60)
    producer.close()
    return name


def listed(run: Run, *arguments: str) -> list[tuple[str, str | None]]:
    """Offsets of the letters, and where they were sent."""
    found = json.loads(run("list", "--json", *arguments))
    return [(x["place"].rpartition(":")[2], x["redriven_to"]) for x in found["letters"]]


def test_list_as_json(run: Run, clicks: str) -> None:
    found = json.loads(run("list", "--json"))

    assert found["reasons"] == {"invalid_json": 1, "invalid_utf8": 1, "null_value": 1}
    assert found["passed_over"] == 1
    assert found["letters"][0] == {
        "place": f"{clicks}:0:1",
        "time": format_time(EARLY_MS),
        "reason": "invalid_json",
        "message": "It is broken.",
        "redriven_to": f"{clicks}:2:7",
    }
    to = f"{clicks}:2:7"
    assert listed(run) == [("1", to), ("2", None), ("3", None)]
    assert listed(run, "--pending") == [("2", None), ("3", None)]
    assert listed(run, "--reason", "invalid_json") == [("1", to)]
    assert listed(run, "--since", format_time(LATE_MS)) == [("2", None), ("3", None)]
    assert listed(run, "--since", str(LATE_MS + 1)) == [("3", None)]
    assert listed(run, "--limit", "1") == [("3", None)]


def test_list_as_tables_names_no_user_and_steers_no_terminal(run: Run, clicks: str) -> None:
    shown = run("list")

    assert f"{clicks}:0:2" in shown
    assert "invalid_utf8" in shown
    assert "secret-user" not in shown
    assert "\x1b" not in shown
    assert r"\x1b[31m[bold]Red." in shown
    assert f"{clicks}:0:4" not in shown


def test_show(run: Run, clicks: str) -> None:
    first, second, third = (run("show", f"{clicks}:0:{offset}") for offset in (1, 2, 3))

    assert 'value: {"user_id": "secret-user"' in first
    assert "header source-key: secret-user" in first
    assert f"re-driven to: {clicks}:2:7" in first
    assert "The source record is gone." in first
    assert "value: 0x000102" in second
    assert "and 1,024 bytes more, see --raw" in second
    assert "\x1b" not in second
    assert "value: the record had none" in third
    for offset in (4, 5):
        with pytest.raises(DeadLetterError, match=f"There is no dead letter {clicks}:0:{offset}"):
            run("show", f"{clicks}:0:{offset}")


def test_show_raw_writes_the_exact_bytes(
    run: Run, clicks: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    result = CliRunner().invoke(app, ["dead-letters", "show", "--raw", f"{clicks}:0:2"])

    assert result.exit_code == 0
    assert result.stdout_bytes == BINARY
    with pytest.raises(DeadLetterError, match="had no value"):
        run("show", "--raw", f"{clicks}:0:3")


def test_show_follows_a_pointer(run: Run, settings: Settings) -> None:
    topics.create(settings)
    producer = KafkaProducer(**settings.kafka_python())
    value = b"long " * 1000
    made = [
        dead_letter(settings.clicks_topic, 0, offset, b"k", text, "too_large", "Too long.", 1000)
        for offset, text in ((0, value), (1, b"other" * 1000))
    ]
    for one in made:
        producer.send(settings.dead_letters_topic, one.value, one.key, one.headers, 0)
    producer.send(settings.clicks_topic, value, b"k", partition=0)
    producer.send(settings.clicks_topic, value, b"k", partition=0)
    producer.flush(60)
    producer.close()

    followed, changed = (run("show", f"{settings.clicks_topic}:0:{offset}") for offset in (0, 1))

    assert "size: 5,000 bytes" in followed
    assert "value: long long" in followed
    assert "gone" not in followed
    assert "another record is at its source by now" in changed
    assert run("show", "--raw", f"{settings.clicks_topic}:0:0") == value.decode()


def test_redrive_says_what_stays_and_why(run: Run, clicks: str) -> None:
    shown = run("redrive", "--dry-run", f"{clicks}:0:1")
    assert shown == f"{clicks}:0:1: was sent before, to {clicks}:2:7.\n"

    with pytest.raises(SystemExit) as ended:
        run("redrive", "--reason", "null_value")
    assert ended.value.code == 1
