"""`interest-stream config`: every setting, where it comes from, and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stream_app.settings import PREFIX, SECRETS, Settings
from stream_app.settings_table import settings_table
from tests.acceptance.test_cli import interest_stream

SECRET = "geheimnis-47114711"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)


def test_every_setting_stands_there_with_its_default() -> None:
    rows = settings_table(Settings())
    assert [row.variable for row in rows] == [PREFIX + n.upper() for n in Settings.model_fields]
    assert {row.origin for row in rows} == {"default"}
    values = {row.variable: row.value for row in rows}
    assert values["INTEREST_PARTITIONS"] == 8
    assert values["INTEREST_CHECKPOINT"] is None
    assert values["INTEREST_KAFKA_PASSWORD"] == "not set"


def test_where_a_value_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(SECRET)
    monkeypatch.setenv("INTEREST_TOP_K", "10")  # as the default
    monkeypatch.setenv("INTEREST_KAFKA_CA_FILE", "")
    monkeypatch.setenv("INTEREST_KAFKA_PASSWORD", SECRET)
    monkeypatch.setenv("INTEREST_HTTP_TOKEN_FILE", str(token))

    rows = {row.variable: row for row in settings_table(Settings())}

    assert rows["INTEREST_TOP_K"].origin == "environment"
    assert rows["INTEREST_KAFKA_CA_FILE"].origin == "default"
    password, http_token = rows["INTEREST_KAFKA_PASSWORD"], rows["INTEREST_HTTP_TOKEN"]
    assert (password.value, password.origin) == ("set", "environment")
    assert (http_token.value, http_token.origin) == ("set", "file")
    assert rows["INTEREST_HTTP_TOKEN_FILE"].value == str(token)


@pytest.mark.parametrize("arguments", [["config"], ["config", "--json"]])
@pytest.mark.parametrize("in_file", [False, True])
def test_the_command_shows_no_secret(arguments: list[str], in_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    environment = {
        f"{PREFIX}{name.upper()}{'_FILE' if in_file else ''}": str(path) if in_file else SECRET
        for name in SECRETS
    }
    shown = interest_stream(*arguments, **environment)
    assert shown.returncode == 0, shown.stderr
    assert SECRET not in shown.stdout + shown.stderr
    assert str(len(SECRET)) not in shown.stdout.replace(str(path), "").split()
    for name in SECRETS:
        assert f"{PREFIX}{name.upper()}" in shown.stdout
    if "--json" in arguments:
        rows = {row["variable"]: row for row in json.loads(shown.stdout)}
        origin = "file" if in_file else "environment"
        for name in SECRETS:
            row = rows[f"{PREFIX}{name.upper()}"]
            assert (row["value"], row["origin"]) == ("set", origin)
