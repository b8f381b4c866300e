"""A shop that never was: users whose interests drift slowly and jump at known times.

Every user has a language and a few interests whose weights wander from session to session. Some
users change at a known session: their heaviest interests give way to others. Sessions follow day
and night; in a session the user searches in words of their language, clicks items by popularity
and by what goes together, marks some, and buys what was clicked before, sometimes with more.
Seeds fix everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from model.simulation_words import LANGUAGES, QUALIFIERS, WORDS
from model.tables import write_table

DAY_MS = 86_400_000
START_MS = 1_735_689_600_000  # 2025-01-01 00:00 UTC, a Wednesday
_HOUR_WEIGHTS = [2, 1, 1, 1, 1, 2, 4, 6, 7, 7, 7, 8, 9, 8, 7, 7, 8, 9, 11, 13, 14, 13, 9, 5]


@dataclass(frozen=True)
class ShopSettings:
    """Size and habits of the simulated shop.

    sessions_per_day     of the average user; users differ by a log-normal factor
    changing_share       share of users with one planted change
    drift                standard deviation of a log weight's step from session to session
    """

    users: int = 1000
    days: int = 60
    seed: int = 0
    categories: int = 40
    items_per_category: int = 50
    interests: int = 4
    sessions_per_day: float = 0.35
    changing_share: float = 0.5
    drift: float = 0.05
    search_share: float = 0.35
    buy_share: float = 0.09
    start_ms: int = START_MS


@dataclass(frozen=True)
class SimulatedLog:
    """Events as an event log table (see event_log.py, plus ``locale``) and the planted changes.

    truth columns: user_id, time_ms of the first event after the change, event_index (its 0-based
    number among the user's events), from_category and to_category (the heaviest before and after),
    from_categories and to_categories (all that left and came)
    """

    events: pa.Table
    truth: pa.Table


@dataclass
class _User:
    """One user while being simulated; ``index`` counts their events."""

    name: str
    random: Random
    language: str
    weights: dict[int, float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    truth: dict[str, Any] | None = None
    events: int = 0
    pending: dict[str, Any] | None = None


def simulate(settings: ShopSettings) -> SimulatedLog:
    """The log of a simulated shop; ValueError when the sizes cannot be had."""
    if not 2 * settings.interests <= settings.categories <= len(WORDS):
        raise ValueError(
            f"categories must be {2 * settings.interests} to {len(WORDS)}, "
            f"not {settings.categories}"
        )
    shop = _Shop(settings)
    rows: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for number in range(settings.users):
        user = shop.visit(number)
        rows.extend(user.rows)
        if user.truth is not None:
            truth.append(user.truth)
    # rows of one basket share time, user and event number and stay neighbours
    rows.sort(key=lambda row: (row["time_ms"], row["user_id"], row["event"]))
    return SimulatedLog(_event_table(rows, settings), _truth_table(truth))


class _Shop:
    """Names, popularity and companions of the items: equal for all users."""

    def __init__(self, settings: ShopSettings) -> None:
        self.settings = settings
        random = Random(f"shop:{settings.seed}")
        self.categories = list(WORDS)[: settings.categories]
        count = settings.items_per_category
        self.popularity = [1 / (rank + 1) ** 0.9 for rank in range(count)]
        # what goes together: mostly items of the category, one of a neighbouring category
        self.companions = [
            [
                [
                    (category, random.randrange(count)),
                    (category, random.randrange(count)),
                    ((category + 1) % settings.categories, random.randrange(count)),
                ]
                for _ in range(count)
            ]
            for category in range(settings.categories)
        ]

    def visit(self, number: int) -> _User:
        """All sessions of one user."""
        s = self.settings
        random = Random(f"user:{s.seed}:{number}")
        user = _User(
            name=f"u{number:06d}",
            random=random,
            language=random.choice(LANGUAGES),
            weights=self._interests(random, exclude=()),
        )
        starts = list(self._session_starts(random))
        change = self._change_session(random, len(starts))
        for session, start_ms in enumerate(starts):
            if session == change:
                self._change(user)
            self._session(user, start_ms)
            for category in user.weights:
                user.weights[category] *= math.exp(random.gauss(0, s.drift))
        return user

    def _interests(self, random: Random, exclude: tuple[int, ...]) -> dict[int, float]:
        free = [c for c in range(self.settings.categories) if c not in exclude]
        chosen = random.sample(free, self.settings.interests)
        return {category: random.gammavariate(1.5, 1.0) + 0.2 for category in chosen}

    def _session_starts(self, random: Random) -> Iterator[int]:
        s = self.settings
        rate = s.sessions_per_day * math.exp(random.gauss(0, 0.6))
        day = 0
        while day < s.days:
            day += 1 + int(random.expovariate(rate))
            if day > s.days:
                return
            hour = random.choices(range(24), _HOUR_WEIGHTS)[0]
            yield s.start_ms + (day - 1) * DAY_MS + hour * 3_600_000 + random.randrange(3_600_000)

    def _change_session(self, random: Random, sessions: int) -> int:
        """The session a change is planted at, -1 for none: never before the user is known."""
        changes = random.random() < self.settings.changing_share
        at = int(sessions * random.uniform(0.4, 0.7))
        return at if changes and at >= 4 and sessions - at >= 4 else -1

    def _change(self, user: _User) -> None:
        """The heaviest interests leave; as many others come with their weight."""
        old = sorted(user.weights, key=lambda c: (-user.weights[c], c))
        left = old[: max(1, len(old) - 1)]
        free = [c for c in range(self.settings.categories) if c not in user.weights]
        came = user.random.sample(free, len(left))
        for before, after in zip(left, came, strict=True):
            user.weights[after] = user.weights.pop(before)
        user.pending = {
            "from_category": self.categories[left[0]],
            "to_category": self.categories[came[0]],
            "from_categories": [self.categories[c] for c in left],
            "to_categories": [self.categories[c] for c in came],
        }

    def _session(self, user: _User, start_ms: int) -> None:
        random, s = user.random, self.settings
        now_ms = start_ms
        events = 2 + int(random.expovariate(1 / 4))
        category = self._focus(user)
        item: tuple[int, int] | None = None
        clicked: list[tuple[int, int]] = []
        for step in range(events):
            if step and random.random() < 0.2:
                category, item = self._focus(user), None
            if item is None and random.random() < s.search_share:
                self._add(user, now_ms, "search", "search", None, query=self._query(user, category))
                now_ms += 1000 + int(random.expovariate(1 / 20_000))
            item = self._next_item(random, category, item)
            action = random.choices(("view", "favourite", "cart"), (88, 5, 7))[0]
            self._add(user, now_ms, "click", action, item)
            clicked.append(item)
            now_ms += 1000 + int(random.expovariate(1 / 40_000))
            if random.random() < s.buy_share:
                self._buy(user, now_ms, clicked)
                now_ms += 1000 + int(random.expovariate(1 / 60_000))

    def _focus(self, user: _User) -> int:
        if user.random.random() < 0.08:  # a look at something else
            return user.random.randrange(self.settings.categories)
        return user.random.choices(list(user.weights), list(user.weights.values()))[0]

    def _next_item(
        self, random: Random, category: int, item: tuple[int, int] | None
    ) -> tuple[int, int]:
        if item is not None and random.random() < 0.4:
            return random.choice(self.companions[item[0]][item[1]])
        return category, random.choices(range(len(self.popularity)), self.popularity)[0]

    def _buy(self, user: _User, now_ms: int, clicked: list[tuple[int, int]]) -> None:
        basket = [clicked[-1]]
        while len(basket) < 4 and user.random.random() < 0.35:
            last = basket[-1]
            basket.append(user.random.choice(self.companions[last[0]][last[1]]))
        event = user.events
        for item in dict.fromkeys(basket):
            user.events = event
            self._add(user, now_ms, "purchase", "purchase", item)

    def _query(self, user: _User, category: int) -> str:
        word = user.random.choice(WORDS[self.categories[category]][user.language])
        if user.random.random() < 0.3:
            return f"{user.random.choice(QUALIFIERS[user.language])} {word}"
        return word

    def _add(
        self,
        user: _User,
        time_ms: int,
        event_type: str,
        action: str,
        item: tuple[int, int] | None,
        query: str | None = None,
    ) -> None:
        if user.pending is not None:
            where = {"user_id": user.name, "time_ms": time_ms, "event_index": user.events}
            user.truth = {**where, **user.pending}
            user.pending = None
        user.rows.append(
            {
                "user_id": user.name,
                "time_ms": time_ms,
                "event_type": event_type,
                "action": action,
                "item_id": None if item is None else f"{self.categories[item[0]]}-{item[1]:03d}",
                "category": None if item is None else self.categories[item[0]],
                "query": query,
                "locale": user.language,
                "event": user.events,
            }
        )
        user.events += 1


def _event_table(rows: list[dict[str, Any]], settings: ShopSettings) -> pa.Table:
    names = ("user_id", "event_type", "action", "item_id", "category", "query", "locale")
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in names}
    times = pa.array([row["time_ms"] for row in rows], pa.timestamp("ms", tz="UTC"))
    ids = [f"s{settings.seed}-{row['user_id']}-{row['event']}" for row in rows]
    return pa.table(
        {
            "event_id": pa.array(ids, pa.string()),
            "user_id": columns.pop("user_id"),
            "timestamp": times,
            **columns,
        }
    )


def _truth_table(truth: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema(
        [
            ("user_id", pa.string()),
            ("time_ms", pa.int64()),
            ("event_index", pa.int64()),
            ("from_category", pa.string()),
            ("to_category", pa.string()),
            ("from_categories", pa.list_(pa.string())),
            ("to_categories", pa.list_(pa.string())),
        ]
    )
    return pa.Table.from_pylist(truth, schema=schema)


def truth_path(path: Path | str) -> Path:
    """Where the planted changes of an event log file stand: ``log.truth.parquet`` beside it."""
    path = Path(path)
    return path.with_name(path.stem + ".truth.parquet")


def write_simulated(log: SimulatedLog, path: Path | str) -> None:
    """Writes events (.parquet, .csv or .jsonl, by suffix) and the truth beside them."""
    write_table(log.events, path)
    write_table(log.truth, truth_path(path))
