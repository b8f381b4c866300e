"""The commit: its order, what a crash between two steps leaves, and the fence."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from prometheus_client import CollectorRegistry

from stream_app.dead_letters import DeadLetter
from stream_app.errors import WorkerError
from stream_app.lane.changelog import Changelog
from stream_app.lane.commit import STEPS, AtStep, Committer, Results, Topics
from stream_app.lane.fence import Fence, Revoked
from stream_app.lane.merge import Triple
from stream_app.lane.sender import Receipt, Record, Sender
from stream_app.metrics import Metrics
from tests.unit.lane_records import MemoryRows

TOPICS = Topics("drift", "recommendations", "dead-letters", "journal", "control")
ENDS: Triple = (3, 0, 1)
LETTER = DeadLetter(b"ann", b"{", [("reason", b"invalid_json")])
RESULTS = Results([(b"ann", b"d")], [(b"ann", b"r")], [LETTER], [b"ann"], [b"row"], ENDS)


class Log:
    """Remembers what is sent, stored and made committable, in order; may refuse a topic."""

    def __init__(self, refuses: str = "") -> None:
        self.done: list[object] = []
        self.refuses = refuses
        self.rows = MemoryRows()

    async def send(self, topic: str, partition: int, records: Iterable[Record]) -> Receipt:
        found = list(records)
        if topic == self.refuses:
            raise WorkerError(f"Topic {topic} refuses writes.")
        if not found:
            return Receipt()
        self.done.append((topic, partition, [value for _, value, _ in found]))
        return Receipt(41, 40 + len(found))

    def read(self, partition: int, keys: list[bytes]) -> list[bytes | None]:
        return self.rows.read(partition, keys)

    def write(self, partition: int, keys: list[bytes], rows: list[bytes], offset: int) -> None:
        self.done.append(("store", offset, rows))
        self.rows.write(partition, keys, rows, offset)

    def committable(self, ends: Triple) -> None:
        self.done.append(("offsets", ends))


class Crash(Exception):
    pass


async def unread(partition: int, since: int) -> tuple[list[object], int]:
    raise AssertionError("a single writer has nothing to read")


def committer(log: Log, crash_at: str = "") -> Committer:
    def at_step(name: str) -> None:
        if name == crash_at:
            raise Crash(name)

    return committer_of(log, 2, at_step)


def committer_of(log: Log, dead_letter_partitions: int, at_step: AtStep) -> Committer:
    changelog = Changelog(log, log, "changelog", unread, None, lambda count: None)  # type: ignore[arg-type]
    changelog.begin({0: 41, 5: 41})
    metrics = Metrics(CollectorRegistry())
    return Committer(log, log, changelog, TOPICS, dead_letter_partitions, metrics, at_step)  # type: ignore[arg-type]


async def test_goes_journal_outputs_changelog_store_offsets() -> None:
    log = Log()
    fence = Fence(1)
    await committer(log).journal(5, b"entry", fence)
    await committer(log).write(5, RESULTS, fence, log.committable)
    assert log.done == [
        ("journal", 5, [b"entry"]),
        ("drift", 5, [b"d"]),
        ("recommendations", 5, [b"r"]),
        ("dead-letters", 1, [b"{"]),  # partition 5 of 2
        ("changelog", 5, [b"row"]),
        ("store", 41, [b"row"]),
        ("offsets", ENDS),
    ]


async def test_dead_letters_alone_write_no_row() -> None:
    log = Log()
    results = Results([], [], [LETTER], [], [], ENDS)
    await committer(log).write(0, results, Fence(1), log.committable)
    assert log.done == [("dead-letters", 0, [b"{"]), ("offsets", ENDS)]


@pytest.mark.parametrize("topic", ["drift", "recommendations", "dead-letters"])
async def test_when_an_output_topic_refuses_nothing_is_stored_or_committed(topic: str) -> None:
    log = Log(refuses=topic)
    with pytest.raises(WorkerError, match="refuses writes"):
        await committer(log).write(0, RESULTS, Fence(1), log.committable)
    assert not {"changelog", "store", "offsets"} & {step[0] for step in log.done}  # type: ignore[index]


async def test_when_the_changelog_refuses_nothing_is_stored_or_committed() -> None:
    log = Log(refuses="changelog")
    with pytest.raises(WorkerError, match="refuses writes"):
        await committer(log).write(0, RESULTS, Fence(1), log.committable)
    assert not {"store", "offsets"} & {step[0] for step in log.done}  # type: ignore[index]


@pytest.mark.parametrize("step", STEPS[1:5])
async def test_a_crash_before_a_step_leaves_it_and_all_later_ones_undone(step: str) -> None:
    log = Log()
    with pytest.raises(Crash):
        await committer(log, f"before {step}").write(0, RESULTS, Fence(1), log.committable)
    names = {"drift": "outputs", "recommendations": "outputs", "dead-letters": "outputs"}
    done = {names.get(str(entry[0]), str(entry[0])) for entry in log.done}  # type: ignore[index]
    assert done == set(STEPS[1 : STEPS.index(step)])


@pytest.mark.parametrize("after", ["outputs", "changelog", "store"])
async def test_a_closed_fence_stops_the_batch_at_the_next_step(after: str) -> None:
    log, fence = Log(), Fence(1)

    def at_step(name: str) -> None:
        if name == f"after {after}":
            fence.close()

    lane = committer_of(log, 1, at_step)
    with pytest.raises(Revoked):
        await lane.write(0, RESULTS, fence, log.committable)
    last = {"outputs": "dead-letters", "changelog": "changelog", "store": "store"}[after]
    assert log.done[-1][0] == last  # type: ignore[index]


async def test_no_journal_entry_under_a_closed_fence() -> None:
    log, fence = Log(), Fence(1)
    fence.close()
    with pytest.raises(Revoked):
        await committer(log).journal(0, b"entry", fence)
    assert log.done == []


class RefusingProducer:
    """An aiokafka producer whose topic may not be written to."""

    def create_batch(self) -> RefusingProducer:
        return self

    def append(self, **_record: object) -> object:
        return object()

    def close(self) -> None:
        return

    def record_count(self) -> int:
        return 1

    async def send_batch(self, *_args: object, **_kwargs: object) -> object:
        raise TopicAuthorizationFailedError("dead-letters")


async def test_a_refusal_is_one_sentence_that_names_the_topic() -> None:
    with pytest.raises(WorkerError) as caught:
        await Sender(RefusingProducer()).send("dead-letters", 0, [(None, b"x", [])])
    assert str(caught.value).startswith("Topic dead-letters refuses writes")
    assert "\n" not in str(caught.value)
