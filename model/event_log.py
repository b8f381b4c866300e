"""An event log file as columns of arrays, in replay order.

Columns (.parquet, .csv or .jsonl, by suffix):

=============  ========  ===========================================================================
user_id        required  text
timestamp      required  timestamp, RFC 3339 text (no zone: UTC) or epoch milliseconds
event_type     required  click, search or purchase
item_id        required  text, empty for a search
category       required  text, may be empty
action         optional  of a click: fav..., cart...; anything else is a view
query          optional  text of a search
pos            optional  order of a user's events that share a time
event_id       optional  text; without it each row is an event of its own, "{file stem}:{row}"
=============  ========  ===========================================================================

A purchase of several items is several rows, one after the other, with one user and event id. A file
with other names and types is read with `Columns`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from model.errors import EventLogError
from model.event_hash import event_hash
from model.events import QUERY_TOKENS, EventBatch, EventType, Kind
from model.state import MAX_TIME_MS
from model.vocabulary import Vocabulary

REQUIRED = ("user_id", "timestamp", "event_type", "item_id", "category")
OPTIONAL = ("action", "query", "pos", "event_id")
SUFFIXES = (".parquet", ".csv", ".jsonl")
_TYPES = {t.name.lower(): int(t) for t in EventType}
_ACTIONS = ("view", "favourite", "cart")


@dataclass(frozen=True)
class Columns:
    """What the columns and event types of a file are called.

    names   our column -> the file's, or nothing for one that is to be empty
    types   the file's event type -> ours, of a click with its action, as in ``click:cart``
    """

    names: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in (*REQUIRED, *OPTIONAL):
                listed = ", ".join((*REQUIRED, *OPTIONAL))
                raise EventLogError(f"{name!r} is no column of an event log; map one of {listed}.")
        for theirs, ours in self.types.items():
            event_type, colon, action = ours.partition(":")
            is_action = not colon or (event_type == "click" and action in _ACTIONS)
            if event_type not in _TYPES or not is_action:
                raise EventLogError(
                    f"{theirs!r} cannot become {ours!r}; name click, search, purchase, or of a "
                    "click the action, as in click:cart."
                )

    @property
    def read(self) -> list[str]:
        """The file's columns that are read."""
        found = [self.names.get(name, name) for name in (*REQUIRED, *OPTIONAL)]
        return list(dict.fromkeys(name for name in found if name))


AS_THEY_ARE = Columns()


@dataclass(frozen=True)
class EventLog:
    """Rows of an event log. N rows; names are listed once and rows carry their 0-based codes.

    users, items, categories, queries   the names that occur
    user                                (N,) int64
    item, category, query               (N,) int64, -1 = none
    time_ms                             (N,) int64
    event_type, kind                    (N,) int64 EventType and Kind
    pos                                 (N,) int64, 0 where the file has none
    event                               (N,) int64 0-based number of the row's event
    event_ids                           one per event
    """

    users: list[str]
    items: list[str]
    categories: list[str]
    queries: list[str]
    user: np.ndarray
    item: np.ndarray
    category: np.ndarray
    query: np.ndarray
    time_ms: np.ndarray
    event_type: np.ndarray
    kind: np.ndarray
    pos: np.ndarray
    event: np.ndarray
    event_ids: list[str]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: np.ndarray) -> EventLog:
        """The rows at ``index`` (numbers or a mask), in that order; the lists of names stay."""
        columns = {
            f.name: getattr(self, f.name)[index]
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **columns)

    def before(self, cutoff_ms: int) -> EventLog:
        """The rows with a time before ``cutoff_ms``."""
        return self.take(self.time_ms < cutoff_ms)

    def last_events(self) -> np.ndarray:
        """Mask (N,) of the rows of each user's last event, for users with more than one."""
        order = np.argsort(self.user, kind="stable")
        user, event = self.user[order], self.event[order]
        newest = event[np.searchsorted(user, user, side="right") - 1]
        oldest = event[np.searchsorted(user, user)]
        mask = np.zeros(len(self), dtype=bool)
        mask[order] = (event == newest) & (newest != oldest)
        return mask

    def digest(self) -> str:
        """sha256 of what the rows say, as hexadecimal text."""
        total = sha256()
        for names, codes in (
            (self.users, self.user),
            (self.items, self.item),
            (self.categories, self.category),
            (self.queries, self.query),
        ):
            total.update(json.dumps(names[: int(codes.max(initial=-1)) + 1]).encode())
            total.update(codes.tobytes())
        for column in (self.time_ms, self.event_type, self.kind, self.pos, self.event):
            total.update(column.tobytes())
        return total.hexdigest()

    def batch(self, vocabulary: Vocabulary) -> tuple[EventBatch, list[str]]:
        """(steps in replay order, users): ``EventBatch.user`` counts into the users.

        An event's offset is its running number among the events of its type, as one partition
        of three topics would number the file.
        """
        first = np.ones(len(self), dtype=bool)
        first[1:] = self.event[1:] != self.event[:-1]
        number = np.cumsum(first) - 1
        line = np.arange(len(self)) - np.flatnonzero(first)[number]
        last = np.ones(len(self), dtype=bool)
        last[:-1] = first[1:]
        offset = np.zeros(len(self), dtype=np.int64)
        for event_type in EventType:
            rows = self.event_type == event_type
            offset[rows] = np.cumsum(first[rows]) - 1
        hashes = event_hash(self.event_ids)
        tokens = np.zeros((len(self.queries) + 1, QUERY_TOKENS), dtype=np.int64)
        for code, text in enumerate(self.queries):
            found = vocabulary.query(text)
            tokens[code, : len(found)] = found
        batch = EventBatch(
            user=self.user,
            event_type=self.event_type,
            offset=offset,
            event_hash=hashes[self.event] if len(hashes) else np.zeros(0, dtype=np.uint64),
            time_ms=self.time_ms,
            kind=self.kind,
            item=_indices([vocabulary.item(name) for name in self.items], self.item),
            category=_indices(
                [vocabulary.category(name) for name in self.categories], self.category
            ),
            query=tokens[self.query],  # code -1 is the last, empty one
            line=line,
            last_line=last,
        )
        return batch, self.users


def _indices(index: list[int], codes: np.ndarray) -> np.ndarray:
    return np.array([*index, 0], dtype=np.int64)[codes]


def read_event_log(path: Path | str, columns: Columns = AS_THEY_ARE) -> EventLog:
    """Reads an event log file; EventLogError in one sentence when it cannot be used."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise EventLogError(f"{path} is no .parquet, .csv or .jsonl file; name an event log.")
    try:
        table = _READERS[path.suffix](path, columns.read)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise EventLogError(f"The event log {path} cannot be read: {reason}.") from error
    except (pa.ArrowException, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["empty"])[0].rstrip(".")
        raise EventLogError(f"The event log {path} cannot be read: {reason}.") from error
    if table.num_rows == 0:
        raise EventLogError(f"{path} has no events; name another file.")
    return event_log(_renamed(table, columns, str(path)), path.stem, str(path))


def _renamed(table: pa.Table, columns: Columns, name: str) -> pa.Table:
    """The table with our columns and event types."""
    if not columns.names and not columns.types:
        return table
    found: dict[str, Any] = {}
    for ours in (*REQUIRED, *OPTIONAL):
        theirs = columns.names.get(ours, ours)
        if theirs in table.column_names:
            found[ours] = table[theirs]
        elif ours in columns.names:
            if theirs:
                raise EventLogError(f"{name} has no column {theirs}; map {ours} to another one.")
            found[ours] = pa.nulls(table.num_rows, pa.large_string())
    if columns.types and "event_type" in found:
        names, code = _coded(found["event_type"], name)
        meant = [columns.types.get(one, one).partition(":") for one in names]
        found["event_type"] = _decoded([one for one, _, _ in meant], code)
        if any(action for _, _, action in meant):
            actions, old = _optional(table, columns.names.get("action", "action"), name)
            own = np.array([*(action for _, _, action in meant), ""], dtype=object)[code]
            given = np.array([*actions, ""], dtype=object)[old]
            found["action"] = pa.chunked_array([pa.array(np.where(own == "", given, own))])
    return pa.table(found)


def _decoded(names: list[str], code: np.ndarray) -> pa.ChunkedArray:
    values = np.array([*names, None], dtype=object)[code]
    return pa.chunked_array([pa.array(values, pa.large_string())])


def event_log(table: pa.Table, stem: str, name: str = "the table") -> EventLog:
    """An event log from a table with the columns above; ``stem`` names rows without an id."""
    for column in REQUIRED:
        if column not in table.column_names:
            raise EventLogError(f"{name} has no column {column}; an event log needs it.")
    users, user = _coded(table["user_id"], name)
    if (user < 0).any():
        raise EventLogError(f"{name} has a row without user_id: row {int((user < 0).argmax())}.")
    types, type_code = _coded(table["event_type"], name)
    for row_type in types:
        if row_type not in _TYPES:
            raise EventLogError(
                f"{name} has event_type {row_type!r}; it must be click, search or purchase."
            )
    if (type_code < 0).any():
        raise EventLogError(f"{name} has a row without event_type.")
    event_type = np.array([*(_TYPES[t] for t in types), 0], dtype=np.int64)[type_code]
    items, item = _coded(table["item_id"], name)
    categories, category = _coded(table["category"], name)
    queries, query = _optional(table, "query", name)
    actions, action = _optional(table, "action", name)
    event, event_ids = _events(table, stem, name, user)
    return EventLog(
        users=users,
        items=items,
        categories=categories,
        queries=queries,
        user=user,
        item=item,
        category=category,
        query=query,
        time_ms=_times_ms(table["timestamp"], name),
        event_type=event_type,
        kind=_kinds(event_type, actions, action),
        pos=_positions(table, name),
        event=event,
        event_ids=event_ids,
    )


def _kinds(event_type: np.ndarray, actions: list[str], action: np.ndarray) -> np.ndarray:
    clicks = np.array([*(int(_click_kind(name)) for name in actions), int(Kind.VIEW)])
    kinds = np.where(event_type == EventType.PURCHASE, int(Kind.PURCHASE), int(Kind.SEARCH))
    return np.where(event_type == EventType.CLICK, clicks[action], kinds).astype(np.int64)


def _click_kind(action: str) -> Kind:
    if action.startswith("fav"):
        return Kind.FAVOURITE
    return Kind.CART if action.startswith("cart") else Kind.VIEW


def _events(
    table: pa.Table, stem: str, name: str, user: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """(number of each row's event, event ids): neighbouring rows of one id and user are one."""
    rows = table.num_rows
    if "event_id" not in table.column_names:
        return np.arange(rows), [f"{stem}:{row}" for row in range(rows)]
    texts = _text(table["event_id"], name).to_pylist()
    ids = [text or f"{stem}:{row}" for row, text in enumerate(texts)]
    first = [True, *(a != b for a, b in pairwise(ids))] if ids else []
    start = np.array(first, dtype=bool)
    start[1:] |= user[1:] != user[:-1]
    return np.cumsum(start) - 1, [ids[row] for row in np.flatnonzero(start)]


def _positions(table: pa.Table, name: str) -> np.ndarray:
    if "pos" not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.int64)
    try:
        numbers = pc.fill_null(_whole(table["pos"]).cast(pa.int64()), 0)
    except pa.ArrowException as error:
        raise EventLogError(f"{name} has a pos that is no whole number.") from error
    return np.asarray(numbers.to_numpy(), dtype=np.int64)


def _optional(table: pa.Table, column: str, name: str) -> tuple[list[str], np.ndarray]:
    if column not in table.column_names:
        return [], np.full(table.num_rows, -1, dtype=np.int64)
    return _coded(table[column], name)


def _coded(column: pa.ChunkedArray, name: str) -> tuple[list[str], np.ndarray]:
    """(names in order of appearance, code of each row); -1 for null and empty text."""
    text = _text(column, name)
    text = pc.if_else(pc.equal(text, ""), None, text).combine_chunks()
    encoded = text.dictionary_encode()
    codes = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), np.array(codes, dtype=np.int64)


def _text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    try:
        text = column.cast(pa.large_string())
        text.validate(full=True)  # a Parquet file may call text what is no UTF-8
        return text
    except pa.ArrowException as error:
        raise EventLogError(
            f"{name} has a column of type {column.type} that is no text."
        ) from error


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return pc.if_else(pc.equal(column, ""), None, column) if text else column


def _times_ms(column: pa.ChunkedArray, name: str) -> np.ndarray:
    if column.null_count:
        raise EventLogError(f"{name} has a row without timestamp.")
    kind = column.type
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = _parsed(column)
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
        times = column.cast(pa.int64()).to_numpy()
    except (pa.ArrowException, ValueError) as error:
        raise EventLogError(
            f"{name} has a timestamp that is neither RFC 3339 nor epoch milliseconds."
        ) from error
    if times.max(initial=0) > MAX_TIME_MS:
        raise EventLogError(
            f"{name} has a timestamp after the year 2106; give epoch milliseconds or RFC 3339."
        )
    return np.array(times, dtype=np.int64)


def _parsed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.int64())
    except pa.ArrowException:
        pass
    try:
        return column.cast(pa.timestamp("us", tz="UTC"))
    except pa.ArrowException:
        return column.cast(pa.timestamp("us"))  # no zone


def _read_parquet(path: Path, names: Sequence[str]) -> pa.Table:
    schema = parquet.read_schema(path)
    return parquet.read_table(path, columns=[name for name in names if name in schema.names])


def _read_csv(path: Path, names: Sequence[str]) -> pa.Table:
    as_text = dict.fromkeys(names, pa.large_string())
    convert = csv.ConvertOptions(column_types=as_text, strings_can_be_null=True, null_values=[""])
    return csv.read_csv(path, convert_options=convert)


def _read_jsonl(path: Path, names: Sequence[str]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    seen: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"line {number} is no JSON object")
            seen.update(row)
            for name, values in columns.items():
                value = row.get(name)
                values.append(value if value is None or isinstance(value, str) else str(value))
    return pa.table({k: pa.array(v, pa.large_string()) for k, v in columns.items() if k in seen})


_READERS = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}
