"""What the output topics have said, kept within bounds: per user, and what is recent for all.

The feed writes from its thread and the pages read from theirs, so each call takes the lock.
"""

from __future__ import annotations

import struct
import threading
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct

from stream_app.events import Drift, Interest, Recommendation, RecommendedItem
from stream_app.ui.population import Population, PopulationView

MAX_USERS = 2000
MAX_POINTS = 200  # lists of one user
MAX_USER_DRIFTS = 20
MAX_DRIFTS = 50  # of all users
MAX_IDS = 50_000  # of outputs, by which a repeated one is recognised
MAX_INTERESTS = 10  # of one list
MAX_LETTERS = 10_000

_PACKED = struct.Struct("<Iff")
"""Number of the category's name, probability, uncertainty: a list takes about 200 bytes."""


class KnownInterest(NamedTuple):
    """Probability that a user turns to a category, and its entropy in bits."""

    category: str
    probability: float
    uncertainty: float


class Point(NamedTuple):
    """The interests of a user at an event time, the likeliest first."""

    time_ms: int
    interests: tuple[KnownInterest, ...]


class LastList(NamedTuple):
    """The items of a user's last list."""

    time_ms: int
    trigger: str
    items: tuple[RecommendedItem, ...]
    diversity: float
    model_version: str


@dataclass(frozen=True)
class UserView:
    """What the outputs said of one user; points and drifts by event time."""

    user_id: str
    points: tuple[Point, ...] = ()
    drifts: tuple[Drift, ...] = ()
    last: LastList | None = None


@dataclass(frozen=True)
class Counts:
    """What was read so far, repeats left out; `letters` are dead letters by reason code."""

    users: int
    recommendations: int
    drifts: int
    repeats: int
    letters: dict[str, int]


class _Packed(Struct, frozen=True, gc=False):
    time_ms: int
    interests: bytes


@dataclass
class _User:
    points: deque[_Packed] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    drifts: deque[Drift] = field(default_factory=lambda: deque(maxlen=MAX_USER_DRIFTS))
    last: LastList | None = None


class Histories:
    """The state behind the pages. An output with an id that was seen is counted as a repeat."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: OrderedDict[str, _User] = OrderedDict()  # the one heard of last at the end
        self._drifts: list[Drift] = []  # by event time
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._letters: OrderedDict[bytes, str] = OrderedDict()
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._counted: Counter[str] = Counter()
        self._population = Population()

    def add_recommendation(self, message: Recommendation) -> None:
        """Note a list and the interests it follows from."""
        with self._lock:
            if self._is_repeated(message.id):
                return
            self._counted["recommendations"] += 1
            user = self._user(message.user_id)
            liked = message.interests[:MAX_INTERESTS]
            user.points.append(_Packed(message.timestamp, self._pack(liked)))
            user.last = LastList(
                message.timestamp,
                message.trigger,
                tuple(message.items),
                message.diversity,
                message.model_version,
            )
            self._population.add(message.timestamp, [(i.category, i.probability) for i in liked])

    def add_drift(self, drift: Drift) -> None:
        """Note a drift of a user."""
        with self._lock:
            if self._is_repeated(drift.id):
                return
            self._counted["drifts"] += 1
            self._user(drift.user_id).drifts.append(drift)
            self._drifts = sorted([*self._drifts, drift], key=_time)[-MAX_DRIFTS:]
            self._population.add_drift(drift.timestamp)

    def add_letter(self, place: bytes, reason: str | None) -> None:
        """Note the dead letter of a place; None takes it back, as a deleted letter does."""
        with self._lock:
            if reason is None:
                self._letters.pop(place, None)
                return
            self._letters[place] = reason
            if len(self._letters) > MAX_LETTERS:
                self._letters.popitem(last=False)

    def forget(self, user_id: str) -> None:
        """Drop what was noted of a user who was erased."""
        with self._lock:
            self._users.pop(user_id, None)
            self._drifts = [drift for drift in self._drifts if drift.user_id != user_id]

    def user(self, user_id: str) -> UserView:
        """What is known of a user; empty when nothing is."""
        with self._lock:
            found = self._users.get(user_id)
            if found is None:
                return UserView(user_id)
            self._users.move_to_end(user_id)
            points = (Point(p.time_ms, self._unpack(p.interests)) for p in found.points)
            return UserView(
                user_id,
                tuple(sorted(points, key=lambda point: point.time_ms)),
                tuple(sorted(found.drifts, key=_time)),
                found.last,
            )

    def drifts(self) -> list[Drift]:
        """The latest drifts of all users, the latest first."""
        with self._lock:
            return self._drifts[::-1]

    def population(self, top: int) -> PopulationView:
        """The interests of all users over event time."""
        with self._lock:
            return self._population.view(top)

    def counts(self) -> Counts:
        """What was read so far."""
        with self._lock:
            return Counts(
                users=len(self._users),
                recommendations=self._counted["recommendations"],
                drifts=self._counted["drifts"],
                repeats=self._counted["repeats"],
                letters=dict(Counter(self._letters.values()).most_common()),
            )

    def _is_repeated(self, output_id: str) -> bool:
        if output_id in self._ids:
            self._counted["repeats"] += 1
            return True
        self._ids[output_id] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        return False

    def _user(self, user_id: str) -> _User:
        user = self._users.setdefault(user_id, _User())
        self._users.move_to_end(user_id)
        if len(self._users) > MAX_USERS:
            self._users.popitem(last=False)
        return user

    def _pack(self, interests: list[Interest]) -> bytes:
        return b"".join(
            _PACKED.pack(self._number(i.category), i.probability, i.uncertainty) for i in interests
        )

    def _unpack(self, packed: bytes) -> tuple[KnownInterest, ...]:
        return tuple(
            KnownInterest(self._names[number], round(probability, 4), round(uncertainty, 4))
            for number, probability, uncertainty in _PACKED.iter_unpack(packed)
        )

    def _number(self, category: str) -> int:
        number = self._numbers.setdefault(category, len(self._names))
        if number == len(self._names):
            self._names.append(category)
        return number


def _time(drift: Drift) -> int:
    return drift.timestamp
