"""The drift test by its exact alarm index, its evidence, and silence where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model import drift
from model.calibration import calibrate, run_test, shuffle_sessions
from model.checkpoint import Checkpoint
from tests.checkpoints import tiny_checkpoint
from tests.event_batches import clicks, run


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    made = tiny_checkpoint(categories=100)
    return replace(made, drift=replace(made.drift, threshold=3.0))


def by_hand(units: list[int], window: int) -> float:
    """The statistic from its formula, in plain Python."""
    w, h = {}, {}
    for unit in units[-window:]:
        w[unit] = w.get(unit, 0) + 1
    for unit in units[:-window]:
        h[unit] = h.get(unit, 0) + 1
    W, n = window, len(units) - window
    ww = sum(x * x for x in w.values())
    hh = sum(x * x for x in h.values())
    wh = sum(x * h.get(k, 0) for k, x in w.items())
    q = sum((w.get(k, 0) + h.get(k, 0)) ** 2 for k in {*w, *h}) / (n + W) ** 2
    top = (ww - W) / (W * (W - 1)) + (hh - n) / (n * (n - 1)) - 2 * wh / (W * n)
    return top / (2 * q / (W * (W - 1)) + 4 * q / (W * n)) ** 0.5


def test_statistic_equals_its_formula(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(0)
    for length in (21, 40, 70):
        units = (rng.integers(1, 12, length)).tolist()
        rows, _ = run(clicks([0] * length, units), 1, replace(checkpoint, drift=quiet()), [])
        z = drift.statistic(rows["slot_units"], rows["unit_slot"], rows["units"])[0]
        for column, window in enumerate(drift.WINDOWS):
            if length - window >= max(5, window / 2):
                assert z[column] == pytest.approx(by_hand(units, window), abs=1e-12)
            else:
                assert z[column] == -np.inf


def quiet() -> drift_settings:
    return replace(tiny_checkpoint().drift, threshold=1e9)


drift_settings = type(tiny_checkpoint().drift)


def test_a_jump_is_found_at_its_exact_event(checkpoint: Checkpoint) -> None:
    before = [1, 2, 1, 3, 1, 2] * 5
    units = [*before, *([8, 9] * 10)]
    expected = next(
        i
        for i in range(20, len(units) + 1)
        if max(by_hand(units[:i], w) for w in (8, 16, 24) if i - w >= max(5, w / 2)) >= 3.0
    )
    _, outputs = run(clicks([0] * len(units), units), 1, checkpoint, [])
    found = outputs[0][1].drifts
    assert found.step[0] == expected - 1
    assert len(before) < expected <= len(before) + 10


def test_a_constant_stream_is_silent(checkpoint: Checkpoint) -> None:
    _, outputs = run(clicks([0] * 500, [4] * 500), 1, checkpoint, [])
    assert len(outputs[0][1].drifts.step) == 0


def test_a_burst_in_one_session_is_one_unit(checkpoint: Checkpoint) -> None:
    rows, _ = run(clicks([0] * 30, [5, 6, 5] * 10, gap_s=10), 1, checkpoint, [])
    assert rows["units"][0] == 2
    rows, _ = run(clicks([0] * 30, [5, 6, 5] * 10, gap_s=1801), 1, checkpoint, [])
    assert rows["units"][0] == 30


def test_evidence_is_what_lowers_the_statistic_and_names_its_events(checkpoint: Checkpoint) -> None:
    units = [*([1, 2, 1, 3, 1, 2] * 5), *([8, 9] * 10)]
    _, outputs = run(clicks([0] * len(units), units), 1, checkpoint, [])
    drifts = outputs[0][1].drifts
    row, change = drifts.rows[0], drifts.changes[0]
    named = drift.evidence_units(row, change.evidence)
    assert named
    for kind, offset, time_s, category in named:
        assert kind == 0
        assert units[offset] == category
        assert category in (8, 9)
        assert time_s > 0
        kept = [unit for i, unit in enumerate(units[: drifts.step[0] + 1]) if i != offset]
        assert by_hand(kept, change.window - 1) < change.statistic
    assert change.after[0][0] in (8, 9)
    assert change.before[0][0] == 1
    assert 0.5 < change.strength <= 1


def test_the_test_restarts_from_the_last_ten_steps(checkpoint: Checkpoint) -> None:
    units = [*([1, 2, 1, 3, 1, 2] * 5), *([8, 9] * 10)]
    log = clicks([0] * len(units), units)
    _, outputs = run(log, 1, checkpoint, [])
    alarm = int(outputs[0][1].drifts.step[0])
    rows, _ = run(log.take(slice(0, alarm + 1)), 1, checkpoint, [])
    assert rows["units"][0] == 10
    assert rows["drift_steps"][0] == 10
    assert rows["drifts"][0] == 1
    assert rows["slot_units"].sum() == 10
    last = [int(rows["slot_category"][0, s]) for s in rows["unit_slot"][0, :10] % 64]
    assert last == units[alarm - 9 : alarm + 1]


def test_more_than_64_categories_keep_the_window(checkpoint: Checkpoint) -> None:
    units = list(range(1, 101))
    rows, _ = run(clicks([0] * 100, units), 1, replace(checkpoint, drift=quiet()), [])
    window = drift.window_slots(rows["unit_slot"], rows["units"])[0]
    assert [int(rows["slot_category"][0, s]) for s in window] == units[:-25:-1]


def test_shuffling_keeps_sessions_whole_and_users_apart() -> None:
    rng = np.random.default_rng(1)
    log = clicks(sorted(rng.integers(0, 5, 200).tolist()), rng.integers(1, 9, 200).tolist())
    gaps = np.where(rng.random(200) < 0.5, 60_000, 7_200_000)
    log = replace(log, time_ms=log.time_ms[0] + np.cumsum(gaps))
    moved = shuffle_sessions(log, seed=3)

    def sessions(steps: object) -> list[tuple]:
        found: list[list] = []
        for user, time, offset in zip(steps.user, steps.time_ms, steps.offset, strict=True):
            if found and found[-1][0] == user and time - found[-1][1] <= 1_800_000:
                found[-1][1] = time
                found[-1][2].append(int(offset))
            else:
                found.append([user, time, [int(offset)]])
        return sorted((int(user), tuple(offsets)) for user, _, offsets in found)

    assert sessions(moved) == sessions(log)
    assert moved.offset.tolist() != log.offset.tolist()
    for user in range(5):
        assert (np.diff(moved.time_ms[moved.user == user]) >= 0).all()


def test_calibration_reaches_the_wanted_run_length(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(60), 120)
    favourite = rng.integers(1, 90, (60, 4))
    category = favourite[users, rng.integers(0, 4, len(users))]
    log = clicks(users.tolist(), category.tolist())
    settings = calibrate(log, checkpoint, average_run_length=500, seed=1)
    again = run_test(shuffle_sessions(log, 7), checkpoint, settings.threshold)
    assert settings.average_run_length is not None
    assert settings.average_run_length >= 500
    assert settings.false_alarms is not None
    assert again.run_length > 150  # another shuffle of a small log: the same order of size
