"""Tables to files: Parquet, CSV or JSON lines, by suffix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

from model.errors import ModelError

SUFFIXES = (".parquet", ".csv", ".jsonl")


def write_table(table: pa.Table, path: Path | str) -> None:
    """Writes a table as the suffix says; lists become JSON text in CSV. ModelError if it cannot."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ModelError(f"{path} is no .parquet, .csv or .jsonl file; name one to write.")
    try:
        if path.suffix == ".parquet":
            parquet.write_table(table, path)
        elif path.suffix == ".csv":
            csv.write_csv(_flat(table), path)
        else:
            with path.open("w", encoding="utf-8") as lines:
                for batch in table.to_batches(max_chunksize=10_000):
                    for row in batch.to_pylist():
                        lines.write(json.dumps(row, ensure_ascii=False, default=_iso) + "\n")
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}.") from error


def _flat(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_list(column.type):
            texts = [json.dumps(value, ensure_ascii=False) for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
        elif pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        columns[name] = column
    return pa.table(columns)


def _iso(value: Any) -> str:
    return str(value.isoformat())
