"""Workers that come back with another checkpoint than the one that their rows were made with."""

from __future__ import annotations

import numpy as np

from model.checkpoint import Checkpoint, save
from model.state import unpack
from model.transition import KNOWN_OF_INPUT
from stream_app.comparison import compare
from stream_app.verify import replay
from tests.checkpoints import named_checkpoint, tiny_checkpoint
from tests.failures.chaos.counts import check_counts, states_of, stored_by_user
from tests.failures.chaos.invariants import HIDDEN_TOLERANCE
from tests.failures.chaos.kit import scenario
from tests.failures.chaos.load import CATEGORIES, ITEMS
from tests.failures.chaos.refusals import require_refusal
from tests.failures.chaos.run import Run

EVENTS = 1500
SMALL_BATCH = 100


@scenario("another checkpoint under load", settles=False, kills=True)
def another_checkpoint(run: Run) -> None:
    """Killed under load, a worker comes back with other weights: rows start anew, none twice."""
    directories = [run.overrides["checkpoint"], run.home / "second", run.home / "last"]
    last = _other_words(seed=2)
    save(_other_words(seed=1), directories[1], "Other weights, items and categories.")
    save(last, directories[2], "Weights that no row was made with.")
    run.load.start(rate=500)
    for turn in range(20 if run.long else 2):
        worker = run.worker(checkpoint=directories[turn % 2], max_batch_events=SMALL_BATCH)
        run.wait_until(run.applied(run.load.count + 300), "the worker is under load")
        worker.kill()
        run.note()
    run.load.stop()
    worker = run.worker(checkpoint=directories[0])
    run.wait_until(run.is_settled, "all is applied")
    run.require(worker.stop() == 0, "the worker does not end in order")

    before = {user: int(row["events"]) for user, row in states_of(run).items()}
    run.worker(checkpoint=directories[2])
    run.load.send(EVENTS)
    run.load.send(EVENTS, users="later")
    run.settle()
    run.stop_workers()
    check_counts(run, run.load.all())
    run.figures.broken += _restarted_rows(run, before)
    run.figures.broken += _rows_of_one_checkpoint(run, last, "later")


@scenario("a checkpoint of another hidden size")
def another_hidden_size(run: Run) -> None:
    """Rows of another length: refused before anything is written, and the right one goes on."""
    worker = run.worker()
    run.load.send(EVENTS)
    run.wait_until(run.is_settled, "all is applied")
    run.require(worker.stop() == 0, "the worker does not end in order")
    directory = run.home / "smaller"
    save(tiny_checkpoint(items=ITEMS, categories=CATEGORIES, hidden=32), directory, "Smaller.")
    for name in ("one", "empty") if run.long else ("empty",):
        run.load.send(EVENTS, users=f"new to {name}")
        worker = run.worker(name, ready=False, checkpoint=directory)
        require_refusal(run, worker, "start with the checkpoint the rows were made with")
        run.note()


def _other_words(seed: int) -> Checkpoint:
    """A checkpoint whose items and categories are more, and numbered the other way round."""
    items, categories = ITEMS + 100, CATEGORIES + 10
    return named_checkpoint(
        [f"item-{number}" for number in reversed(range(items))],
        [f"category-{number}" for number in reversed(range(categories))],
        seed=seed,
    )


def _restarted_rows(run: Run, events_before: dict[str, int]) -> list[str]:
    """What is wrong with the rows, whose state has seen the events since the last change alone.

    Which events were applied does not depend on the weights: there the offline run is exact.
    """
    offline: dict[str, bytes] = {}
    for one in replay(run.settings, run.checkpoint):
        offline |= one.rows
    broken = []
    for user, row in states_of(run).items():
        expected = unpack([offline.get(user)], run.checkpoint.hidden)[0]
        wrong = [name for name in KNOWN_OF_INPUT if not np.array_equal(row[name], expected[name])]
        broken += [f"{name} of {user} is not as in the offline run" for name in wrong]
        since = int(row["events"]) - events_before.get(user, 0)
        if since and int(row["steps"]) != since:
            broken.append(f"the state of {user} has {row['steps']} steps after {since} events")
    return broken


def _rows_of_one_checkpoint(run: Run, checkpoint: Checkpoint, users: str) -> list[str]:
    """What is wrong with the rows of users who came after the last change: exactly nothing."""
    offline: dict[str, bytes] = {}
    for one in replay(run.settings, checkpoint):
        offline |= {user: row for user, row in one.rows.items() if user.startswith(users)}
    stored = {user: row for user, row in stored_by_user(run).items() if user.startswith(users)}
    found = compare(offline, stored, checkpoint.hidden)
    if found.exact and found.hidden_difference <= HIDDEN_TOLERANCE and found.users:
        return []
    return [f"{len(found.differing)} rows of {found.users} new users differ from the offline run"]
