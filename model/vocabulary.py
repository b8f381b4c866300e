"""Names to indices: items, categories, and the words of a search.

Index 0 means none. Known names come next, in the order they were given; names that training has
not seen share a few hashed buckets behind them, so that every name has an embedding. Hashes are
CRC-32: equal in every process, unlike Python's ``hash``.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

from model.errors import CheckpointError
from model.events import QUERY_TOKENS

MAX_CATEGORIES = 2**16
"""Category indices are stored as 16 bits in a user's row."""
MAX_QUERY_CHARACTERS = 256
"""A longer search text is cut before it is split into words."""
_MAX_WORDS = 4
_TRIGRAM = 3
_WORD = re.compile(r"\w+")
_ACCENT = re.compile("[\u0300-\u036f]")


@dataclass(frozen=True)
class Vocabulary:
    """Names in index order, and how many buckets unknown names share.

    item_names, category_names        known names; the first has index 1
    item_buckets, category_buckets    indices behind the known names, for unknown ones
    query_buckets                     indices of query tokens, 0 = none included
    """

    item_names: tuple[str, ...]
    category_names: tuple[str, ...]
    item_buckets: int = 64
    category_buckets: int = 16
    query_buckets: int = 1024
    item_index: dict[str, int] = field(init=False, repr=False, compare=False)
    category_index: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.item_buckets, self.category_buckets) < 1 or self.query_buckets < 2:
            raise CheckpointError("A vocabulary needs at least one bucket for unknown names.")
        if self.categories > MAX_CATEGORIES:
            raise CheckpointError(
                f"The vocabulary has {len(self.category_names)} categories and a row holds "
                f"{MAX_CATEGORIES - 1 - self.category_buckets}; roll the categories up."
            )
        items = {name: i for i, name in enumerate(self.item_names, start=1)}
        categories = {name: i for i, name in enumerate(self.category_names, start=1)}
        if len(items) != len(self.item_names) or len(categories) != len(self.category_names):
            raise CheckpointError("A name occurs twice in the vocabulary; make it anew.")
        object.__setattr__(self, "item_index", items)
        object.__setattr__(self, "category_index", categories)

    @property
    def items(self) -> int:
        """Number of item indices, none and buckets included."""
        return 1 + len(self.item_names) + self.item_buckets

    @property
    def categories(self) -> int:
        """Number of category indices, none and buckets included."""
        return 1 + len(self.category_names) + self.category_buckets

    @property
    def first_item_bucket(self) -> int:
        """Items from this index on share a bucket and have no name."""
        return 1 + len(self.item_names)

    @property
    def first_category_bucket(self) -> int:
        """Categories from this index on share a bucket and have no name."""
        return 1 + len(self.category_names)

    def item(self, name: str | None) -> int:
        """Index of an item id; 0 for None and the empty name."""
        if not name:
            return 0
        index = self.item_index.get(name)
        return self._bucket(name, len(self.item_names), self.item_buckets, index)

    def category(self, name: str | None) -> int:
        """Index of a category name; 0 for None and the empty name."""
        if not name:
            return 0
        index = self.category_index.get(name)
        return self._bucket(name, len(self.category_names), self.category_buckets, index)

    @staticmethod
    def _bucket(name: str, known: int, buckets: int, index: int | None) -> int:
        if index is not None:
            return index
        return 1 + known + crc32(name.encode("utf-8", "surrogatepass")) % buckets

    def query(self, text: str | None) -> list[int]:
        """Hashed tokens of a search text, at most ``QUERY_TOKENS``; see ``query_tokens``."""
        return list(_query(text[:MAX_QUERY_CHARACTERS], self.query_buckets)) if text else []

    def item_name(self, index: int) -> str | None:
        """Name of an item index; None for no item and for a bucket."""
        return self.item_names[index - 1] if 0 < index <= len(self.item_names) else None

    def category_name(self, index: int) -> str | None:
        """Name of a category index; None for no category and for a bucket."""
        return self.category_names[index - 1] if 0 < index <= len(self.category_names) else None

    @classmethod
    def build(
        cls,
        item_counts: Mapping[str, int],
        category_counts: Mapping[str, int],
        min_item_count: int = 1,
        max_items: int | None = None,
        **buckets: int,
    ) -> Vocabulary:
        """The names worth an index of their own, most frequent first (ties by name).

        Items seen fewer than ``min_item_count`` times and beyond ``max_items`` share buckets;
        so do the rarest categories when there are more than a row can number.
        """
        items = [name for name in _by_count(item_counts) if item_counts[name] >= min_item_count]
        category_buckets = buckets.get("category_buckets", cls.category_buckets)
        categories = _by_count(category_counts)[: MAX_CATEGORIES - 1 - category_buckets]
        return cls(tuple(items[:max_items]), tuple(categories), **buckets)

    def to_json(self) -> str:
        """The vocabulary as JSON text; equal vocabularies give equal text."""
        return json.dumps(
            {
                "items": self.item_names,
                "categories": self.category_names,
                "item_buckets": self.item_buckets,
                "category_buckets": self.category_buckets,
                "query_buckets": self.query_buckets,
            },
            ensure_ascii=False,
            indent=0,
        )

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """A vocabulary from ``to_json`` text; CheckpointError when it is something else."""
        damaged = CheckpointError("vocabulary.json is damaged; make the checkpoint anew.")
        try:
            read: Any = json.loads(text)
            items, categories = read["items"], read["categories"]
            buckets = {k: read[k] for k in ("item_buckets", "category_buckets", "query_buckets")}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged from error
        named = isinstance(items, list) and isinstance(categories, list)
        if not (
            named
            and all(isinstance(name, str) and _is_name(name) for name in [*items, *categories])
            and all(type(size) is int and 0 < size <= 2**20 for size in buckets.values())
        ):
            raise damaged
        return cls(tuple(items), tuple(categories), **buckets)


def _is_name(name: str) -> bool:
    """JSON can escape half of a surrogate pair, which UTF-8 cannot express."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def query_tokens(text: str) -> list[str]:
    """At most ``QUERY_TOKENS`` tokens of a search text: its words, then trigrams of its words.

    Words are compared without case and without Latin accents. A trigram carries a mark, and the
    first trigrams of all words come first: a word's stem stands there, also across languages
    (music, Musik and música share "~mus").
    """
    folded = unicodedata.normalize("NFKD", text[:MAX_QUERY_CHARACTERS].casefold())
    plain = unicodedata.normalize("NFC", _ACCENT.sub("", folded))
    words = list(dict.fromkeys(_WORD.findall(plain)))[:_MAX_WORDS]
    longest = max((len(word) for word in words), default=0)
    trigrams = [
        "~" + word[start : start + _TRIGRAM]
        for start in range(longest - _TRIGRAM + 1)
        for word in words
        if start + _TRIGRAM <= len(word) and len(word) > _TRIGRAM
    ]
    return list(dict.fromkeys([*words, *trigrams]))[:QUERY_TOKENS]


@lru_cache(maxsize=16384)
def _query(text: str, buckets: int) -> tuple[int, ...]:
    tokens = (crc32(t.encode("utf-8", "surrogatepass")) for t in query_tokens(text))
    return tuple(dict.fromkeys(1 + token % (buckets - 1) for token in tokens))


def _by_count(counts: Mapping[str, int]) -> list[str]:
    return sorted((name for name in counts if name), key=lambda name: (-counts[name], name))
