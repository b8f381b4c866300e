"""The settings as they are in force: variable, value and where it comes from, secrets masked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from rich.markup import escape
from rich.table import Column, Table

from stream_app.settings import PREFIX, SECRETS, Settings

Origin = Literal["default", "environment", "file"]
Value = str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """One setting; of a secret, `value` says only whether it is set."""

    variable: str
    value: Value
    origin: Origin


def settings_table(settings: Settings) -> list[Row]:
    """A row for every setting, in the order of deploy/README.md."""
    return [_row(settings, name) for name in Settings.model_fields]


def _row(settings: Settings, name: str) -> Row:
    variable = PREFIX + name.upper()
    value = getattr(settings, name)
    if name in SECRETS:
        is_in_file = getattr(settings, f"{name}_file") is not None
        if is_in_file:
            return Row(variable, "set", "file")
        origin: Origin = "default" if value is None else "environment"
        return Row(variable, "not set" if value is None else "set", origin)
    # An empty variable counts as unset.
    is_given = name in settings.model_fields_set and value is not None
    shown = value if value is None or isinstance(value, (str, int, float)) else str(value)
    return Row(variable, shown, "environment" if is_given else "default")


def to_json(rows: list[Row]) -> str:
    """A JSON array of objects with variable, value and origin."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def as_table(rows: list[Row]) -> Table:
    """A table for people."""
    table = Table("variable", Column("value", overflow="fold"), "from", box=None)
    for row in rows:
        shown = "" if row.value is None else str(row.value)
        table.add_row(row.variable, escape(shown), row.origin)
    return table
