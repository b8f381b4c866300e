"""The simulated shop: fixed by its seed, its planted changes where the truth says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from model.event_log import event_log, read_event_log
from model.events import EventType
from model.simulation import ShopSettings, SimulatedLog, simulate, truth_path, write_simulated
from model.simulation_words import LANGUAGES, WORDS

SETTINGS = ShopSettings(users=60, days=60)


@pytest.fixture(scope="module")
def shop() -> SimulatedLog:
    return simulate(SETTINGS)


def test_the_seed_fixes_everything(shop: SimulatedLog) -> None:
    again = simulate(SETTINGS)
    assert shop.events.equals(again.events)
    assert shop.truth.equals(again.truth)
    assert not simulate(replace(SETTINGS, seed=1)).events.equals(shop.events)


def test_every_word_is_there_in_every_language() -> None:
    assert len(WORDS) == 40
    for words in WORDS.values():
        assert tuple(words) == LANGUAGES
        assert all(all(texts) for texts in words.values())


def test_events_are_in_order_and_whole(shop: SimulatedLog) -> None:
    log = event_log(shop.events, "sim")
    assert (np.diff(log.time_ms) >= 0).all()
    assert set(log.event_type.tolist()) == {int(t) for t in EventType}
    assert len(set(log.event_ids)) == len(log.event_ids)  # rows of a basket stand together
    sizes = np.bincount(log.event)
    assert sizes.max() > 1
    assert (log.event_type[np.isin(log.event, sizes.nonzero()[0])] >= 0).all()
    assert (log.item[log.event_type == EventType.SEARCH] == -1).all()


def test_purchases_follow_clicks(shop: SimulatedLog) -> None:
    log = event_log(shop.events, "sim")
    clicked: set[tuple[int, int]] = set()
    bought = 0
    followed = 0
    first = np.r_[True, log.event[1:] != log.event[:-1]]
    for user, item, kind, head in zip(log.user, log.item, log.event_type, first, strict=True):
        if kind == EventType.CLICK:
            clicked.add((int(user), int(item)))
        elif kind == EventType.PURCHASE and head:
            bought += 1
            followed += (int(user), int(item)) in clicked
    assert bought > 20
    assert followed == bought


def test_the_truth_names_the_first_event_after_the_change(shop: SimulatedLog) -> None:
    log = event_log(shop.events, "sim")
    assert shop.truth.num_rows > 10
    for change in shop.truth.to_pylist():
        user = log.users.index(change["user_id"])
        rows = np.flatnonzero(log.user == user)
        number = np.unique(log.event[rows], return_inverse=True)[1]
        event = rows[number == change["event_index"]]
        assert log.time_ms[event[0]] == change["time_ms"]
        names = np.array([*log.categories, "none"])[log.category[rows]]
        before, after = (
            names[number < change["event_index"]],
            names[number >= change["event_index"]],
        )
        left, came = change["from_categories"], change["to_categories"]
        assert np.isin(before, left).mean() > np.isin(after, left).mean()
        assert np.isin(after, came).mean() > np.isin(before, came).mean()


def test_written_logs_are_read_back(shop: SimulatedLog, tmp_path: Path) -> None:
    direct = event_log(shop.events, "sim")
    for suffix in (".parquet", ".csv", ".jsonl"):
        path = tmp_path / f"sim{suffix}"
        write_simulated(shop, path)
        log = read_event_log(path)
        assert log.digest() == direct.digest()
        assert log.event_ids == direct.event_ids
    assert parquet.read_table(truth_path(path)).num_rows == shop.truth.num_rows


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="categories must be 8 to 40"):
        simulate(replace(SETTINGS, categories=41))


def test_no_users_give_an_empty_log() -> None:
    empty = simulate(replace(SETTINGS, users=0))
    assert empty.events.num_rows == 0
    assert isinstance(empty.truth, pa.Table)
