"""Training: deterministic, blind for what comes after the cut-off, and equal to what rows hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import interests, training, tuning
from model.checkpoint import Checkpoint, load, save
from model.counting import (
    APART,
    TOGETHER_DECAY,
    TOGETHER_PRIOR,
    by_user,
    category_rates,
    count_neighbours,
    count_statistics,
    follow_pairs,
    follow_shares,
    merged,
    together_cosines,
    together_pairs,
)
from model.errors import EventLogError
from model.event_log import EventLog, event_log
from model.events import SESSION_GAP_S, EventBatch, Source
from model.interest_lstm import InterestLSTM, NetworkSize
from model.learning import (
    LearningSettings,
    _Sampler,
    all_item_logits,
    count_logits,
    fit_counters,
    hidden_at,
    lane_chunks,
    next_items,
    profile_logits,
    readout,
    step_input,
)
from model.prediction import move
from model.simulation import DAY_MS, ShopSettings, simulate
from model.spline_calibration import identity
from model.state import new_rows
from model.training import (
    Trained,
    TrainingConfig,
    horizon_of,
    make_vocabulary,
    no_progress,
    train,
)
from model.transition import transition
from model.windows import Decay, UserSteps, cutoff_windows, draw_windows

LEARNING = LearningSettings(max_steps=12, counter_steps=40, lanes=8, chunk=8, validate_every=6)
CONFIG = TrainingConfig(hidden=16, windows=600, refit=False, learning=LEARNING)
HALF_LIFE_S = np.array([0.5, 2.0, 8.0]) * 86400
HORIZON_S = 8 * 86400


@pytest.fixture(scope="module")
def log() -> EventLog:
    return event_log(simulate(ShopSettings(users=50, days=45, categories=12)).events, "sim")


@pytest.fixture(scope="module")
def cutoff_ms(log: EventLog) -> int:
    return int(log.time_ms.min()) + 35 * DAY_MS


@pytest.fixture(scope="module")
def trained(log: EventLog, cutoff_ms: int) -> Trained:
    return train(log, CONFIG, cutoff_ms=cutoff_ms)


@pytest.fixture(scope="module")
def steps(log: EventLog, trained: Trained) -> EventBatch:
    return log.batch(trained.checkpoint.vocabulary)[0]


def test_two_trainings_give_equal_files(
    log: EventLog, cutoff_ms: int, trained: Trained, tmp_path: Path
) -> None:
    again = train(log, CONFIG, cutoff_ms=cutoff_ms)
    save(trained.checkpoint, tmp_path / "a", trained.card)
    save(again.checkpoint, tmp_path / "b", again.card)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_no_event_at_or_after_the_cutoff_is_seen(
    log: EventLog, cutoff_ms: int, trained: Trained
) -> None:
    late = log.time_ms >= cutoff_ms
    assert late.sum() > 100
    time_ms = log.time_ms.copy()
    time_ms[np.flatnonzero(~late)[-1] + 1] = cutoff_ms  # one stands exactly at the cut-off
    unlike = replace(
        log,
        time_ms=time_ms,
        item=np.where(late, (log.item + 17) % len(log.items), log.item),
        category=np.where(late, (log.category + 5) % len(log.categories), log.category),
        user=np.where(late, log.user[::-1], log.user),
    )
    assert train(unlike, CONFIG, cutoff_ms=cutoff_ms).checkpoint.version == (
        trained.checkpoint.version
    )
    # and one more event before it is seen
    time_ms[np.flatnonzero(late)[0]] = cutoff_ms - 1
    moved = replace(unlike, time_ms=time_ms)
    assert train(moved, CONFIG, cutoff_ms=cutoff_ms).checkpoint.version != (
        trained.checkpoint.version
    )


def test_items_of_later_events_have_no_index(log: EventLog, cutoff_ms: int) -> None:
    early = set(log.before(cutoff_ms).item.tolist())
    later = [name for code, name in enumerate(log.items) if code not in early]
    vocabulary = make_vocabulary(log.before(cutoff_ms), replace(CONFIG, min_item_count=1))
    assert later
    assert not set(later) & set(vocabulary.item_names)


def test_it_learns(trained: Trained) -> None:
    figures = trained.figures
    assert figures["next-item cross-entropy, after"] < figures["next-item cross-entropy, before"]
    assert trained.checkpoint.version in trained.card


def test_another_seed_gives_another_checkpoint(
    log: EventLog, cutoff_ms: int, trained: Trained
) -> None:
    other = train(log, replace(CONFIG, seed=1), cutoff_ms=cutoff_ms)
    assert other.checkpoint.version != trained.checkpoint.version


def test_refit_and_a_sampled_softmax_train_too(log: EventLog, cutoff_ms: int) -> None:
    learning = replace(LEARNING, sampled_above=10, negatives=64)
    calls: list[tuple[str, int, int]] = []
    result = train(
        log,
        replace(CONFIG, refit=True, learning=learning),
        lambda what, done, total: calls.append((what, done, total)),
        cutoff_ms=cutoff_ms,
    )
    assert all(bool(torch.isfinite(p).all()) for p in result.checkpoint.network.parameters())
    assert {what for what, *_ in calls} == {
        "counters",
        "network",
        "combination",
        "ranking",
        "tuning",
    }
    assert all(0 <= done <= total for _, done, total in calls)


def test_the_checkpoint_keeps_what_its_intervals_are_made_of(
    log: EventLog, cutoff_ms: int, trained: Trained
) -> None:
    mean, spread, cases, hits = trained.checkpoint.statistics.reliability.T
    assert (np.diff(mean) > 0).all()
    assert ((spread >= 0) & (hits <= cases)).all()
    users = len(np.unique(log.before(cutoff_ms).user))
    assert 0.5 * users * 10 < cases.sum() <= users * 10
    assert len(trained.draft.statistics.reliability) == 0  # the draft's were not measured

    def width(checkpoint: Checkpoint) -> float:
        low, high = interests.interval(mean, checkpoint)
        return float((high - low).mean())

    worse = np.stack((mean, spread + 1, cases, hits), 1)
    statistics = replace(trained.checkpoint.statistics, reliability=worse)
    alone = width(replace(trained.checkpoint, statistics=trained.draft.statistics))
    assert alone <= width(trained.checkpoint)
    assert width(trained.checkpoint) < width(replace(trained.checkpoint, statistics=statistics))


def test_users_with_few_and_with_many_events_are_calibrated_apart(
    log: EventLog, trained: Trained
) -> None:
    now_ms = int(log.time_ms.max())
    rows = np.tile(move(log, trained.draft, no_progress, now_ms).rows, 40)
    few = np.arange(len(rows)) % 2 == 0
    rows["events"] = np.where(few, 2, 200)
    times = np.full(len(rows), now_ms)
    p = interests.category_probabilities(rows, times, trained.draft)
    p[few] *= 0.3
    label = np.random.default_rng(5).random(p.shape) < p
    found = tuning.fit_calibration(trained.draft, tuning.Late(rows, times, label))
    calibrated = replace(trained.draft, statistics=found)
    stated = interests.category_probabilities(rows, times, calibrated)
    for part in (few, ~few):
        assert stated[part].mean() == pytest.approx(label[part].mean(), rel=0.05)
    assert (found.calibration[1:5] == found.calibration[1]).all()  # no rows: that of all


def test_without_labels_nothing_is_calibrated(log: EventLog, trained: Trained) -> None:
    rows = new_rows(5, CONFIG.hidden)
    none = np.zeros((5, trained.draft.vocabulary.categories), dtype=bool)
    late = tuning.Late(rows, np.full(5, log.time_ms.max()), none)
    assert tuning.fit_calibration(trained.draft, late) is trained.draft.statistics


def test_a_log_with_a_late_straggler_gives_a_model_that_loads(
    log: EventLog, tmp_path: Path
) -> None:
    """Then no window lies before the later slice, and nothing is known of rates."""
    times = log.time_ms.copy()
    times[-1] += 200 * DAY_MS
    config = replace(CONFIG, horizon_s=30 * 86_400)
    save(train(replace(log, time_ms=times), config).checkpoint, tmp_path, "")
    trend = load(tmp_path).network.trend
    assert torch.isfinite(trend).all()


def test_a_log_of_a_moment_and_a_straggler_is_refused(log: EventLog) -> None:
    times = np.full(len(log), log.time_ms[0])
    times[-1] += 200 * DAY_MS
    with pytest.raises(EventLogError, match="fewer than two moments"):
        train(replace(log, time_ms=times), CONFIG)


def test_smoothing_lifts_the_categories_that_few_touch(log: EventLog) -> None:
    """And leaves those of many about where they were."""
    batch, _ = log.batch(make_vocabulary(log, CONFIG))
    users = UserSteps(by_user(batch))
    end_s = int(users.clock_s.max()) + 1
    random = np.random.default_rng(0)
    windows = draw_windows(users, end_s, 200, Decay(HALF_LIFE_S), HORIZON_S, random)
    touches = np.bincount(windows.labels.category, minlength=60)
    assert (touches[1:] == 0).any()

    def trend(smoothing: float) -> np.ndarray:
        size = NetworkSize(2, 60, 2, hidden=8)
        network = InterestLSTM(size)
        settings = replace(LEARNING, counter_steps=0)
        fit_counters(network, windows, settings, random, no_progress, smoothing, 0.005)
        return network.trend.detach().numpy()

    little, much = trend(0.1), trend(2.0)
    rare, often = touches == 0, touches == touches.max()
    assert (much[rare] > little[rare] + 2).all()
    assert np.abs(much[often] - little[often]).max() < 0.5


def test_lists_are_as_diverse_as_asked_for(log: EventLog, cutoff_ms: int) -> None:
    learning = replace(LEARNING, max_steps=1, counter_steps=1)
    config = replace(CONFIG, learning=learning, diversity=0.7)
    assert train(log, config, cutoff_ms=cutoff_ms).checkpoint.ranking.diversity == 0.7


def test_a_log_of_one_moment_is_refused(log: EventLog) -> None:
    with pytest.raises(EventLogError, match="fewer than two moments"):
        train(log.take(np.zeros(3, dtype=np.int64)), CONFIG)


def test_a_short_log_has_a_shorter_horizon(log: EventLog) -> None:
    assert horizon_of(log, 10 * 86400) == 10 * 86400
    span_s = int(np.ptp(log.time_ms)) // 1000
    assert horizon_of(log, span_s // 2) == span_s // 2
    assert horizon_of(log, 30 * 86400) == span_s // 5


def test_windows_that_are_learned_from_fit_before_the_later_slice(log: EventLog) -> None:
    """Of a log of two and a half horizons, three fifths lie before the later slice."""
    span_s = int(np.ptp(log.time_ms)) // 1000
    short = training._material(log, replace(CONFIG, horizon_s=int(span_s / 2.5)))
    assert short.horizon_s == int(span_s / 2.5)
    assert short.window_s == pytest.approx(span_s * 0.3, rel=0.01)
    long = training._material(log, replace(CONFIG, horizon_s=span_s // 4))
    assert long.window_s == long.horizon_s == span_s // 4


def test_a_log_of_two_horizons_states_what_comes_in_a_whole_one(
    log: EventLog, cutoff_ms: int
) -> None:
    """Its windows are shorter, and what they say is not stretched but calibrated."""
    horizon_s = 16 * 86400
    found = train(log, replace(CONFIG, horizon_s=horizon_s), cutoff_ms=cutoff_ms)
    assert found.checkpoint.horizon_s == horizon_s
    early = log.before(cutoff_ms)
    batch, names = early.batch(found.draft.vocabulary)
    late = tuning.late_rows(found.draft, batch, len(names), found.late_s)
    assert found.late_s == int(early.time_ms.max()) // 1000 + 1 - horizon_s
    stated = interests.category_probabilities(late.rows, late.now_ms, found.draft)
    assert late.label.mean() > 0.1
    assert stated.mean() == pytest.approx(late.label.mean(), rel=0.05)


@pytest.mark.parametrize("repeat_weight", [1.0, 0.25])
def test_windows_count_and_label_what_stands_there(
    steps: EventBatch, cutoff_ms: int, repeat_weight: float
) -> None:
    users = UserSteps(by_user(steps))
    cutoff_s = cutoff_ms // 1000
    windows = cutoff_windows(users, cutoff_s, Decay(HALF_LIFE_S, repeat_weight), HORIZON_S)
    weight = np.ones(len(steps))
    seen: dict[int, set[int]] = {}
    last_ms: dict[int, int] = {}
    for at in np.argsort(steps.user, kind="stable").tolist():
        user, category, now_ms = (int(x[at]) for x in (steps.user, steps.category, steps.time_ms))
        if now_ms // 1000 - last_ms.get(user, now_ms) // 1000 > SESSION_GAP_S:
            seen[user] = set()
        weight[at] = repeat_weight if category in seen.setdefault(user, set()) else 1.0
        seen[user].add(category)
        last_ms[user] = max(now_ms, last_ms.get(user, 0))
    assert 0.05 < np.mean(weight < 1) < 0.95 or repeat_weight == 1.0
    time_s = steps.time_ms // 1000
    for m in range(0, len(windows), 7):
        own = (steps.user == users.steps.user[windows.step[m]]) & (steps.category > 0)
        past = own & (time_s < cutoff_s)
        future = own & (time_s >= cutoff_s) & (time_s <= cutoff_s + HORIZON_S)
        _, category, count = windows.counts.of(np.array([m]))
        expected = {
            int(c): weight[past & (steps.category == c), None]
            * np.exp2(-(cutoff_s - time_s[past & (steps.category == c)])[:, None] / HALF_LIFE_S)
            for c in np.unique(steps.category[past])
        }
        assert category.tolist() == list(expected)
        for row, c in enumerate(category.tolist()):
            np.testing.assert_allclose(count[row], expected[c].sum(0), rtol=1e-5)
        _, label, _ = windows.labels.of(np.array([m]))
        assert label.tolist() == np.unique(steps.category[future]).tolist()


def test_drawn_windows_end_inside_the_log(steps: EventBatch) -> None:
    users = UserSteps(by_user(steps))
    end_s = int(users.clock_s.max())
    random = np.random.default_rng(0)
    windows = draw_windows(users, end_s, 500, Decay(HALF_LIFE_S), HORIZON_S, random)
    assert 100 < len(windows) <= 500
    assert (windows.now_s + HORIZON_S <= end_s).all()
    assert (users.clock_s[windows.step] <= windows.now_s).all()
    assert len(np.unique(windows.step)) == len(windows)


def test_lanes_hold_every_step_once_and_users_in_one_piece(steps: EventBatch) -> None:
    users = UserSteps(by_user(steps))
    table = np.concatenate(list(lane_chunks(users, 8, 16, np.random.default_rng(0))))
    assert np.sort(table[table >= 0]).tolist() == list(range(len(users)))
    for lane in table.T:
        index = lane[lane >= 0]
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        assert users.new_user[index[breaks]].all()


def test_lanes_give_the_states_that_single_steps_give(steps: EventBatch, trained: Trained) -> None:
    network, users = trained.checkpoint.network, UserSteps(by_user(steps))
    wanted = np.arange(0, len(users), 37)
    found = hidden_at(network, users, wanted)
    for position, step in enumerate(wanted.tolist()):
        if step > 2000:
            break
        h = c = torch.zeros(1, network.size.hidden)
        for at in range(int(users.start[users.segment[step]]), step + 1):
            h, c = network(step_input(users, np.array([at])), h, c)
        torch.testing.assert_close(found[position], h[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("repeat_weight", [1.0, 0.25])
def test_training_and_rows_see_the_same_interests(
    steps: EventBatch, trained: Trained, repeat_weight: float
) -> None:
    """The logits that training computes are those that the lane computes from rows."""
    checkpoint = _plain(trained.checkpoint)
    statistics = replace(checkpoint.statistics, repeat_weight=np.array([repeat_weight]))
    checkpoint = replace(checkpoint, statistics=statistics)
    cutoff_s = int(np.quantile(steps.time_ms, 0.6)) // 1000
    users = UserSteps(by_user(steps))
    decay = Decay(checkpoint.statistics.half_life_s, repeat_weight)
    size = checkpoint.network.size
    windows = cutoff_windows(users, cutoff_s, decay, checkpoint.horizon_s)
    with torch.inference_mode():
        hidden = hidden_at(checkpoint.network, users, np.sort(windows.step))
        out = readout(checkpoint.network, hidden, users, windows.step)
        logits = checkpoint.network.background_logits(out)
        rows = np.arange(len(windows))
        logits = logits + count_logits(checkpoint.network, windows, rows)
        logits = logits + profile_logits(checkpoint.network, windows, rows)
    before = steps.take(steps.time_ms < cutoff_s * 1000)
    rows, _ = transition(new_rows(50, size.hidden), before, Source(), checkpoint)
    rows = rows[users.steps.user[windows.step]]
    from_rows = interests.category_logits(
        rows, interests.hidden_readout(rows, checkpoint), windows.now_s, checkpoint
    )
    np.testing.assert_allclose(logits.numpy()[:, 1:], from_rows[:, 1:], atol=0.02)


def test_sampled_softmax_comes_near_the_full_one(trained: Trained, steps: EventBatch) -> None:
    network, users = trained.checkpoint.network, UserSteps(by_user(steps))
    target = next_items(users)
    index = np.flatnonzero(target > 0)[:400]
    goal = torch.from_numpy(target[index])
    sampler = _Sampler(users.steps.item, network.size.items, np.random.default_rng(0))
    with torch.inference_mode():
        out = readout(network, hidden_at(network, users, index), users, index)
        full = torch.nn.functional.cross_entropy(all_item_logits(network, out), goal - 1)
        sampled = np.mean([float(sampler.loss(network, out, goal, 256)) for _ in range(20)])
    assert abs(sampled - float(full)) < 0.25


def test_pairs_are_what_followed() -> None:
    steps = _clicks([(0, 1), (0, 2), (0, 1), (0, 2), (1, 3), (1, 1)])
    item, weight = follow_shares(follow_pairs(steps, 5, 10**9), 5).best(5, 3)
    # after 1: 2 next, 1 two steps later, 2 three steps later and 2 next
    share = np.array([1 + 0.6**2 + 1, 0.6]) / (1 + 0.6**2 + 1 + 0.6 + 1)
    assert item[1].tolist() == [2, 1, 0]
    np.testing.assert_allclose(weight[1, :2], share, rtol=1e-5)
    assert item[3].tolist() == [1, 0, 0]
    assert item[4].tolist() == [0, 0, 0]


def test_what_follows_after_a_pause_counts_less() -> None:
    steps = _clicks([(0, 1), (0, 2), (1, 1), (1, 3)])
    times = steps.time_ms.copy()
    times[3] = times[2] + 1000 * SESSION_GAP_S + 1
    pairs = follow_shares(follow_pairs(replace(steps, time_ms=times), 5, 10**12), 5)
    share = dict(zip(pairs.target.tolist(), pairs.weight.tolist(), strict=True))
    assert share == pytest.approx({2: 1 / (1 + APART + 1), 3: APART / (1 + APART + 1)})


def test_together_has_no_order() -> None:
    steps = _clicks([(0, 1), (0, 2), (0, 3), (1, 2), (1, 1)])
    pairs = together_cosines(together_pairs(steps, 5), 5)
    weight = dict(
        zip(
            zip(pairs.source.tolist(), pairs.target.tolist(), strict=True),
            pairs.weight,
            strict=True,
        )
    )
    assert all(weight[a, b] == pytest.approx(weight[b, a]) for a, b in weight)
    far = TOGETHER_DECAY
    one, two = 2 + far, 3.0  # all that 1 and 2 have beside them
    norm = np.sqrt((one + TOGETHER_PRIOR) * (two + TOGETHER_PRIOR))
    assert weight[1, 2] == pytest.approx(2 / norm)
    norm = np.sqrt((one + TOGETHER_PRIOR) * (1 + far + TOGETHER_PRIOR))
    assert weight[1, 3] == pytest.approx(far / norm)


def test_merged_pairs_fade_and_are_bounded() -> None:
    older = together_pairs(_clicks([(0, 1), (0, 2), (1, 1), (1, 3)]), 5)
    newer = together_pairs(_clicks([(0, 1), (0, 2)]), 5)
    found = merged(older, newer, 0.5, 5, 1)
    weight = dict(zip(zip(found.source, found.target, strict=True), found.weight, strict=True))
    assert weight == {(1, 2): 1.5, (2, 1): 1.5, (3, 1): 0.5}  # (1, 3) weighs less than (1, 2)
    both = merged(older, newer, 1.0, 5, 10)
    at_once = together_pairs(_clicks([(0, 1), (0, 2), (1, 1), (1, 3), (2, 1), (2, 2)]), 5)
    np.testing.assert_array_equal(both.target, at_once.target)
    np.testing.assert_allclose(both.weight, at_once.weight)


def test_neighbours_have_both_kinds_and_not_the_item_itself() -> None:
    steps = _clicks([(0, 1), (0, 2), (0, 1), (0, 2), (1, 3), (1, 1)])
    found = count_neighbours(steps, 5, 10**9, k=3)
    follows = follow_shares(follow_pairs(steps, 5, 10**9), 5)
    share = {
        (a, b): w for a, b, w in zip(follows.source, follows.target, follows.weight, strict=True)
    }
    assert found.item[1].tolist() == [2, 3, 0]
    np.testing.assert_allclose(found.follows[1], [share[1, 2], 0, 0], rtol=1e-6)
    assert found.together[1, 0] > found.together[1, 1] > 0
    assert found.again[1] == pytest.approx(share[1, 1])
    assert found.item[3].tolist() == [1, 0, 0]
    assert (found.item != np.arange(5)[:, None])[:, :2][found.item[:, :2] > 0].all()


def test_statistics_name_the_main_category_and_the_popular(
    steps: EventBatch, trained: Trained
) -> None:
    vocabulary = trained.checkpoint.vocabulary
    statistics = count_statistics(steps, vocabulary, HALF_LIFE_S, HORIZON_S)
    for index in range(1, vocabulary.first_item_bucket, 13):
        name = vocabulary.category_name(int(statistics.item_category[index]))
        assert name is not None
        assert (vocabulary.item_name(index) or "").startswith(name)
    for category in range(1, vocabulary.first_category_bucket):
        listed = statistics.category_item[category]
        assert (statistics.item_category[listed[listed > 0]] == category).all()
    assert (statistics.trending_item > 0).all()
    np.testing.assert_allclose(np.exp(statistics.item_log_popularity).sum(), 1, rtol=1e-3)


def test_base_rates_count_who_touches_a_category_after_a_step() -> None:
    """A window of 100 s at each step that the log sees the end of, of the last 100 s of these."""
    log = _clicks([(0, 1), (0, 2), (0, 2), (1, 1), (1, 3)])
    # The last window ends at 300 s: so windows begin after 100 s and up to 200 s.
    at_s = np.array([150, 160, 300, 100, 190])
    log = replace(log, time_ms=1000 * at_s, category=np.array([1, 2, 2, 1, 3]))
    rate = category_rates(log, 5, np.array([1.0]), 100)
    assert rate is not None
    # Windows at 150, 160 and 190: 2 after 150, nothing after 160 (300 is too late) and after 190.
    np.testing.assert_allclose(rate, np.array([0.0, 0.1, 1.1, 0.1, 0.1]) / 4, rtol=1e-6)
    assert category_rates(log, 5, np.array([1.0]), 1000) is None


def test_training_leaves_threads_and_the_random_state_alone(log: EventLog) -> None:
    torch.manual_seed(5)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(log, replace(CONFIG, learning=replace(LEARNING, max_steps=1, counter_steps=1)))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def _plain(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without calibration, its LSTM, profile and what is near with a say."""
    network = InterestLSTM(checkpoint.network.size)
    network.load_state_dict(checkpoint.network.state_dict())
    with torch.no_grad():
        network.interest.weight.normal_(std=0.3)
        network.activity.weight.normal_(std=0.3)
        network.profile.weight.normal_(std=0.5)
        network.profile_logit.normal_(std=0.5)
        for of, share in (
            (network.near_category, network.near_share),
            (network.near_item_category, network.near_item_share),
        ):
            of.random_(network.size.categories)
            share[1:].uniform_(0.0, 0.05)
        network.near_level.copy_(torch.tensor([-0.5, 0.3]))
    network.requires_grad_(False)
    statistics = replace(checkpoint.statistics, calibration=identity(6))
    return replace(checkpoint, network=network, statistics=statistics)


def _clicks(pairs: list[tuple[int, int]]) -> EventBatch:
    count = len(pairs)
    zeros = np.zeros(count, dtype=np.int64)
    return EventBatch(
        user=np.array([user for user, _ in pairs]),
        event_type=zeros,
        offset=np.arange(count),
        event_hash=np.arange(1, count + 1, dtype=np.uint64),
        time_ms=np.arange(count) * 1000,
        kind=zeros + 1,
        item=np.array([item for _, item in pairs]),
        category=zeros,
        query=np.zeros((count, 8), dtype=np.int64),
        line=zeros,
        last_line=np.ones(count, dtype=bool),
    )
