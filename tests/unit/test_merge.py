"""The merge: one order for a closed log, whatever the cuts; offsets never change places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.lane.merge import NEVER, NO_MAXIMA, TOPICS, Cut, awaited, merge

# Few distinct times, so that ties are common; NEVER stands for a record that is no event.
times_of_a_topic = st.lists(st.one_of(st.integers(0, 12), st.just(NEVER)), max_size=25).map(
    lambda times: np.array(times, dtype=np.int64)
)
logs = st.tuples(times_of_a_topic, times_of_a_topic, times_of_a_topic)
Log = tuple[np.ndarray, np.ndarray, np.ndarray]


def places(cut: Cut, base: list[int]) -> list[tuple[int, int]]:
    """(topic, offset) of the records of a cut whose pending records begin at `base`."""
    return [(t, base[t] + i) for t, i in zip(cut.topic.tolist(), cut.index.tolist(), strict=True)]


def whole_order(log: Log) -> list[tuple[int, int]]:
    return places(merge(log, NO_MAXIMA), [0, 0, 0])


def head_by_head(log: Log) -> list[tuple[int, int]]:
    """The definition, word by word: the lowest head goes next."""
    at, high, order = [0, 0, 0], [NEVER] * 3, []
    while any(at[t] < len(log[t]) for t in range(TOPICS)):
        heads = [
            (max(high[t], int(log[t][at[t]])), t) for t in range(TOPICS) if at[t] < len(log[t])
        ]
        key, topic = min(heads)
        order.append((topic, at[topic]))
        high[topic] = key
        at[topic] += 1
    return order


@given(logs)
def test_is_the_k_way_merge_by_running_maximum(log: Log) -> None:
    assert whole_order(log) == head_by_head(log)


@given(logs)
def test_offsets_of_a_topic_are_never_reordered(log: Log) -> None:
    order = whole_order(log)
    for topic in range(TOPICS):
        assert [o for t, o in order if t == topic] == list(range(len(log[topic])))


@given(logs, st.data())
def test_a_closed_log_has_one_order_however_it_arrives_and_is_cut(
    log: Log, data: st.DataObject
) -> None:
    start, arrived, maxima = [0, 0, 0], [0, 0, 0], NO_MAXIMA
    order: list[tuple[int, int]] = []
    while any(start[t] < len(log[t]) for t in range(TOPICS)):
        waits = awaited(
            (arrived[0], arrived[1], arrived[2]),
            (len(log[0]), len(log[1]), len(log[2])),
            [False] * 3,
        )
        pending = [log[t][start[t] : arrived[t]] for t in range(TOPICS)]
        cut = merge(pending, maxima, waits, limit=data.draw(st.integers(1, 8)))
        order += places(cut, start)
        start = [start[t] + cut.taken[t] for t in range(TOPICS)]
        maxima = cut.maxima
        short = [topic for topic in range(TOPICS) if arrived[topic] < len(log[topic])]
        if short and (len(cut) == 0 or data.draw(st.booleans())):
            topic = data.draw(st.sampled_from(short))
            left = len(log[topic]) - arrived[topic]
            arrived[topic] += data.draw(st.integers(1, left))
    assert order == whole_order(log)


@given(logs, st.integers(1, 20))
def test_a_cut_is_a_prefix_of_the_order(log: Log, limit: int) -> None:
    cut = merge(log, NO_MAXIMA, limit=limit)
    assert places(cut, [0, 0, 0]) == whole_order(log)[:limit]


def test_ties_go_to_the_first_topic() -> None:
    tie = np.array([5, 5])
    order = whole_order((tie, tie, tie))
    assert order == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


def test_a_late_event_keeps_its_place_behind_those_before_it() -> None:
    log = (np.array([10, 3, 11]), np.array([5, 10]), np.array([], dtype=np.int64))
    assert whole_order(log) == [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]


def test_a_record_that_is_no_event_stays_in_its_place() -> None:
    log = (np.array([10, NEVER, 11]), np.array([9]), np.array([], dtype=np.int64))
    assert whole_order(log) == [(1, 0), (0, 0), (0, 1), (0, 2)]


def test_waits_for_a_topic_that_has_more_and_may_come_first() -> None:
    none = np.array([], dtype=np.int64)
    assert len(merge((np.array([5]), none, none), NO_MAXIMA, [False, True, False])) == 0
    # What is awaited has reached 7, so nothing below comes any more.
    cut = merge((np.array([5, 9]), none, none), (0, 7, 0), [False, True, False])
    assert places(cut, [0, 0, 0]) == [(0, 0)]


def test_never_waits_for_a_topic_that_has_no_more() -> None:
    none = np.array([], dtype=np.int64)
    assert len(merge((np.array([5, 9]), none, none), NO_MAXIMA)) == 2


@pytest.mark.parametrize("topic", [0, 1, 2])
def test_awaited_topics_with_records_at_hand_never_stop_the_merge(topic: int) -> None:
    log = [np.array([5, 9]), np.array([5, 9]), np.array([5, 9])]
    assert len(merge(log, NO_MAXIMA, [True, True, True])) > 0


def test_awaits_only_what_is_beyond_the_position_and_not_given_up() -> None:
    assert awaited((3, 3, 3), (3, 4, 5), [False, False, True]) == [False, True, False]
