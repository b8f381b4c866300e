"""A checkpoint directory with wild contents is refused, or gives a model that can be run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from tests.fuzz_targets import FILES, checkpoint_files, feed_checkpoint

NESTED = b"[" * 100_000
HUGE = 10**400


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoint")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a JSON value, inner ones too."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


anything = (
    st.none()
    | st.booleans()
    | st.integers(-2, 300)
    | st.sampled_from([HUGE, -HUGE, 2**31, 2**63, 1e308, -1e308, 5e-324, 1e-9])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["\ud800", [], {}, [[]], {"a": 1}, ["item-0", "item-0"]])
)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_value_of_the_json_files(data: st.DataObject, home: Path) -> None:
    name = data.draw(st.sampled_from(FILES[:2]))
    content = json.loads(checkpoint_files()[name])
    path = data.draw(st.sampled_from(list(leaves(content))))
    new = replaced(content, path, data.draw(anything))
    feed_checkpoint({name: json.dumps(new).encode()}, home)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_changed_numbers_of_the_tensors(data: st.DataObject, home: Path) -> None:
    tensors = {name: array.copy() for name, array in load(checkpoint_files()[FILES[2]]).items()}
    name = data.draw(st.sampled_from(sorted(tensors)))
    array = tensors[name]
    wild = [np.nan, np.inf, -np.inf, 0, -1, 1e-30, -1e30, 3e38, 1e4]
    if array.dtype.kind == "i":
        wild = [0, -1, 1, 2**31 - 1, -(2**31), 76, 77, 20, 21]
    change = data.draw(st.sampled_from(["value", "all", "shape", "type", "gone"]))
    if change == "value":
        array.flat[data.draw(st.integers(0, array.size - 1))] = data.draw(st.sampled_from(wild))
    elif change == "all":
        array[...] = data.draw(st.sampled_from(wild))
    elif change == "shape":
        shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
        tensors[name] = np.zeros(shape, array.dtype)
    elif change == "type":
        kind = data.draw(st.sampled_from(["f2", "f4", "f8", "i4", "i8", "u1", "?"]))
        with np.errstate(over="ignore"):
            tensors[name] = array.astype(kind)
    else:
        del tensors[name]
    feed_checkpoint({FILES[2]: save(tensors)}, home)


@given(name=st.sampled_from(FILES), start=st.integers(0, 2000), new=st.binary(max_size=8))
@settings(max_examples=150, deadline=None)
def test_changed_bytes(name: str, start: int, new: bytes, home: Path) -> None:
    content = checkpoint_files()[name]
    start %= len(content)
    feed_checkpoint({name: content[:start] + new + content[start + len(new) :]}, home)


def test_what_is_well_is_loaded(home: Path) -> None:
    assert feed_checkpoint({}, home)


@pytest.mark.parametrize("name", FILES[:2])
def test_json_that_is_nested_too_deeply_is_refused(name: str, home: Path) -> None:
    assert not feed_checkpoint({name: NESTED}, home)


def test_an_escape_that_is_no_character_is_refused(home: Path) -> None:
    names = checkpoint_files()[FILES[1]].replace(b"item-0", rb"\ud800", 1)
    assert not feed_checkpoint({FILES[1]: names}, home)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("drift", "threshold", HUGE),
        ("ranking", "follows", [-0.1] * 8),
        ("ranking", "together", [1e13] * 8),
        ("ranking", "again", [1.0] * 9),
        ("ranking", "lstm", 1e300),
        ("ranking", "diversity", 1.0),
        ("ranking", "diversity", -0.1),
        ("network", "hidden", HUGE),
    ],
)
def test_numbers_out_of_bounds_are_refused(part: str, name: str, value: float, home: Path) -> None:
    config = json.loads(checkpoint_files()[FILES[0]])
    config[part][name] = value
    assert not feed_checkpoint({FILES[0]: json.dumps(config).encode()}, home)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature.weight", 2e4),
        ("feature.weight", np.nan),
        ("half_life_s", 1e-300),
        ("calibration", 1e30),
        ("neighbour_follows", -0.5),
        ("neighbour_together", -0.5),
        ("item_again", -0.5),
        ("item_log_popularity", 1e30),
        ("near_category", -1),
        ("near_category", 2**40),
        ("near_share", -0.5),
        ("near_share", np.nan),
        ("near_item_category", -1),
        ("near_item_share", -0.5),
        ("near_level", 2e4),
    ],
)
def test_tensors_out_of_bounds_are_refused(name: str, value: float, home: Path) -> None:
    tensors = {key: array.copy() for key, array in load(checkpoint_files()[FILES[2]]).items()}
    tensors[name].flat[-1] = value
    assert not feed_checkpoint({FILES[2]: save(tensors)}, home)


@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_the_largest_weights_give_a_model_that_runs(value: float, home: Path) -> None:
    tensors = {key: array.copy() for key, array in load(checkpoint_files()[FILES[2]]).items()}
    names = ("category.weight", "interest.weight", "feature.weight", "cell.weight_hh", "trend")
    names = (*names, "share_level", "share_weight", "near_level")
    if value > 0:
        names = (*names, "near_share", "near_item_share")
    for name in names:
        tensors[name][...] = value
        assert feed_checkpoint({FILES[2]: save(tensors)}, home)


@pytest.mark.parametrize("width", [0, 600])
def test_neighbours_out_of_bounds_are_refused(width: int, home: Path) -> None:
    tensors = dict(load(checkpoint_files()[FILES[2]]))
    for name in ("neighbour_item", "neighbour_follows", "neighbour_together"):
        tensors[name] = np.zeros((len(tensors[name]), width), tensors[name].dtype)
    assert not feed_checkpoint({FILES[2]: save(tensors)}, home)


def test_sizes_that_the_tensors_do_not_have_are_refused(home: Path) -> None:
    config, names = (json.loads(checkpoint_files()[name]) for name in FILES[:2])
    names["item_buckets"] = 2**20
    names["query_buckets"] = 2**20
    config["network"]["items"] = 1 + len(names["items"]) + 2**20
    config["network"]["query_buckets"] = 2**20
    changed = {FILES[0]: json.dumps(config).encode(), FILES[1]: json.dumps(names).encode()}
    assert not feed_checkpoint(changed, home)
