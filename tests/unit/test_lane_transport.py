"""The consumer: what it hands to Faust's thread, and which partitions Faust may resume."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.types import TP
from mode.utils.queues import ThrowableQueue

from stream_app.lane.app import InterestApp
from stream_app.lane.intake import Intake, Poll
from stream_app.lane.transport import (
    CHANGELOG_POLLS,
    FETCH_LOOK_S,
    LaneConsumer,
    LaneConsumerThread,
    paced,
)

INPUT, CHANGELOG = TP("clicks", 0), TP("app-user_state-changelog", 0)


class Thread:
    """Faust's consumer thread: a poll lasts until the partitions were changed meanwhile."""

    def __init__(self) -> None:
        self.polled: Any = None
        self.asked_under: Any = None
        self.assignment = object()

    def assignment_now(self) -> Any:
        return self.assignment

    async def getmany(self, active_partitions: Any, timeout: float) -> dict[TP, Any]:
        self.polled = active_partitions
        return {}


@pytest.fixture
def consumer() -> LaneConsumer:
    one = object.__new__(LaneConsumer)
    intake = Intake(10, lambda _tps: None)
    lane = SimpleNamespace(intake=intake, is_input=lambda topic: topic == INPUT.topic, accepted=[])
    lane.accept = lambda tp, poll: lane.accepted.append((tp, poll))
    tables = SimpleNamespace(changelog_queue=asyncio.Queue())
    one.app = SimpleNamespace(lane=lane, tables=tables)  # type: ignore[assignment]
    one._thread = Thread()  # type: ignore[assignment]
    one._active_partitions = set()
    one._paused_partitions = {INPUT, CHANGELOG}
    return one


async def test_a_poll_asks_for_the_partitions_that_were_active_when_it_began(
    consumer: LaneConsumer,
) -> None:
    active = {CHANGELOG}
    await consumer._getmany(active, 1.0)
    active.clear()  # the recovery has ended
    assert consumer._thread.polled == {CHANGELOG}  # type: ignore[attr-defined]


class Assignment:
    """What aiokafka keeps of the partitions of an assignment."""

    def __init__(self, position: int) -> None:
        self.tps = {INPUT, CHANGELOG}
        self._state = SimpleNamespace(_position=position, _position_fut=object())

    def state_value(self, tp: TP) -> SimpleNamespace:
        return self._state


class Client:
    """aiokafka's consumer as far as the thread looks at it."""

    def __init__(self, assignment: Assignment | None) -> None:
        self.sought: dict[TP, int] = {}
        subscription = SimpleNamespace(assignment=assignment)
        self._subscription = SimpleNamespace(subscription=subscription)

    def rebalance(self, assignment: Assignment | None) -> None:
        self._subscription.subscription.assignment = assignment

    def seek(self, tp: TP, offset: int) -> None:
        self.sought[tp] = offset


async def fetched(
    monkeypatch: pytest.MonkeyPatch, becomes: Assignment | None
) -> tuple[Any, dict[TP, int]]:
    """What a poll gives in whose time the assignment changes, and where it is sought to."""
    client = Client(Assignment(668))
    records = {
        tp: [SimpleNamespace(offset=668), SimpleNamespace(offset=669)] for tp in (INPUT, CHANGELOG)
    }

    async def poll(*_arguments: Any) -> dict[TP, list[Any]]:
        if becomes is not None:
            client.rebalance(becomes)
        return records

    monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", poll)
    thread = object.__new__(LaneConsumerThread)
    thread.app = SimpleNamespace(lane=SimpleNamespace(is_input=lambda topic: topic == INPUT.topic))
    thread.asked_under = client._subscription.subscription.assignment
    return await thread._fetch_records(client, {INPUT, CHANGELOG}, 0.2, 500), client.sought


async def test_records_of_a_poll_that_outlived_its_assignment_are_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, sought = await fetched(monkeypatch, becomes=Assignment(668))
    assert found == {}
    assert sought == {INPUT: 668, CHANGELOG: 668}


async def test_a_poll_within_its_assignment_keeps_its_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, sought = await fetched(monkeypatch, becomes=None)
    assert [record.offset for record in found[INPUT].records] == [668, 669]
    assert [record.offset for record in found[CHANGELOG].records] == [668, 669]
    assert found[CHANGELOG].start == 668
    assert sought == {}


@pytest.mark.parametrize("is_reset", [False, True])
async def test_a_fetch_without_records_moves_the_position_unless_it_was_reset(
    monkeypatch: pytest.MonkeyPatch, is_reset: bool
) -> None:
    """A transaction's end does; where records were lost, the next poll has to show the gap."""
    assignment = Assignment(668)
    client = Client(assignment)

    async def poll(*_arguments: Any) -> dict[TP, list[Any]]:
        assignment._state._position = 669
        if is_reset:
            assignment._state._position_fut = object()
        return {}

    monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", poll)
    thread = object.__new__(LaneConsumerThread)
    thread.asked_under = assignment
    found: Any = await thread._fetch_records(client, {INPUT}, 0.2, 500)
    if is_reset:
        assert found == {}
    else:
        assert (found[INPUT].records, found[INPUT].start, found[INPUT].end) == ([], 668, 669)


def polled(count: int) -> Poll:
    records = [SimpleNamespace(offset=offset, serialized_value_size=1) for offset in range(count)]
    return Poll(records, 0, count, 0.0)


async def handed_on(
    consumer: LaneConsumer, monkeypatch: pytest.MonkeyPatch, records: dict[TP, Any], ends: bool
) -> list[Any]:
    """What Faust gets of a poll; the assignment ends while it is on its way, or does not."""
    thread: Any = consumer._thread
    consumer._active_partitions = set(records)
    consumer.flow_active = True

    async def wait(_timeout: float) -> Any:
        thread.asked_under = thread.assignment
        if ends:
            thread.assignment = object()
        return records, set(records)

    monkeypatch.setattr(consumer, "_wait_next_records", wait)
    monkeypatch.setattr(LaneConsumer, "should_stop", False)
    return [message async for _tp, message in consumer.getmany(1.0)]


async def test_what_was_polled_under_an_assignment_that_has_ended_is_not_handed_on(
    consumer: LaneConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {CHANGELOG: polled(1), INPUT: polled(1)}
    assert await handed_on(consumer, monkeypatch, records, ends=True) == []
    assert consumer.lane.accepted == []  # type: ignore[attr-defined]


async def test_a_poll_of_an_input_goes_to_the_lane_and_not_through_faust(
    consumer: LaneConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll = polled(3)
    assert await handed_on(consumer, monkeypatch, {INPUT: poll}, ends=False) == []
    assert consumer.lane.accepted == [(INPUT, poll)]  # type: ignore[attr-defined]


async def test_a_partition_that_holds_enough_is_paused(
    consumer: LaneConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer._paused_partitions = set()
    await handed_on(consumer, monkeypatch, {INPUT: polled(11)}, ends=False)
    assert consumer._paused_partitions == {INPUT}


class Choice:
    """aiokafka's choice of what to fetch: always the same two brokers, and one reset."""

    def __init__(self) -> None:
        self.now = 100.0
        self.interval_s = 0.01
        self.next = paced(self._actions, lambda: self.interval_s, lambda: self.now)

    @staticmethod
    def _actions(_assignment: Any) -> tuple[Any, ...]:
        return [(1, "fetch 1"), (2, "fetch 2")], {3: "reset"}, 0.2, False, ["resume"]


def test_fetches_of_a_broker_keep_an_interval() -> None:
    choice = Choice()
    assert choice.next(None) == (
        [(1, "fetch 1"), (2, "fetch 2")],
        {3: "reset"},
        0.2,
        False,
        ["resume"],
    )
    choice.now += 0.008
    requests, resets, timeout, *others = choice.next(None)
    assert (requests, resets, others) == ([], {3: "reset"}, [False, ["resume"]])
    assert timeout == pytest.approx(0.002)  # it looks again when the interval is over
    choice.now += 0.003
    assert choice.next(None)[0] == [(1, "fetch 1"), (2, "fetch 2")]


def test_an_interval_that_becomes_shorter_is_over_at_the_next_look() -> None:
    choice = Choice()
    choice.interval_s = 0.1
    choice.next(None)
    choice.now += 0.02
    requests, _, timeout, *_ = choice.next(None)
    assert (requests, timeout) == ([], FETCH_LOOK_S)
    choice.interval_s = 0.01
    assert choice.next(None)[0] == [(1, "fetch 1"), (2, "fetch 2")]


def test_each_broker_has_an_interval_of_its_own() -> None:
    due = [[(1, "a")], [(1, "b"), (2, "c")]]
    now = 100.0
    choose = paced(lambda _: (due.pop(0), {}, 0.2, False, []), lambda: 0.01, lambda: now)
    assert choose(None)[0] == [(1, "a")]
    assert choose(None)[0] == [(2, "c")]


def test_faust_resumes_changelogs_and_only_the_lane_its_inputs(consumer: LaneConsumer) -> None:
    consumer.resume_partitions({INPUT, CHANGELOG})
    assert consumer._active_partitions == {CHANGELOG}
    consumer.resume_inputs({INPUT})
    assert consumer._active_partitions == {CHANGELOG, INPUT}
    assert consumer._paused_partitions == set()


class Record(SimpleNamespace):
    """A record of a changelog."""

    def __init__(self, offset: int) -> None:
        super().__init__(
            topic=CHANGELOG.topic,
            partition=0,
            offset=offset,
            timestamp=1,
            timestamp_type=0,
            headers=(),
            key=b"ann",
            value=b"row",
            checksum=None,
            serialized_key_size=3,
            serialized_value_size=3,
        )


@pytest.mark.parametrize("is_active", [True, False])
async def test_a_poll_of_a_changelog_is_one_message_with_the_offset_of_its_last_record(
    consumer: LaneConsumer, is_active: bool
) -> None:
    found = Poll([Record(offset) for offset in (5, 6, 9)], 5, 10, 0.0)
    one: Any = consumer
    one.app.consumer_generation_id = 1
    one._buffered_partitions, one._stopped, one._crashed = set(), asyncio.Event(), asyncio.Event()
    one.flow_active, one._active_partitions = True, {CHANGELOG}
    one._thread.asked_under = one._thread.assignment

    async def poll(_timeout: float) -> Any:
        return {CHANGELOG: found}, {CHANGELOG} if is_active else {INPUT}

    one._wait_next_records = poll
    messages = [(tp, message) async for tp, message in consumer.getmany(1.0)]
    if not is_active:  # it was paused meanwhile, and is sought before it is resumed
        assert messages == []
        return
    ((tp, message),) = messages
    assert (tp, message.offset, message.value, message.key) == (CHANGELOG, 9, found, None)


async def test_changelogs_are_not_read_while_polls_of_them_wait(consumer: LaneConsumer) -> None:
    one: Any = consumer
    for number in range(CHANGELOG_POLLS):
        one.app.tables.changelog_queue.put_nowait(number)
    assert await consumer._getmany({CHANGELOG}, 1.0) == {}
    assert one._thread.polled is None, "an empty set would mean all partitions"
    await consumer._getmany({CHANGELOG, INPUT}, 1.0)
    assert one._thread.polled == {INPUT}
    one.app.tables.changelog_queue.get_nowait()
    await consumer._getmany({CHANGELOG, INPUT}, 1.0)
    assert one._thread.polled == {CHANGELOG, INPUT}


async def test_where_changelogs_are_sought_is_told(
    consumer: LaneConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    sought: list[Any] = []
    one: Any = consumer

    async def seek_wait(partitions: dict[TP, int]) -> None:
        sought.append(partitions)

    one.app.lane.recovers_from = lambda tp, offset: told.append((tp, offset))
    one._thread.seek_wait = seek_wait
    await consumer.seek_wait({CHANGELOG: 7, INPUT: 9})
    assert told == [(CHANGELOG, 7)]
    assert sought == [{CHANGELOG: 7, INPUT: 9}]


async def test_polls_that_wait_are_dropped_when_the_flow_begins_and_not_while_it_goes_on() -> None:
    flow = InterestApp.flow_control.func(SimpleNamespace(loop=None))  # type: ignore[arg-type]
    queue: ThrowableQueue[str] = ThrowableQueue(flow_control=flow, clear_on_resume=True)
    queue.force_put_nowait("of an assignment that has ended")
    flow.resume()
    assert queue.empty()
    queue.force_put_nowait("of the first standby")
    flow.resume()
    assert queue.qsize() == 1
    flow.suspend()
    flow.resume()
    assert queue.empty()


@pytest.mark.parametrize("has_partitions", [False, True])
async def test_a_worker_without_partitions_is_not_taken_for_stuck(
    consumer: LaneConsumer, has_partitions: bool
) -> None:
    """A spare one fetches nothing, and would leave the group; one whose partitions are paused for
    so long is stuck."""
    one: Any = consumer
    state = SubscriptionState()
    state._last_fetch_ended -= 2000.0
    thread = object.__new__(LaneConsumerThread)
    thread._consumer = SimpleNamespace(_subscription=state)
    one._thread, one.flow_active = thread, True
    one.assignment = lambda: {INPUT} if has_partitions else set()
    assert [message async for message in consumer.getmany(0.001)] == []
    assert (state.fetcher_idle_time > 1000.0) == has_partitions
