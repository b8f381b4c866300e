"""Any bytes become events that a worker takes, or a reason; never an error."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.adapters.adapt import VENDORS, adapt
from stream_app.events import decode_batch
from tests.unit.adapters.examples import EXAMPLES, PRODUCED_MS
from tests.unit.test_fuzz_events import anything

LIMITS = {"partitions": 1, "future_allowance_ms": 10**9, "max_value_bytes": 10**6}


class Record:
    """What the worker's decoder reads."""

    headers = ()

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key, self.value, self.timestamp = key, value, PRODUCED_MS


def feed(vendor: str, value: bytes) -> None:
    made = adapt(VENDORS[vendor], value, PRODUCED_MS, **LIMITS)
    assert made.events or made.refused is not None
    if made.refused is not None:
        made.refused.message.encode()
        (made.refused.user or "").encode()
    for one in made.events:
        events, rejections = decode_batch(
            one.event_type, [Record(one.key, one.value)], partition=one.partition, **LIMITS
        )
        assert rejections == []
        assert events[0] is not None


vendors = st.sampled_from(sorted(VENDORS))


@st.composite
def changed_records(draw: st.DrawFn) -> tuple[str, bytes]:
    """A record of which some field, however deep, holds anything at all or is gone."""
    vendor = draw(vendors)
    value = draw(st.sampled_from(EXAMPLES[vendor])).value
    if value[:1] != b"{":
        fields = value.decode("utf-8", "replace").split("\t")
        place = draw(st.sampled_from([1, 3, 5, 6, 12, 15, 17, 52, 58, 83, 124]))
        if place < len(fields):
            other = draw(st.one_of(st.text(max_size=20), anything.map(json.dumps)))
            fields[place] = other.replace("\t", " ")
        return vendor, "\t".join(fields).encode()
    try:
        found: Any = json.loads(value)
    except ValueError:
        return vendor, value
    for _ in range(draw(st.integers(1, 2))):
        _change(draw, found)
    return vendor, json.dumps(found).encode()


def _change(draw: st.DrawFn, found: Any) -> None:
    while isinstance(found, dict | list) and found:
        name = draw(
            st.sampled_from(sorted(found) if isinstance(found, dict) else range(len(found)))
        )
        if not isinstance(found[name], dict | list) or draw(st.booleans()):
            if isinstance(found, dict) and draw(st.booleans()):
                del found[name]
            else:
                found[name] = draw(anything)
            return
        found = found[name]


@given(changed_records())
@settings(max_examples=400, deadline=None)
def test_any_field_is_taken_or_has_a_reason(made: tuple[str, bytes]) -> None:
    feed(*made)


@given(vendors, st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_have_a_reason(vendor: str, value: bytes) -> None:
    feed(vendor, value)


@given(changed_records(), st.integers(0, 400), st.binary(max_size=8))
@settings(max_examples=150, deadline=None)
def test_broken_bytes_have_a_reason(made: tuple[str, bytes], start: int, new: bytes) -> None:
    vendor, value = made
    feed(vendor, value[:start] + new + value[start + len(new) :])


def test_numbers_that_nobody_can_hold_have_a_reason() -> None:
    for vendor, examples in EXAMPLES.items():
        for one in examples:
            if one.value[:1] == b"{":
                for name in json.loads(one.value):
                    for value in (10**400, -(10**400), 1e308):
                        record = {**json.loads(one.value), name: value}
                        feed(vendor, json.dumps(record).encode())
