"""What producers do wrong: repeats, other orders, clocks, keys, partitioners, and silence."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from model.events import EventType
from stream_app.events import Reason
from stream_app.partitioner import partition_for
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.letters import require_reasons
from tests.failures.chaos.load import USERS, Message, hash_of
from tests.failures.chaos.run import Run

EVENTS = 3000
SMALL_BATCH = 100
"""So that running maxima go from one entry of the journal to the next."""
LONG_TURNS = 10
"""Each waits for the one before: a row recognises the last 16 ids of its user alone."""
SWAPPED_WITHIN = 20
REPEATED_WITHIN = 200
HOUR_MS = 3_600_000
FAR_FUTURE_MS = 4_200_000_000_000
"""Beyond the allowance, by the clock of the worker and by that of the offline run."""
LONG_MERGE_WAIT_MS, PROMPT_S = 60_000, 30.0
"""A merge that waits for an idle topic is told from one that does not by their difference."""


@scenario("producers repeat and reorder")
def repeat_and_reorder(run: Run) -> None:
    """Retries with equal ids, in the same and in other topics, and records that changed places."""
    run.worker()
    for _ in range(LONG_TURNS if run.long else 1):
        good = list(run.load.messages(EVENTS))
        repeated = list(_repeated(run, good))
        run.load.send_messages(_swapped(repeated, run.rng))
        run.note(len(repeated) - len(good))
        run.wait_until(run.is_settled, "all is applied")


@scenario("late events and skewed clocks", kills=True)
def skewed_clocks(run: Run) -> None:
    """Clocks that differ by hours, up to the allowance ahead, and days late, with a kill -9."""
    one = run.supervise(max_batch_events=SMALL_BATCH)
    ahead = 0
    for turn in range(4 * LONG_TURNS if run.long else 4):
        messages = [_skewed(run, message) for message in run.load.messages(EVENTS // 4)]
        run.load.send_messages(_swapped(messages, run.rng))
        if turn % 4 == 2:
            one.kill()
            run.note()
        run.wait_until(run.is_settled, "all is applied")
        ahead += sum(message.kind == "broken" for message in messages)
    require_reasons(run, Counter({str(Reason.TIMESTAMP_IN_FUTURE): ahead}))


@scenario("idle topics")
def idle_topics(run: Run) -> None:
    """One topic gets nothing, then two, then another: the merge waits for none of them."""
    run.worker(merge_wait_ms=LONG_MERGE_WAIT_MS)
    rounds = [
        (EventType.CLICK, EventType.PURCHASE),
        (EventType.CLICK,),
        (EventType.CLICK, EventType.SEARCH, EventType.PURCHASE),
        (EventType.SEARCH,),
        (EventType.SEARCH, EventType.PURCHASE),
    ]
    for kinds in rounds * (LONG_TURNS if run.long else 1):
        chosen = run.rng.choice(np.array(kinds), 500).tolist()
        run.load.send_messages(
            run.load.message(EventType(kind), f"user-{run.rng.integers(USERS)}") for kind in chosen
        )
        names = ", ".join(kind.name.lower() for kind in kinds)
        run.wait_until(run.is_settled, f"events of {names} alone are applied", PROMPT_S)
        run.note()


@scenario("wrong keys and partitioners")
def wrong_keys(run: Run) -> None:
    """No key, another user's key, librdkafka's CRC32, round robin: each letter has its reason."""
    run.worker()
    expected: Counter[str] = Counter()
    for _ in range(LONG_TURNS if run.long else 1):
        messages = [_misplaced(run, n, one) for n, one in enumerate(run.load.messages(EVENTS))]
        run.load.send_messages(message for message, _ in messages)
        expected.update(str(reason) for _, reason in messages if reason is not None)
        run.wait_until(run.is_settled, "all is applied")
    run.note(expected.total())
    run.require(len(expected) == 3, f"not all was produced that should have been: {expected}")
    require_reasons(run, expected)


def _repeated(run: Run, good: Sequence[Message]) -> Iterator[Message]:
    """The messages, and after every fifth one a repeat of a recent one, a third in other topics."""
    for number, message in enumerate(good):
        yield message
        if number % 5 == 4:
            again = good[int(run.rng.integers(max(0, number - REPEATED_WITHIN), number))]
            if number % 3 == 0:
                kind = EventType((again.event_type + 1) % len(EventType))
                user = (again.key or b"").decode()
                again = run.load.message(kind, user, event_id=again.event_id)
            yield again._replace(kind="repeat")


def _swapped(messages: Sequence[Message], rng: np.random.Generator) -> list[Message]:
    """The messages in another order, in which none is far from its place."""
    places = np.arange(len(messages)) + rng.uniform(0, SWAPPED_WITHIN, len(messages))
    return [messages[place] for place in np.argsort(places).tolist()]


def _skewed(run: Run, message: Message) -> Message:
    """The message with the clock of its user's device, or days late, or as far ahead as may be."""
    event = json.loads(message.value or b"")
    chance = run.rng.random()
    if chance < 0.02:
        event["timestamp"] = FAR_FUTURE_MS
        return message._replace(value=json.dumps(event).encode(), kind="broken")
    if chance < 0.03:
        allowance = run.settings.future_allowance_ms
        event["timestamp"] = int(time.time() * 1000) + allowance - HOUR_MS // 60
    elif chance < 0.10:
        event["timestamp"] -= int(run.rng.integers(1, 72)) * HOUR_MS
    else:
        event["timestamp"] += (hash_of(event["user_id"]) % 25 - 12) * HOUR_MS
    return message._replace(value=json.dumps(event).encode())


def _misplaced(run: Run, number: int, message: Message) -> tuple[Message, Reason | None]:
    """The message, or one that is wrong in one way, and the reason of its dead letter."""
    partitions, key = run.settings.partitions, message.key or b""
    match number % 10:
        case 0:
            anywhere = int(run.rng.integers(partitions))
            return message._replace(key=None, partition=anywhere, kind="broken"), Reason.KEY_MISSING
        case 1:
            other = b"x" + key
            placed = message._replace(key=other, partition=partition_for(other, partitions))
            return placed._replace(kind="broken"), Reason.KEY_MISMATCH
        case 2:
            partition = zlib.crc32(key) % partitions
        case 3:
            partition = number // 10 % partitions
        case _:
            return message, None
    if partition == message.partition:
        return message, None
    return message._replace(partition=partition, kind="broken"), Reason.WRONG_PARTITION
