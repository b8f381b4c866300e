"""What of a changed JSON Schema breaks those who hold to the released one.

An input is written by producers and read by us: what the released schema allows has to be allowed.
An output is written by us and read by consumers: what we write has to be allowed by the released
schema. Either is one question, whether all that fits a narrow schema fits a wide one. Fields that
a schema does not name are ignored by readers, so a new field breaks nobody, and one that is gone
breaks whoever has it. The schemas are those that msgspec makes: a keyword that is not known here
is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Direction = Literal["input", "output"]

ANNOTATIONS = {"$schema", "$id", "$defs", "title", "description", "default", "examples"}
LOWER = ("minLength", "minItems", "minimum", "exclusiveMinimum")
UPPER = ("maxLength", "maxItems", "maximum", "exclusiveMaximum")
EXACT = ("pattern", "format", "multipleOf", "additionalProperties")
KNOWN = {"$ref", "type", "enum", "anyOf", "properties", "required", "items"}


@dataclass(frozen=True)
class Break:
    """One breaking change; `value` is the new value of an enumeration in an output."""

    path: str
    what: str
    value: str | None = None

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


def breaks(released: Json, present: Json, direction: Direction) -> list[Break]:
    """The breaking changes from a released schema to the present one of the same version.

    Raises:
        ValueError: a schema has a keyword that is not known here.
    """
    return list(_Comparison(released, present, direction).of(released, present, "$"))


@dataclass
class _Comparison:
    released: Json
    present: Json
    direction: Direction
    seen: set[tuple[str, str]] = field(default_factory=set)

    def of(self, old: Json, new: Json, path: str) -> Iterator[Break]:
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self.seen:
                return
            self.seen.add(pair)
        olds, news = _choices(self.released, old), _choices(self.present, new)
        narrow, wide = (olds, news) if self.direction == "input" else (news, olds)
        for one in narrow:
            found = [
                list(self._single(one, other, path))
                for other in wide
                if _covers(_type(one), _type(other))
            ]
            if not found:
                what = "no longer allowed" if self.direction == "input" else "new"
                yield Break(path, f"{_name(one)} is {what}")
            elif [] not in found:
                yield from min(found, key=len)

    def _single(self, narrow: Json, wide: Json, path: str) -> Iterator[Break]:
        """Why what fits the one may not fit the other; neither is a reference or a choice."""
        is_input = self.direction == "input"
        if "enum" in wide:
            for value in narrow.get("enum", ()):
                if value not in wide["enum"]:
                    what = "no longer allowed" if is_input else "new"
                    yield Break(path, f"{value!r} is {what}", None if is_input else str(value))
            if "enum" not in narrow:
                yield Break(path, "the values were, or are now, those of a list")
        for limits, worse in ((LOWER, lambda n, w: n < w), (UPPER, lambda n, w: n > w)):
            for limit in limits:
                if limit in wide and (limit not in narrow or worse(narrow[limit], wide[limit])):
                    yield Break(path, f"{limit} is {wide[limit]}, beside {narrow.get(limit)}")
        for keyword in EXACT:
            if keyword in wide and wide[keyword] != narrow.get(keyword):
                yield Break(path, f"{keyword} is {wide[keyword]!r}, beside {narrow.get(keyword)!r}")
        if "items" in wide and "items" not in narrow:
            yield Break(path, "the items may be anything")
        if "items" in wide and "items" in narrow:
            yield from self._either(narrow["items"], wide["items"], f"{path}[]")
        inner, outer = narrow.get("properties", {}), wide.get("properties", {})
        old, new = (inner, outer) if is_input else (outer, inner)
        for name in sorted(set(wide.get("required", ())) - set(narrow.get("required", ()))):
            if name in new:
                what = "is required now" if is_input else "may be missing now"
                yield Break(f"{path}.{name}", what)
        for name in sorted(old.keys() - new.keys()):
            yield Break(f"{path}.{name}", "is gone")
        for name in sorted(old.keys() & new.keys()):
            yield from self.of(old[name], new[name], f"{path}.{name}")

    def _either(self, narrow: Json, wide: Json, path: str) -> Iterator[Break]:
        old, new = (narrow, wide) if self.direction == "input" else (wide, narrow)
        yield from self.of(old, new, path)


def _choices(document: Json, schema: Json) -> list[Json]:
    """The alternatives of a schema, none of them a reference or a choice itself."""
    unknown = schema.keys() - ANNOTATIONS - KNOWN - {*LOWER, *UPPER, *EXACT}
    if unknown:
        raise ValueError(
            f"{sorted(unknown)} is not known to tests/schema_changes.py; add it there."
        )
    if "$ref" in schema:
        return _choices(document, document["$defs"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return [one for choice in schema["anyOf"] for one in _choices(document, choice)]
    return [schema]


def _covers(narrow: str | None, wide: str | None) -> bool:
    return wide is None or narrow == wide or (narrow, wide) == ("integer", "number")


def _type(schema: Json) -> str | None:
    """The one type of a schema; msgspec gives none to a list of texts."""
    if "enum" in schema and all(isinstance(value, str) for value in schema["enum"]):
        return "string"
    return schema.get("type")


def _name(schema: Json) -> str:
    return _type(schema) or "anything"
