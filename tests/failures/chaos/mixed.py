"""Workers that map mixed topics, and are killed while they do it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

from tests.failures.chaos.counts import check_counts
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.load import Sent
from tests.failures.chaos.run import Run
from tests.mixed_topics import Mixed, adapter_topics

SMALL_BATCH = 50
"""So that a little load makes many commits."""
FIRST = 150
"""Records of each vendor that wait at the beginning."""
A_TIME = 5
TICK_S = 0.1


@scenario("mixed topics under kill -9", settles=False, kills=True)
def mixed_topics(run: Run) -> None:
    """A worker that maps mixed topics is killed at random moments, and started again each time."""
    settings = run.settings.model_copy(update={"adapter_topics": adapter_topics(run.settings)})
    run.overrides |= {"adapter_topics": settings.adapter_topics, "max_batch_events": SMALL_BATCH}
    with closing(Mixed(settings)) as mixed:
        mixed.send(FIRST)
        one = run.supervise(ready=False)
        with _fed(mixed):
            for _ in range(20 if run.long else 1):
                wanted = _mapped(mixed) + 1
                run.wait_until(partial(_has_mapped, mixed, wanted), "the worker maps more")
                time.sleep(float(run.rng.uniform(0.0, 0.5)))
                one.kill()
                run.note()
        run.wait_until(mixed.is_done, "all that was sent is mapped and applied")
        run.stop_workers()
        broken = mixed.broken()
        run.require(not broken, "; ".join(broken))
        check_counts(run, _as_sent(mixed))


@contextmanager
def _fed(mixed: Mixed) -> Iterator[None]:
    """Records come meanwhile."""
    stopping = threading.Event()

    def feed() -> None:
        while not stopping.wait(TICK_S):
            mixed.send(A_TIME)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def _mapped(mixed: Mixed) -> int:
    return sum(mixed.committed().values())


def _has_mapped(mixed: Mixed, count: int) -> bool:
    return _mapped(mixed) >= count


def _as_sent(mixed: Mixed) -> list[Sent]:
    """What the events and refusals of the mixed records are to the rows and the dead letters."""
    return [
        Sent(place.offset, one.key, json.loads(one.value)["event_id"], "event")
        for place, one in mixed.events().items()
    ] + [Sent(source.offset, None, "", "broken") for source in mixed.letters()]
