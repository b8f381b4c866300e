"""The command line as a user meets it: help, figures on files, and one sentence for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model.checkpoint import load, save
from model.evaluation.report import from_document
from stream_app.errors import UsageError
from stream_app.terminal import printable
from stream_app.times import format_time, parse_duration, parse_time
from tests.checkpoints import tiny_checkpoint


def interest_stream(
    *arguments: str, timeout_s: float = 120, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "stream_app.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "COLUMNS": "200", **environment},
    )


def test_help_lists_the_commands() -> None:
    shown = interest_stream("--help")
    assert shown.returncode == 0
    for command in ("demo", "worker", "ui", "topics", "replay", "verify", "dead-letters"):
        assert command in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "sentence"),
    [
        (["worker"], {"INTEREST_PARTITIONS": "none"}, 2, "INTEREST_PARTITIONS"),
        (["worker"], {"INTEREST_CHECKPOINT": "nowhere"}, 2, "nowhere"),
        (["worker"], {}, 2, "INTEREST_CHECKPOINT"),
        (["worker"], {"INTEREST_HTTP_HOST": "0.0.0.0"}, 2, "INTEREST_HTTP_TOKEN_FILE"),
        (["worker"], {"INTEREST_HTTP_TOKEN": "short"}, 2, "INTEREST_HTTP_TOKEN"),
        (["ui", "--host", "0.0.0.0"], {}, 2, "INTEREST_HTTP_TOKEN_FILE"),
        (["train", "--data", "missing.parquet", "--out", "x"], {}, 1, "missing.parquet"),
        (["train", "--data", "log.txt", "--out", "x"], {}, 1, "log.txt"),
        (["simulate", "--out", "log.txt"], {}, 1, "log.txt"),
        (["evaluate", "--data", "x.csv", "--protocol", "dowsing"], {}, 1, "there are: window"),
        (["evaluate", "--data", "x.csv", "--events", "sale"], {}, 2, "'sale'"),
        (["evaluate", "--data", "missing.csv"], {}, 1, "missing.csv"),
        (["evaluate", "--data", "x.csv", "--json", "no/where.json"], {}, 2, "no/where.json"),
        (["evaluate", "--data", "x.csv", "--predictions", "a.txt"], {}, 2, "a.txt"),
        (["drift", "--data", "x.csv"], {}, 2, "--out"),
        (["drift", "calibrate", "--data", "x.csv"], {}, 2, "--checkpoint"),
        (["drift", "calibrate", "--data", "x.csv", "--checkpoint", "x"], {}, 2, "Give either"),
        (
            ["predict", "--data", "x", "--cutoff", "2020-01-01", "--out", "y", "--events", "sale"],
            {},
            2,
            "'sale'",
        ),
        (["no-such-command"], {}, 2, "no-such-command"),
        (["topics", "check"], {"INTEREST_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, 1, "127.0.0.1:1"),
        (["demo", "--data", "missing.csv"], {}, 1, "missing.csv"),
        (["verify"], {}, 2, "INTEREST_CHECKPOINT"),
        (["verify", "--checkpoint", "x", "--from", "soon"], {}, 2, "soon"),
        (["verify", "--checkpoint", "x", "--partition", "8"], {}, 2, "from 0 to 7"),
        (["dead-letters", "show", "clicks"], {}, 2, "interest.clicks.v1:3:4711"),
        (
            ["dead-letters", "redrive"],
            {"INTEREST_KAFKA_BOOTSTRAP": "127.0.0.1:1"},
            1,
            "127.0.0.1:1",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    arguments: list[str], environment: dict[str, str], status: int, sentence: str
) -> None:
    shown = interest_stream(*arguments, **environment)
    assert shown.returncode == status, shown.stderr
    assert sentence in shown.stderr
    assert "Traceback" not in shown.stderr


def test_verify_without_a_broker_is_one_sentence(tmp_path: Path) -> None:
    save(tiny_checkpoint(items=12, categories=4, hidden=4), tmp_path / "checkpoint", "For a test.")
    shown = interest_stream(
        "verify",
        "--checkpoint",
        str(tmp_path / "checkpoint"),
        INTEREST_KAFKA_BOOTSTRAP="127.0.0.1:1",
    )
    assert shown.returncode == 1
    assert shown.stderr.startswith("BrokerError: No broker answers at 127.0.0.1:1")
    assert len(shown.stderr.strip().splitlines()) == 1


def test_simulate_writes_the_same_log_twice(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        made = interest_stream("simulate", "--out", str(tmp_path / name), "--users", "20")
        assert made.returncode == 0, made.stderr
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    truth = tmp_path / "a.truth.parquet"
    assert truth.read_bytes() == (tmp_path / "b.truth.parquet").read_bytes()


def test_evaluate_shows_and_writes_what_it_scored(tmp_path: Path) -> None:
    log, lists, figures = (str(tmp_path / name) for name in ("a.parquet", "p.csv", "f.json"))
    assert interest_stream("simulate", "--out", log, "--users", "30").returncode == 0
    shown = interest_stream(
        *("evaluate", "--data", log, "--protocol", "window", "--horizon", "8d", "--quick"),
        *("--predictions", lists, "--json", figures),
    )
    assert shown.returncode == 0, shown.stderr
    assert "NDCG@10" in shown.stdout
    assert Path(lists).read_text("utf-8").startswith('"user_id","category","probability"')
    report = from_document(json.loads(Path(figures).read_text("utf-8")))
    assert report.tables[0].title in shown.stdout
    assert report.figures


def test_times_and_durations() -> None:
    assert parse_time("2014-07-17") == parse_time("2014-07-17T00:00:00Z") == 1_405_555_200_000
    assert parse_time("2014-07-17T02:00:00+02:00") == 1_405_555_200_000
    assert parse_time("1405555200000") == 1_405_555_200_000
    assert format_time(1_405_555_200_123) == "2014-07-17T00:00:00.123Z"
    assert (parse_duration("30d"), parse_duration("12h")) == (2_592_000, 43_200)
    for wrong in ("", "d", "30", "-1d", "0d", "1w"):
        with pytest.raises(UsageError):
            parse_duration(wrong)
    with pytest.raises(UsageError):
        parse_time("yesterday")


def test_text_steers_no_terminal() -> None:
    assert printable("a\x1b[31m\n\u202eb") == r"a\x1b[31m\n\u202eb"
    assert printable("Größe 日本 😀") == "Größe 日本 😀"


def test_drift_calibrate_writes_the_threshold_and_what_was_measured(tmp_path: Path) -> None:
    log, model, found = (tmp_path / name for name in ("shop.parquet", "model", "found.jsonl"))
    made = interest_stream("simulate", "--out", str(log), "--users", "60", "--days", "40")
    assert made.returncode == 0
    save(tiny_checkpoint(), model, "# Checkpoint x\n\nDrift: threshold 4.0, the default.\n")
    before = load(model)
    words = ["--data", str(log), "--checkpoint", str(model)]
    done = interest_stream("drift", "calibrate", *words, "--average-run-length", "200")
    assert done.returncode == 0, done.stderr
    after = load(model)
    assert after.number == before.number
    assert after.version != before.version
    assert after.drift.average_run_length is not None
    assert after.drift.average_run_length >= 200
    assert after.drift.run_length_low is not None
    assert after.drift.run_length_low >= 160
    card = (model / "card.md").read_text()
    assert f"# Checkpoint {after.version}" in card
    assert f"threshold {after.drift.threshold}" in card
    assert "the default" not in card
    again = interest_stream("drift", "calibrate", *words, "--average-run-length", "200")
    assert again.returncode == 0, again.stderr
    assert load(model).version == after.version
    words = ["--data", str(log), "--checkpoint", str(model), "--out", str(found)]
    assert interest_stream("drift", *words).returncode == 0
    alarms = [json.loads(line) for line in found.read_text().splitlines()]
    assert alarms
    assert {alarm["threshold"] for alarm in alarms} == {after.drift.threshold}
    assert all(alarm["statistic"] >= after.drift.threshold for alarm in alarms)
