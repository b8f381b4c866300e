"""Names to indices, and back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from model.errors import CheckpointError
from model.events import QUERY_TOKENS
from model.vocabulary import MAX_CATEGORIES, Vocabulary, query_tokens


def test_known_names_have_their_own_index_in_order() -> None:
    vocabulary = Vocabulary(("b", "a"), ("x",))
    assert [vocabulary.item("b"), vocabulary.item("a"), vocabulary.category("x")] == [1, 2, 1]
    assert [vocabulary.item_name(1), vocabulary.item_name(2)] == ["b", "a"]
    assert vocabulary.items == 1 + 2 + 64
    assert vocabulary.categories == 1 + 1 + 16


@pytest.mark.parametrize("name", [None, ""])
def test_no_name_is_index_0(name: str | None) -> None:
    vocabulary = Vocabulary(("a",), ("x",))
    assert vocabulary.item(name) == vocabulary.category(name) == 0
    assert vocabulary.query(name) == []
    assert vocabulary.item_name(0) is None


def test_unknown_names_share_the_buckets_at_the_end() -> None:
    vocabulary = Vocabulary(("a",), ("x",), item_buckets=4, category_buckets=2)
    items = {vocabulary.item(f"new-{i}") for i in range(200)}
    categories = {vocabulary.category(f"new-{i}") for i in range(200)}
    assert items == {2, 3, 4, 5}
    assert categories == {2, 3}
    assert all(vocabulary.item_name(i) is None for i in items)
    assert vocabulary.first_item_bucket == 2 == vocabulary.first_category_bucket


def test_build_orders_by_count_and_leaves_the_rare_to_the_buckets() -> None:
    vocabulary = Vocabulary.build({"a": 1, "b": 5, "c": 5, "d": 2}, {"x": 1, "": 9}, 2, 2)
    assert vocabulary.item_names == ("b", "c")
    assert vocabulary.category_names == ("x",)


def test_more_categories_than_a_row_can_number() -> None:
    counts = {f"c{i}": i for i in range(MAX_CATEGORIES + 10)}
    assert Vocabulary.build({}, counts).categories == MAX_CATEGORIES
    with pytest.raises(CheckpointError, match="roll the categories up"):
        Vocabulary((), tuple(counts))


def test_json_gives_the_same_vocabulary() -> None:
    vocabulary = Vocabulary(("a", "ü"), ("x > y",), query_buckets=32)
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"items": [1], "categories": []}'])
def test_damaged_json_is_one_sentence(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary\.json is damaged"):
        Vocabulary.from_json(text)


def test_a_query_has_at_most_eight_tokens_in_bounds() -> None:
    vocabulary = Vocabulary((), (), query_buckets=16)
    for text in ["a", "red running shoes for men size 42", "x" * 10_000, "кроссовки", "ラーメン"]:
        tokens = vocabulary.query(text)
        assert 0 < len(tokens) <= QUERY_TOKENS
        assert all(0 < token < 16 for token in tokens)


def test_languages_share_stems_and_case_does_not_count() -> None:
    music = [set(query_tokens(word)) for word in ("music", "Musik", "MÚSICA")]
    assert "~mus" in music[0] & music[1] & music[2]
    assert query_tokens("Running SHOES") == query_tokens("running shoes")


def test_hashes_are_equal_in_another_process() -> None:
    vocabulary = Vocabulary((), ())
    script = (
        "from model.vocabulary import Vocabulary; v = Vocabulary((), ());"
        "print(v.item('new'), v.category('new'), v.query('running shoes'))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
    here = (vocabulary.item("new"), vocabulary.category("new"), vocabulary.query("running shoes"))
    assert printed.split() == " ".join(map(str, here)).split()
