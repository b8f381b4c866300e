"""The failure kit: scenarios register here, and `run_scenario` runs one and checks it.

    @scenario("sigterm under load")
    def sigterm(run: Run) -> None:
        "A worker that is told to end under load ends in order."   # what the report shows
        ...

A scenario starts workers and load by `run`, injects its fault, says by `run.note` how often, and
returns. The kit then waits until all is applied, ends the workers in order, and checks the
invariants. A scenario with ``settles=False`` checks for itself what has to hold.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stream_app.broker import EmbeddedBroker
from stream_app.errors import InterestStreamError
from tests.failures.chaos.errors import BrokenInvariant, NotRun
from tests.failures.chaos.run import Run

Body = Callable[[Run], None]


@dataclass(frozen=True)
class Scenario:
    """One way to break the worker.

    body           breaks it; the first line of its docstring is what the report shows
    settles        whether the kit checks the invariants afterwards
    partitions     of every topic
    kills          whether a broker has to end the sessions of dead consumers for it
    broker         opens the broker it needs, None for the embedded one or any other
    """

    name: str
    body: Body
    settles: bool
    partitions: int
    kills: bool
    broker: Callable[[Path], Any] | None

    @property
    def summary(self) -> str:
        """What it does, in a sentence."""
        return (self.body.__doc__ or "").strip().splitlines()[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str,
    *,
    settles: bool = True,
    partitions: int = 4,
    kills: bool = False,
    broker: Callable[[Path], Any] | None = None,
) -> Callable[[Body], Body]:
    """Register a scenario, see Scenario.

    `broker` is called with a folder and gives a context manager whose value has `bootstrap`, and
    may have `overrides`, settings of the workers; the scenario finds the value at `run.broker`.
    """

    def register(body: Body) -> Body:
        assert name not in SCENARIOS, f"two scenarios are named {name}"
        SCENARIOS[name] = Scenario(name, body, settles, partitions, kills, broker)
        return body

    return register


@dataclass(frozen=True)
class Result:
    """A row of the report; lost and doubled are distinct events and outputs.

    held   True, False, or "not run"; why says what is broken, or why it was not run
    """

    name: str
    held: bool | Literal["not run"]
    why: str
    seed: int
    times: int = 0
    events: int = 0
    applied: int = 0
    repeats: int = 0
    dead: int = 0
    lost: int = 0
    doubled: int = 0
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The row as an object of the JSON report."""
        return asdict(self)


def run_scenario(one: Scenario, seed: int, long: bool, dead_sessions_end: bool) -> Result:
    """Run a scenario once, on the cluster of INTEREST_KAFKA_BOOTSTRAP or a broker of its own."""
    if one.broker is not None and "INTEREST_KAFKA_BOOTSTRAP" in os.environ:
        return Result(one.name, "not run", "it needs a broker of its own to break", seed)
    if one.kills and not dead_sessions_end:
        why = "this broker never ends the session of a consumer that died"
        return Result(one.name, "not run", why, seed)
    home = Path(tempfile.mkdtemp(prefix="chaos-"))
    began = time.monotonic()
    held: bool | Literal["not run"] = False
    why = ""
    run: Run | None = None
    try:
        with _broker(one, home) as broker:
            run = Run(broker.bootstrap, home, seed, long, one.partitions)
            run.broker = broker
            run.overrides |= getattr(broker, "overrides", {})
            try:
                one.body(run)
                if one.settles:
                    run.check()
                broken = [*run.figures.broken, *run.broken_ends()]
                held, why = not broken, broken[0] if broken else ""
            finally:
                run.close()
    except NotRun as reason:
        held, why = "not run", str(reason)
    except BrokenInvariant as reason:
        stuck = run.broken_ends() if run is not None else []
        why = "; ".join([str(reason), *stuck])
    except InterestStreamError as error:
        why = f"{type(error).__name__}: {error}"
    except Exception as error:
        (home / "kit.log").write_text(traceback.format_exc())
        why = f"the scenario itself failed ({error!r})"
    if held is False:
        why += f" (logs in {home})"
    else:
        shutil.rmtree(home, ignore_errors=True)
    figures = run.figures if run is not None else None
    counts = {} if figures is None else {k: v for k, v in asdict(figures).items() if k != "broken"}
    times = run.times if run is not None else 0
    seconds = round(time.monotonic() - began, 1)
    return Result(one.name, held, why, seed, times, **counts, seconds=seconds)


@dataclass(frozen=True)
class _Cluster:
    bootstrap: str


@contextmanager
def _broker(one: Scenario, home: Path) -> Iterator[Any]:
    if one.broker is not None:
        with one.broker(home) as broker:
            yield broker
    elif bootstrap := os.environ.get("INTEREST_KAFKA_BOOTSTRAP"):
        yield _Cluster(bootstrap)
    else:
        with EmbeddedBroker(log_file=home / "broker.log") as broker:
            yield broker
