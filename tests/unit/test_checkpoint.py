"""A checkpoint directory: written, read back, and refused when it is not what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint, DriftSettings, Statistics, load, renamed, save
from model.errors import CheckpointError
from tests.checkpoints import tiny_checkpoint

FILES = ("model.safetensors", "config.json", "vocabulary.json", "card.md")


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return tiny_checkpoint(items=30, categories=5, hidden=16)


@pytest.fixture
def directory(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    save(checkpoint, tmp_path / "model", "# card")
    return tmp_path / "model"


def test_the_band_of_the_history_and_the_end_of_the_log_are_kept(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    drift = replace(checkpoint.drift, history_low=1.5, history_high=4.0)
    until = 1_700_000_000
    save(renamed(replace(checkpoint, drift=drift, trained_until_s=until)), tmp_path, "# card")
    read = load(tmp_path)
    assert (read.drift, read.trained_until_s) == (drift, until)
    assert read.number == checkpoint.number  # rows stay valid


def test_base_rates_are_kept_and_change_no_row(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rate = np.linspace(0.0, 1.0, checkpoint.vocabulary.categories).astype(np.float32)
    statistics = replace(checkpoint.statistics, category_rate=rate)
    rated = renamed(replace(checkpoint, statistics=statistics))
    save(rated, tmp_path, "# card")
    read = load(tmp_path)
    np.testing.assert_array_equal(read.statistics.category_rate, rate)
    assert read.version == rated.version != checkpoint.version
    assert read.number == checkpoint.number


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_base_rates_out_of_bounds_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, value: float
) -> None:
    rate = np.full(checkpoint.vocabulary.categories, value, np.float32)
    statistics = replace(checkpoint.statistics, category_rate=rate)
    save(renamed(replace(checkpoint, statistics=statistics)), tmp_path, "# card")
    with pytest.raises(CheckpointError, match="category_rate"):
        load(tmp_path)


def test_load_gives_what_was_saved(directory: Path, checkpoint: Checkpoint) -> None:
    read = load(directory)
    assert (read.version, read.number) == (checkpoint.version, checkpoint.number)
    assert read.vocabulary == checkpoint.vocabulary
    assert (read.drift, read.ranking, read.horizon_s) == (
        checkpoint.drift,
        checkpoint.ranking,
        checkpoint.horizon_s,
    )
    for f in fields(Statistics):
        ours, theirs = getattr(checkpoint.statistics, f.name), getattr(read.statistics, f.name)
        if f.name == "category_rate":
            assert ours is theirs is None
            continue
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    for name, weight in checkpoint.network.state_dict().items():
        assert torch.equal(weight, read.network.state_dict()[name])
    assert not any(weight.requires_grad for weight in read.network.parameters())


def test_equal_checkpoints_give_equal_files(directory: Path, tmp_path: Path) -> None:
    save(tiny_checkpoint(items=30, categories=5, hidden=16), tmp_path / "again", "# card")
    for name in FILES:
        assert (directory / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_version_names_the_content(checkpoint: Checkpoint) -> None:
    assert checkpoint.version == renamed(checkpoint).version
    assert 0 <= checkpoint.number < 2**32
    other = renamed(replace(checkpoint, drift=DriftSettings(threshold=5.0)))
    assert other.version != checkpoint.version


@pytest.mark.parametrize("name", FILES[:3])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load(directory)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_cut_file_is_refused(directory: Path, name: str) -> None:
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError):
        load(directory)


@pytest.mark.parametrize("number", [4, 6])
def test_another_format_is_refused(directory: Path, number: int) -> None:
    change_config(directory, lambda config: config.update(format=number))
    with pytest.raises(CheckpointError, match=f"format {number}.*train it again"):
        load(directory)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["network"].update(hidden=32),
        lambda config: config["network"].update(hidden=-1),
        lambda config: config["network"].update(hidden=10**6),
        lambda config: config["network"].update(items=10**9),
        lambda config: config["network"].update(layers=2),
        lambda config: config["drift"].update(threshold=float("nan")),
        lambda config: config["ranking"].update(lstm="high"),
        lambda config: config.pop("horizon_s"),
        lambda config: config.update(top_k=0),
        lambda config: config.update(trained_until_s="now"),
        lambda config: config.update(version="000000000000"),
        lambda config: config["drift"].update(threshold=1.0),
        lambda config: config["ranking"].update(follows=5.0),
        lambda config: config["ranking"].update(together=[1.0] * 7),
        lambda config: config["ranking"].update(again=[-1.0] * 8),
        lambda config: config["ranking"].update(follows=["1"] * 8),
    ],
)
def test_a_changed_configuration_is_refused(
    directory: Path, change: Callable[[dict[str, object]], object]
) -> None:
    change_config(directory, change)
    with pytest.raises(CheckpointError):
        load(directory)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("item_category", 10_000),
        ("neighbour_item", -1),
        ("category_item", 10_000),
        ("item_log_popularity", np.nan),
        ("calibration", np.nan),
        ("calibration", 2e4),
        ("knot", -1e3),
        ("half_life_s", -1.0),
        ("repeat_weight", 0.0),
        ("repeat_weight", 1.5),
    ],
)
def test_statistics_out_of_bounds_are_refused(
    tmp_path: Path, checkpoint: Checkpoint, name: str, value: float
) -> None:
    array = getattr(checkpoint.statistics, name).copy()
    array.flat[-1] = value
    broken = replace(checkpoint, statistics=replace(checkpoint.statistics, **{name: array}))
    save(renamed(broken), tmp_path, "")
    with pytest.raises(CheckpointError):
        load(tmp_path)


def change_config(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_rows_outlive_a_new_threshold_but_not_new_weights() -> None:
    made = tiny_checkpoint()
    stricter = renamed(replace(made, drift=replace(made.drift, threshold=9.0)))
    assert stricter.version != made.version
    assert stricter.number == made.number
    other = tiny_checkpoint(seed=1)
    assert other.number != made.number
    statistics = replace(made.statistics, repeat_weight=np.array([0.5]))
    assert renamed(replace(made, statistics=statistics)).number != made.number
