"""Records that are hard to bear: huge ones, thousands that are broken, and no place for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from model.events import EventType
from stream_app.events import Reason
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.letters import longest_letter, require_reasons
from tests.failures.chaos.load import Message
from tests.failures.chaos.refusals import require_refusal
from tests.failures.chaos.run import Run

EVENTS = 500
HUGE_BYTES = 10_000_000


@scenario("values of 10 MB")
def huge_values(run: Run) -> None:
    """Events of 10 MB among good ones in every topic: dead letters, and the rest goes on."""
    run.worker()
    turns = 10 if run.long else 1
    for _ in range(turns):
        for kind in EventType:
            run.load.send(EVENTS)
            event = run.load.event(kind, "user-1", padding="x" * HUGE_BYTES)
            run.load.send_messages([_broken(run, kind, json.dumps(event).encode())])
            if run.load.failed:
                run.skip(f"this broker takes no value of 10 MB ({run.load.failed[0]})")
            run.note()
    run.load.send(EVENTS)
    run.settle()
    require_reasons(run, Counter({str(Reason.TOO_LARGE): turns * len(EventType)}))
    longest = longest_letter(run.settings)
    run.require(longest < HUGE_BYTES, f"a dead letter of {longest} bytes is no pointer")


@scenario("dead letters in a row")
def many_dead_letters(run: Run) -> None:
    """Thousands of records that are no JSON in one partition; what follows them is applied."""
    count = 100_000 if run.long else 5000
    run.worker()
    run.load.send(EVENTS)
    run.load.send_messages(_broken(run, EventType.CLICK, b"{" * 20) for _ in range(count))
    run.note(count)
    run.load.send(EVENTS)
    run.settle()
    require_reasons(run, Counter({str(Reason.INVALID_JSON): count}))


@scenario("dead letters refused")
def dead_letters_refused(run: Run) -> None:
    """The dead-letter topic refuses writes: the worker ends, and goes on when it takes them."""
    topic = run.settings.dead_letters_topic
    for _ in range(5 if run.long else 1):
        worker = run.worker("refused", fault=("refuse", topic), ready=False)
        run.load.send_messages(_some_broken(run, run.load.messages(EVENTS)))
        require_refusal(run, worker, f"Topic {topic} refuses writes")
        run.note()
        run.check_committed()
    run.worker("refused")
    run.load.send_messages(_some_broken(run, run.load.messages(EVENTS)))


def _broken(run: Run, kind: EventType, value: bytes) -> Message:
    """A broken record of one user, so that all of them lie in one partition."""
    return run.load.message(kind, "user-1")._replace(value=value, kind="broken")


def _some_broken(run: Run, good: Iterable[Message]) -> Iterator[Message]:
    for number, message in enumerate(good):
        yield message
        if number % 10 == 0:
            yield _broken(run, EventType.CLICK, b"no JSON")
