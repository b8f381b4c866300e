"""A file comes to the input topics once, interrupted and killed as it may be."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import pytest

from model.event_log import AS_THEY_ARE, Columns
from stream_app import topics
from stream_app.errors import UsageError
from stream_app.file_replay import Report, send_file, state_file, what_was_sent
from stream_app.lane.reading import read_records
from stream_app.producing import EventProducer
from stream_app.settings import Settings

EVENTS = 200
CHUNK = 30


@pytest.fixture
def file(tmp_path: Path, settings: Settings) -> Path:
    topics.create(settings)
    path = tmp_path / "shop.jsonl"
    rows = [
        {
            "user_id": f"user-{number % 7}",
            "timestamp": 1_772_360_000_000 + 1000 * number,
            "event_type": ("click", "search", "purchase")[number % 3],
            "item_id": f"item-{number}",
            "category": "c",
            "query": "q",
        }
        for number in range(EVENTS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def sent(settings: Settings) -> Counter[str]:
    return Counter(
        json.loads(record.value)["event_id"]
        for topic in settings.input_topics
        for partition in range(settings.partitions)
        for record in read_records(settings, topic, partition)
    )


ALL = Counter(f"shop:{number}" for number in range(EVENTS))


def send(settings: Settings, file: Path, go_on: bool = False) -> Report:
    return send_file(settings, file, AS_THEY_ARE, go_on=go_on, chunk=CHUNK)


class Killed(BaseException):
    """Ends a call as kill -9 does: nothing is noted after it."""


def break_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
    """From the n-th event on, sending raises; what was handed over before may arrive."""
    whole = EventProducer.send

    def send_or_break(self: EventProducer, *arguments: object) -> None:
        if self.sent == number:
            self.wait()
            raise error
        whole(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(EventProducer, "send", send_or_break)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Killed()], ids=["interrupted", "killed"])
def test_a_replay_goes_on_where_it_broke_off(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, 100, error)  # in the midst of the fourth chunk
        if isinstance(error, Killed):
            with pytest.raises(Killed):
                send(settings, file)
        else:
            report = send(settings, file)
            assert not report.is_done
            assert "--continue" in what_was_sent(file, report)
    assert sent(settings).total() == 100
    with pytest.raises(
        UsageError, match=r"interrupted after 90 of 200 events; go on with --contin"
    ):
        send(settings, file)
    report = send(settings, file, go_on=True)
    assert report == Report(EVENTS, 7, 100, is_done=True, is_noted=True)
    assert sent(settings) == ALL
    assert not state_file(file).exists()


def test_a_whole_replay_leaves_nothing_behind(settings: Settings, file: Path) -> None:
    report = send(settings, file)
    assert what_was_sent(file, report) == "Sent 200 events of 7 users."
    assert sent(settings) == ALL
    assert list(file.parent.glob("*.replay*")) == []
    with pytest.raises(UsageError, match="was not interrupted, or has come to its end"):
        send(settings, file, go_on=True)


def test_another_file_does_not_go_on(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        break_at(patch, 40, KeyboardInterrupt())
        send(settings, file)
    other = Columns(names={"category": "item_id"})
    with pytest.raises(UsageError, match="is of other events than those of"):
        send_file(settings, file, other, go_on=True)
    state_file(file).write_bytes(b"{")
    with pytest.raises(UsageError, match="cannot be read; delete it to begin over"):
        send(settings, file)


def test_a_folder_that_cannot_be_written_is_no_hindrance(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, content: bytes) -> int:
        raise PermissionError(stat.S_IRUSR, "read-only")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    report = send(settings, file)
    assert report.is_done
    assert not report.is_noted
    assert sent(settings) == ALL
