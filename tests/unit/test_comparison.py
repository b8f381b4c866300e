"""Rows side by side: what is equal, what differs and how, and whose history was not replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.state import new_rows, pack
from stream_app.comparison import LEFT_OUT, Comparison, Coverage, compare, digest, explain

H = 8


def row(**values: Any) -> bytes:
    """A row with some fields set; of an array all places, or those of a dict."""
    rows = new_rows(1, H)
    for name, value in values.items():
        if isinstance(value, dict):
            for place, part in value.items():
                rows[name][0][place] = part
        else:
            rows[name][0] = value
    return pack(rows)[0]


def outcome(
    offline: dict[str, bytes], stored: dict[str, bytes], coverage: Coverage | None = None
) -> Comparison:
    return compare(offline, stored, H, coverage or Coverage())


def test_equal_rows_have_equal_hashes_whatever_their_order() -> None:
    a, b = row(events=3), row(events=4)

    found = outcome({"a": a, "b": b}, {"b": b, "a": a})

    assert found.exact
    assert (found.users, found.events, found.not_covered) == (2, 7, 0)
    assert found.stored_sha256 == found.offline_sha256 == digest({"a": a, "b": b}, H)
    assert digest({"a": b, "b": a}, H) != found.stored_sha256
    assert digest({"a": a}, H) != digest({"b": a}, H)


def test_no_rows_at_all() -> None:
    found = outcome({}, {})

    assert found.exact
    assert (found.users, found.events) == (0, 0)


@pytest.mark.parametrize("name", ["h", "c", "anchor_h", "anchor_c"])
@pytest.mark.parametrize(("gap", "equal"), [(0.004, True), (0.006, False), (np.nan, False)])
def test_hidden_states_compare_by_their_difference(name: str, gap: float, equal: bool) -> None:
    left, right = row(events=1), row(events=1, **{name: {(3,): gap}})

    found = outcome({"a": left}, {"a": right})

    assert found.exact is equal
    assert found.stored_sha256 == found.offline_sha256
    names = [field.name for field in explain("a", left, right, H).fields]
    assert names == ([] if equal else [f"{name}[3]"])


def test_every_other_field_compares_to_the_last_bit() -> None:
    for name in new_rows(1, H).dtype.names or ():
        if name in ("h", "c", "anchor_h", "anchor_c", "version", *LEFT_OUT):
            continue
        left, right = row(), row(**{name: 3})
        found = outcome({"a": left}, {"a": right})
        assert found.differing == ["a"], name
        assert found.stored_sha256 != found.offline_sha256
        (field,) = explain("a", left, right, H).fields
        assert field.name.startswith(name)
        assert float(field.stored) == 3


def test_kept_predictions_are_left_out() -> None:
    left, right = row(), row(window_due_s=9, window_category=[1, 2, 3], window_probability=0.5)
    found = outcome({"a": left}, {"a": right})
    assert found.exact
    assert found.stored_sha256 == found.offline_sha256
    assert explain("a", left, right, H).fields == ()


def test_the_first_place_of_an_array_is_named() -> None:
    left = row(events=5, slot_count={(2, 7): 1.5}, offset={(1,): 45})
    right = row(events=4, slot_count={(2, 7): 1.25, (2, 9): 1}, offset={(1,): 41})

    fields = explain("a", left, right, H).fields

    assert [(f.name, f.stored, f.offline) for f in fields] == [
        ("offset[1]", "41", "45"),
        ("events", "4", "5"),
        ("slot_count[2][7]", "1.25", "1.5"),
    ]


def test_a_row_that_only_one_side_has_differs() -> None:
    found = outcome({"a": row(), "b": row()}, {"b": row(), "c": row()})

    assert found.differing == ["a", "c"]
    assert explain("a", row(), None, H).fields == ()


def test_rows_that_saw_more_than_the_end_are_not_covered() -> None:
    coverage = Coverage(end=(10, 20, 30))
    inside, outside = row(offset={(0,): 9}), row(offset={(2,): 30})

    found = outcome(
        {"inside": inside, "outside": inside, "lost": inside},
        {"inside": inside, "outside": outside, "later": outside},
        coverage,
    )

    assert (found.users, found.not_covered) == (2, 2)
    assert found.differing == ["lost"], "its events were replayed, and it has no row"


def test_rows_that_saw_more_than_the_beginning_are_not_covered() -> None:
    offline = {"new": row(events=3), "old": row(events=3), "lost": row(events=3)}
    stored = {
        "new": row(events=3),
        "old": row(events=4, offset={(0,): 5}),
        "before": row(events=1),
        "lost": row(events=2),
    }

    found = outcome(offline, stored, Coverage(from_beginning=False, end=(10, 10, 10)))

    assert (found.users, found.not_covered) == (2, 2)
    assert found.differing == ["lost"], "fewer events than were replayed"
