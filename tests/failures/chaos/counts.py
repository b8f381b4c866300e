"""What has to hold where no one offline run gives the rows: what was sent, by counts and ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from model.state import unpack
from stream_app.verify import stored_rows
from tests.failures.chaos.invariants import Figures, dead_letter_places
from tests.failures.chaos.load import Sent
from tests.failures.chaos.run import Run


def stored_by_user(run: Run) -> dict[str, bytes]:
    """The rows of all users, as the changelog has them."""
    values: dict[str, bytes] = {}
    for partition in range(run.settings.partitions):
        values |= stored_rows(run.settings, partition)
    return values


def states_of(run: Run) -> dict[str, np.void]:
    """The rows of all users."""
    values = stored_by_user(run)
    states = unpack(list(values.values()), run.checkpoint.hidden)
    return dict(zip(values, states, strict=True))


def check_counts(run: Run, sent: Sequence[Sent]) -> None:
    """Every distinct event that was sent is in its user's row, once; no other dead letters.

    The figures of the run tell.
    """
    kinds = Counter(one.kind for one in sent)
    distinct = {(one.key, one.event_id) for one in sent if one.kind == "event"}
    wanted = Counter((key or b"").decode() for key, _ in distinct)
    applied = Counter({user: int(row["events"]) for user, row in states_of(run).items()})
    run.figures = figures = Figures(
        events=len(sent),
        applied=applied.total(),
        repeats=kinds["repeat"],
        dead=sum(map(len, dead_letter_places(run.settings).values())),
        lost=(wanted - applied).total(),
        doubled=(applied - wanted).total(),
    )
    if figures.lost or figures.doubled:
        first = min((wanted - applied) + (applied - wanted))
        figures.broken.append(
            f"{figures.lost} events lost and {figures.doubled} doubled, the first at {first}"
        )
    if figures.dead != kinds["broken"]:
        figures.broken.append(f"{figures.dead} dead letters of {kinds['broken']} broken records")
