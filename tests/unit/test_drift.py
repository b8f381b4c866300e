"""The drift test by its exact alarm index, its evidence, and silence where nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model import drift
from model.calibration import (
    Alarms,
    calibrate,
    history_band,
    run_test,
    shuffle_sessions,
    shuffled_copies,
)
from model.checkpoint import Checkpoint
from model.evaluation.drift_floor import each_z
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
        fields = {name: rows[name] for name in rows.dtype.names or ()}
        groups = checkpoint.statistics.category_group
        seen = drift.window_of(fields, np.array([0]), groups)
        z = each_z(seen)[0]
        per_window = drift.features(seen)[0, : 3 * drift.PER_WINDOW].reshape(3, -1)
        grouped = [int(groups[unit]) for unit in units]
        for column, window in enumerate(drift.WINDOWS):
            if length - window >= max(5, window / 2):
                assert z[column] == pytest.approx(by_hand(units, window), abs=1e-12)
                assert per_window[column, 0] * 3 == pytest.approx(by_hand(units, window), abs=1e-12)
                group_z = by_hand(grouped, window)
                assert per_window[column, 1] * 3 == pytest.approx(group_z, abs=1e-12)
            else:
                assert z[column] == -np.inf


def quiet() -> drift_settings:
    return replace(tiny_checkpoint().drift, threshold=1e9)


drift_settings = type(tiny_checkpoint().drift)


def score_of(units: list[int], checkpoint: Checkpoint) -> float:
    """The statistic after so many units, by the transition."""
    rows, _ = run(clicks([0] * len(units), units), 1, replace(checkpoint, drift=quiet()), [])
    fields = {name: rows[name] for name in rows.dtype.names or ()}
    return float(drift.check(fields, np.array([0]), checkpoint)[1][0])


def test_a_jump_is_found_at_its_exact_event(checkpoint: Checkpoint) -> None:
    before = [1, 2, 1, 3, 1, 2] * 5
    units = [*before, *([8, 9] * 10)]
    threshold = checkpoint.drift.threshold
    expected = next(
        i for i in range(20, len(units) + 1) if score_of(units[:i], checkpoint) >= threshold
    )
    _, outputs = run(clicks([0] * len(units), units), 1, checkpoint, [])
    found = outputs[0][1].drifts
    assert found.step[0] == expected - 1
    assert len(before) < expected <= len(before) + 10


def test_the_rates_are_those_of_pairs_of_different_sessions(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(5)
    units = rng.permutation(np.repeat(np.arange(1, 13), 4)).tolist()
    log = clicks([0] * len(units), units, gap_s=1)
    session = np.cumsum(rng.random(len(units)) < 0.4)
    log = replace(log, time_ms=log.time_ms + session * 7_200_000)
    rows, _ = run(log, 1, replace(checkpoint, drift=quiet()), [])
    known: set[tuple[int, int]] = set()
    kept = []
    for unit, at in zip(units, session.tolist(), strict=True):
        if (unit, at) not in known:
            known.add((unit, at))
            kept.append((unit, at, int(checkpoint.statistics.category_group[unit])))
    fields = {name: rows[name] for name in rows.dtype.names or ()}
    seen = drift.window_of(fields, np.array([0]), checkpoint.statistics.category_group)
    found = drift.features(seen)[0, : 3 * drift.PER_WINDOW].reshape(3, -1)
    for row, size in zip(found, drift.WINDOWS, strict=True):
        window, history = kept[-size:], kept[:-size]
        for level, column in ((0, 2), (2, 4)):
            pairs = [
                a[level] == b[level]
                for i, a in enumerate(window)
                for b in window[:i]
                if a[1] != b[1]
            ]
            between = [a[level] == b[level] for a in window for b in history]
            assert row[column] ** 2 == pytest.approx(np.mean(pairs))
            assert row[column + 1] ** 2 == pytest.approx(np.mean(between))
        assert row[6] == pytest.approx(np.log1p(len({at for _, at, _ in window})))


def test_a_constant_stream_is_silent(checkpoint: Checkpoint) -> None:
    _, outputs = run(clicks([0] * 500, [4] * 500), 1, checkpoint, [])
    assert len(outputs[0][1].drifts.step) == 0


def test_a_burst_in_one_session_is_one_unit(checkpoint: Checkpoint) -> None:
    rows, _ = run(clicks([0] * 30, [5, 6, 5] * 10, gap_s=10), 1, checkpoint, [])
    assert rows["units"][0] == 2
    rows, _ = run(clicks([0] * 30, [5, 6, 5] * 10, gap_s=1801), 1, checkpoint, [])
    assert rows["units"][0] == 30


def test_evidence_is_what_lowers_the_statistic_when_it_is_really_removed(
    checkpoint: Checkpoint,
) -> None:
    rng = np.random.default_rng(11)
    before = rng.choice([1, 2, 3, 4], 40, p=[0.4, 0.3, 0.2, 0.1]).tolist()
    units = [*before, *rng.choice([8, 9, 10, 1], 30, p=[0.4, 0.3, 0.2, 0.1]).tolist()]
    _, outputs = run(clicks([0] * len(units), units), 1, checkpoint, [])
    drifts = outputs[0][1].drifts
    alarm, row, change = int(drifts.step[0]), drifts.rows[0], drifts.changes[0]
    seen = units[: alarm + 1]
    full = score_of(seen, checkpoint)
    assert change.statistic == full
    assert change.confidence == pytest.approx(1 / (1 + np.exp(-full)))
    lowered = {
        i: full - score_of([u for j, u in enumerate(seen) if j != i], checkpoint)
        for i in range(alarm - drift.UNITS + 1, alarm + 1)
    }
    named = drift.evidence_units(row, change.evidence)
    assert len(named) == drift.LISTED_EVIDENCE
    for kind, offset, time_s, category in named:
        assert kind == 0
        assert units[offset] == category
        assert time_s > 0
        assert lowered[offset] > 0
    listed = np.mean([lowered[offset] for _, offset, _, _ in named])
    assert listed > np.mean(list(lowered.values()))
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
    fields = {name: rows[name] for name in rows.dtype.names or ()}
    seen = drift.window_of(fields, np.array([0]), checkpoint.statistics.category_group)
    assert [int(rows["slot_category"][0, s]) for s in seen.slots[0]] == units[:-25:-1]


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
    settings = calibrate(log, checkpoint, average_run_length=500, seed=1, max_steps=30_000)
    again = run_test(shuffle_sessions(log, 7), replace(checkpoint, drift=settings))
    assert settings.average_run_length is not None
    assert settings.average_run_length >= 500
    assert settings.run_length_low is not None
    assert settings.run_length_low >= 440
    assert settings.false_alarms is not None
    assert again.run_length > 150  # another shuffle of a small log: the same order of size
    real = run_test(log, replace(checkpoint, drift=settings))
    assert settings.history_low is not None
    assert settings.history_high is not None
    assert settings.history_low <= 1000 / real.run_length <= settings.history_high


def test_the_band_of_the_history_spans_its_parts() -> None:
    none = np.zeros(0, np.int64)
    times = np.arange(1000)
    found = Alarms(
        none, none, np.zeros(0), np.array([1000]), np.random.default_rng(1).permutation(times)
    )
    # 16 alarms in each tenth but the last, which has 36: 16 - 2 * 4 and 36 + 2 * 6 in 100 steps
    alarms = np.r_[np.repeat(np.arange(0, 900, 100) + 7, 16), np.repeat(950, 36)]
    assert history_band(found, alarms) == pytest.approx((80.0, 480.0))
    assert history_band(found, none) == pytest.approx((0.0, 20.0))
    assert history_band(replace(found, tested_ms=times * 0), none) == pytest.approx((0.0, 2.0))


def test_calibration_to_a_rate_of_false_alarms(checkpoint: Checkpoint) -> None:
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(60), 120)
    favourite = rng.integers(1, 90, (60, 4))
    log = clicks(users.tolist(), favourite[users, rng.integers(0, 4, len(users))].tolist())
    rare = calibrate(log, checkpoint, None, 1, false_alarms=500.0, max_steps=20_000)
    often = calibrate(log, checkpoint, None, 1, false_alarms=5000.0, max_steps=20_000)
    assert rare.false_alarms is not None
    assert often.false_alarms is not None
    assert rare.false_alarms <= 500 < often.false_alarms <= 5000
    assert rare.threshold > often.threshold


def test_copies_are_shuffles_with_users_of_their_own() -> None:
    log = clicks([0, 1] * 30, [1, 2] * 30, gap_s=7200)
    copies = shuffled_copies(log, 3, seed=4)
    assert len(copies) == 3 * len(log)
    assert sorted(set(copies.user.tolist())) == list(range(6))
    for copy in range(3):
        one = shuffle_sessions(log, 4 + copy)
        part = copies.take(np.flatnonzero(copies.user // 2 == copy))
        assert part.offset.tolist() == one.offset.tolist()
