"""Events to arrays: users by first appearance, a step per line item, indices of the vocabulary."""

from __future__ import annotations

import numpy as np

from model.event_hash import event_hash
from model.events import EventType, Kind
from model.vocabulary import Vocabulary
from stream_app.events import Click, Event, Purchase, PurchaseItem, Search
from stream_app.lane.assemble import Assembled, assemble

VOCABULARY = Vocabulary(("shoe", "hat"), ("feet", "head"))


def click(number: int, user: str = "ann", item: str = "shoe", **more: object) -> Click:
    return Click(event_id=f"e{number}", user_id=user, timestamp_ms=number, item_id=item, **more)  # type: ignore[arg-type]


def made(events: list[Event], types: list[EventType]) -> Assembled:
    return assemble(events, np.array(types, np.int64), np.arange(len(events)) + 100, VOCABULARY)


def test_a_click_is_one_step() -> None:
    out = made([click(3, category="head", action="cart")], [EventType.CLICK])
    steps = out.steps
    assert out.users == ["ann"]
    assert steps.item.tolist() == [VOCABULARY.item("shoe")]
    assert steps.category.tolist() == [VOCABULARY.category("head")]
    assert steps.kind.tolist() == [Kind.CART]
    assert steps.offset.tolist() == [100]
    assert steps.time_ms.tolist() == [3]
    assert steps.event_hash.tolist() == event_hash(["e3"]).tolist()
    assert steps.last_line.tolist() == [True]


def test_users_are_numbered_by_first_appearance() -> None:
    events: list[Event] = [click(0, "bob"), click(1, "ann"), click(2, "bob")]
    out = made(events, [EventType.CLICK] * 3)
    assert out.users == ["bob", "ann"]
    assert out.steps.user.tolist() == [0, 1, 0]


def test_a_purchase_is_a_step_per_line_item_with_one_offset() -> None:
    lines = (PurchaseItem(item_id="hat", category="head"), PurchaseItem(item_id="shoe"))
    purchase = Purchase(event_id="p", user_id="ann", timestamp_ms=5, items=lines)
    out = made(
        [click(1), purchase, click(2, item="hat")],
        [EventType.CLICK, EventType.PURCHASE, EventType.CLICK],
    )
    steps = out.steps
    assert out.event.tolist() == [0, 1, 1, 2]
    assert steps.item.tolist() == [VOCABULARY.item(n) for n in ("shoe", "hat", "shoe", "hat")]
    assert steps.category.tolist() == [0, VOCABULARY.category("head"), 0, 0]
    assert steps.offset.tolist() == [100, 101, 101, 102]
    assert steps.line.tolist() == [0, 0, 1, 0]
    assert steps.last_line.tolist() == [True, False, True, True]
    assert steps.kind.tolist() == [Kind.VIEW, Kind.PURCHASE, Kind.PURCHASE, Kind.VIEW]


def test_a_search_has_tokens_and_no_item() -> None:
    search = Search(event_id="s", user_id="ann", timestamp_ms=5, query="red hat")
    steps = made([search], [EventType.SEARCH]).steps
    tokens = VOCABULARY.query("red hat")
    assert steps.query[0, : len(tokens)].tolist() == tokens
    assert steps.query[0, len(tokens) :].sum() == 0
    assert steps.item.tolist() == [0]
    assert steps.kind.tolist() == [Kind.SEARCH]


def test_names_that_are_not_in_the_vocabulary_share_buckets() -> None:
    steps = made([click(1, item="glove", category="hands")], [EventType.CLICK]).steps
    assert steps.item.tolist() == [VOCABULARY.item("glove")]
    assert steps.category.tolist() == [VOCABULARY.category("hands")]
    assert steps.item[0] > len(VOCABULARY.item_names)


def test_items_keep_the_names_of_their_events() -> None:
    search = Search(event_id="s", user_id="ann", timestamp_ms=2, query="red hat")
    items = [PurchaseItem(item_id="glove"), PurchaseItem(item_id="hat")]
    basket = Purchase(event_id="p", user_id="ann", timestamp_ms=3, items=items)
    events: list[Event] = [click(1, item="scarf"), search, basket]
    out = made(events, [EventType.CLICK, EventType.SEARCH, EventType.PURCHASE])
    assert [out.item_id(step) for step in range(4)] == ["scarf", "", "glove", "hat"]


def test_nothing_gives_nothing() -> None:
    out = made([], [])
    assert len(out.steps) == 0
    assert out.users == []
