"""Changes of interest planted in a real log: a user's tail is replaced by another's sessions.

Half of the users are changed, the other half are controls. A *stream* is one changed user, one
way of changing and one draw of moment and donor; it is a user of its own in the planted log, so
that whatever runs over a log runs over it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.event_log import EventLog
from model.events import SESSION_GAP_S

AT_ONCE, GRADUAL, HALF = range(3)
KINDS = ("at once", "gradually over 20 events", "half of the sessions")
RAMP_EVENTS = 20
BEFORE_EVENTS = 20
AFTER_EVENTS = 20
DONOR_EVENTS = 50
MAX_COSINE = 0.3
DONORS_TRIED = 200


@dataclass(frozen=True)
class Planted:
    """Changed streams. S streams.

    log     the streams as users "name~kind~draw"
    user    (S,) user of the original log that the stream was made of
    donor   (S,) user whose sessions came in
    kind    (S,) index into ``KINDS``
    change  (S,) 0-based number of the first event that is the donor's
    """

    log: EventLog
    user: np.ndarray
    donor: np.ndarray
    kind: np.ndarray
    change: np.ndarray


@dataclass(frozen=True)
class Sessions:
    """A log cut into sessions, user by user in order of time. N rows, Q sessions.

    row     (N,) rows of the log, user by user
    start   (Q + 1,) first place in ``row`` of each session, and the end
    first   (U + 1,) first session of each user, and the end
    """

    row: np.ndarray
    start: np.ndarray
    first: np.ndarray

    def rows(self, session: int) -> np.ndarray:
        """Rows of one session in order."""
        return self.row[self.start[session] : self.start[session + 1]]


def cut_sessions(log: EventLog) -> Sessions:
    """Sessions of each user: a pause of more than 30 minutes ends one, and no event is parted."""
    row = np.argsort(log.user, kind="stable")
    user, time_ms = log.user[row], log.time_ms[row]
    clock = _running_maximum(user, time_ms)
    new_user = np.r_[True, user[1:] != user[:-1]] if len(row) else np.zeros(0, bool)
    pause = np.r_[0, np.diff(clock)] > SESSION_GAP_S * 1000
    start = np.flatnonzero(new_user | pause[: len(row)])
    first = np.searchsorted(user[start], np.arange(len(log.users) + 1))
    return Sessions(row, np.r_[start, len(row)], first)


def _running_maximum(user: np.ndarray, time_ms: np.ndarray) -> np.ndarray:
    lift = user.astype(np.int64) << 43  # above any time in ms
    return np.asarray(np.maximum.accumulate(time_ms + lift) - lift)


def split_users(log: EventLog, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(changed, control): two halves of the log's users, at random."""
    order = np.random.default_rng(seed).permutation(len(log.users))
    return np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])


def only(log: EventLog, users: np.ndarray) -> EventLog:
    """The rows of some users."""
    return log.take(np.isin(log.user, users))


def plant(log: EventLog, changed: np.ndarray, draws: int, seed: int) -> Planted:
    """Each way of changing, ``draws`` times in each changed user that is long enough.

    The moment is a session's start with 20 events before it and 20 after, at random; the
    donor is another changed user with a cosine of category counts below .3 and 50 events, or as
    many as the tail has. Sessions stay whole: those that come in are the donor's from the
    first on, at the times at which the tail's sessions began, for as many events as the tail had.
    """
    random = np.random.default_rng(seed)
    sessions = cut_sessions(log)
    events = np.bincount(log.user, minlength=len(log.users))
    counts = _category_counts(log)
    pieces: list[tuple[str, np.ndarray, np.ndarray]] = []
    found: list[tuple[int, int, int, int]] = []
    for user in changed.tolist():
        moments = _moments(sessions, user)
        if len(moments) == 0:
            continue
        for draw in range(draws):
            moment = int(random.choice(moments))
            tail = events[user] - (sessions.start[moment] - sessions.start[sessions.first[user]])
            able = changed[events[changed] >= min(int(tail), DONOR_EVENTS)]
            donor = _donor(user, able, counts, random)
            if donor < 0:
                continue
            for kind, name in enumerate(KINDS):
                rows, time_ms, change = _stream(log, sessions, user, moment, donor, kind, random)
                pieces.append((f"{log.users[user]}~{name}~{draw}", rows, time_ms))
                found.append((user, donor, kind, change))
    kept = [n for n, of in enumerate(found) if of[3] >= 0]
    columns = np.array([found[n] for n in kept], np.int64).reshape(-1, 4)
    planted = _log(log, [pieces[n] for n in kept])
    return Planted(planted, *(columns[:, i] for i in range(4)))


def _moments(sessions: Sessions, user: int) -> np.ndarray:
    """Sessions of a user that a change may start at."""
    own = np.arange(sessions.first[user], sessions.first[user + 1])
    begin, end = sessions.start[own], sessions.start[sessions.first[user + 1]]
    before = begin - sessions.start[sessions.first[user]]
    return np.asarray(own[(before >= BEFORE_EVENTS) & (end - begin >= AFTER_EVENTS)])


def _category_counts(log: EventLog) -> list[dict[int, int]]:
    counts: list[dict[int, int]] = [{} for _ in log.users]
    named = log.category >= 0
    pairs, number = np.unique(
        log.user[named] * len(log.categories) + log.category[named], return_counts=True
    )
    for pair, n in zip(pairs.tolist(), number.tolist(), strict=True):
        user, category = divmod(pair, len(log.categories))
        counts[user][category] = n
    return counts


def _donor(
    user: int, able: np.ndarray, counts: list[dict[int, int]], random: np.random.Generator
) -> int:
    """One of the users ``able`` with other interests, -1 when none is met."""
    for other in random.choice(able, min(DONORS_TRIED, len(able)), replace=False).tolist():
        if other != user and _cosine(counts[user], counts[other]) < MAX_COSINE:
            return int(other)
    return -1


def _cosine(a: dict[int, int], b: dict[int, int]) -> float:
    dot = sum(n * b.get(category, 0) for category, n in a.items())
    squares = sum(n * n for n in a.values()) * sum(n * n for n in b.values())
    return float(dot / max(squares, 1) ** 0.5)


def _stream(
    log: EventLog,
    sessions: Sessions,
    user: int,
    moment: int,
    donor: int,
    kind: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
    """(rows, times, number of the donor's first event or -1) of one changed stream."""
    first, end = int(sessions.first[user]), int(sessions.first[user + 1])
    begin = int(sessions.start[first])
    rows = [sessions.row[begin : sessions.start[moment]]]
    times = [log.time_ms[rows[0]]]
    length = int(sessions.start[end]) - begin
    placed, change = len(rows[0]), -1
    start_of_tail = placed
    coming, left = int(sessions.first[donor]), int(sessions.first[donor + 1])
    clock = int(times[0].max(initial=0))
    own = moment
    while placed < length and own < end:
        starts_ms = int(log.time_ms[sessions.row[sessions.start[own]]])
        share = {AT_ONCE: 1.0, GRADUAL: (placed - start_of_tail + 1) / RAMP_EVENTS, HALF: 0.5}[kind]
        swapped = random.random() < share
        if swapped and coming >= left:
            break
        piece = sessions.rows(coming if swapped else own)
        coming += swapped
        own += 1
        if swapped and change < 0:
            change = len(np.unique(log.event[np.concatenate(rows)]))
        at = log.time_ms[piece] - int(log.time_ms[piece[0]])
        at = at + max(starts_ms, clock + SESSION_GAP_S * 1000 + 1000)
        rows.append(piece)
        times.append(at)
        clock = int(at.max())
        placed += len(piece)
    return np.concatenate(rows), np.concatenate(times), change


def _log(log: EventLog, pieces: list[tuple[str, np.ndarray, np.ndarray]]) -> EventLog:
    """The pieces (name, rows of the log, times) as users of a log of their own."""
    none = np.zeros(0, np.int64)
    row = np.concatenate([none, *(rows for _, rows, _ in pieces)])
    lengths = [len(rows) for _, rows, _ in pieces]
    user = np.repeat(np.arange(len(pieces)), lengths)
    event = log.event[row]
    first = np.r_[True, (event[1:] != event[:-1]) | (user[1:] != user[:-1])][: len(row)]
    ids = [f"{log.event_ids[event[at]]}~{user[at]}" for at in np.flatnonzero(first).tolist()]
    return replace(
        log.take(row),
        users=[name for name, _, _ in pieces],
        user=user,
        time_ms=np.concatenate([none, *(times for _, _, times in pieces)]),
        event=np.cumsum(first) - 1,
        event_ids=ids,
    )
