"""Windows to learn from: what a user's counts are at a time, and what they touch after it.

A *window* stands at a step of a user and a time ``now`` from that step on; its label is the set of
categories that the user touches within the horizon after it. Only windows that end inside the log
are used. Dimensions: N steps sorted by user, M windows, R decay rates, E entries over all windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model.events import SESSION_GAP_S, EventBatch
from model.interest_lstm import NEAR_STEPS
from model.state import SLOTS

LOOK_BACK_STEPS = 1024
RECENT_HORIZONS = 4.0
"""Half-life of the chance that a window is drawn: what is popular now counts."""
_CHUNK_ENTRIES = 2_000_000


@dataclass(frozen=True)
class Sparse:
    """Entries of M windows: window m owns ``start[m]:start[m + 1]``.

    start     (M + 1,) int64
    category  (E,) int64
    count     (E, R) float32 decayed counts; (E, 0) for labels
    """

    start: np.ndarray
    category: np.ndarray
    count: np.ndarray

    def of(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(row in ``windows``, category, count) of the entries of some windows."""
        index, row = ranges(self.start[windows], self.start[windows + 1])
        return row, self.category[index], self.count[index]


@dataclass(frozen=True)
class Decay:
    """How steps are counted.

    half_life_s    (R,) half-lives of the counts, fastest first
    repeat_weight  of a step whose category the session has had before, see ``Statistics``
    """

    half_life_s: np.ndarray
    repeat_weight: float = 1.0


@dataclass(frozen=True)
class Windows:
    """M windows: ``step`` is the user's last step (index into the sorted steps).

    recent_category, recent_item  (M, NEAR_STEPS) of the user's last steps, newest first, 0 = none
    """

    step: np.ndarray
    now_s: np.ndarray
    counts: Sparse
    labels: Sparse
    recent_category: np.ndarray
    recent_item: np.ndarray

    def __len__(self) -> int:
        return len(self.step)


def ranges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All numbers of the ranges start[i]..end[i] in a row, and the i of each."""
    length = np.maximum(end - start, 0)
    row = np.repeat(np.arange(len(start)), length)
    before = np.cumsum(length) - length
    return np.arange(len(row)) - before[row] + start[row], row


class UserSteps:
    """Steps sorted by user, with each user's clock in seconds that never runs backwards."""

    def __init__(self, steps: EventBatch, target: int | None = None) -> None:
        """``steps`` as ``counting.by_user`` gives them; labels are of one event type, or of all."""
        self.steps = steps
        self.is_target = np.ones(len(steps), dtype=bool)
        if target is not None:
            self.is_target = steps.event_type == target
        user = steps.user
        self.new_user = np.ones(len(user), dtype=bool)
        self.new_user[1:] = user[1:] != user[:-1]
        self.segment = np.cumsum(self.new_user) - 1  # number of the user here
        self.start = np.append(np.flatnonzero(self.new_user), len(user))  # (U + 1,)
        lift = self.segment.astype(np.int64) << 43
        clock_ms = np.maximum.accumulate(np.maximum(steps.time_ms, 0) + lift) - lift
        self.clock_s = clock_ms // 1000
        self.gap_s = np.zeros(len(user), dtype=np.int64)
        self.gap_s[1:] = (clock_ms[1:] - clock_ms[:-1]) // 1000
        self.gap_s[self.new_user] = 0
        self._key = self.clock_s + (self.segment << 33)

    @cached_property
    def comes_again(self) -> np.ndarray:
        """Whether the session of each step has had its category before, (N,) bool."""
        session = np.cumsum(self.new_user | (self.gap_s > SESSION_GAP_S))
        _, first = np.unique(session << 17 | self.steps.category, return_index=True)
        found = np.ones(len(session), dtype=bool)
        found[first] = False
        return found

    def __len__(self) -> int:
        return len(self.clock_s)

    def last_before(self, now_s: np.ndarray, segment: np.ndarray) -> np.ndarray:
        """Index of a user's last step at or before a time; one below the user's start if none."""
        return np.searchsorted(self._key, now_s + (segment << 33), side="right") - 1

    def windows(
        self,
        step: np.ndarray,
        now_s: np.ndarray,
        decay: Decay,
        horizon_s: int,
    ) -> Windows:
        """Counts at ``now_s``, labels of the horizon after it and recent steps, at steps."""
        segment = self.segment[step]
        first = np.maximum(self.start[segment], step + 1 - LOOK_BACK_STEPS)
        end = np.searchsorted(self._key, now_s + horizon_s + (segment << 33), side="left")
        counts = self._entries(first, step + 1, now_s, decay)
        labels = self._entries(step + 1, end, now_s, Decay(np.zeros(0)))
        back = step[:, None] - np.arange(NEAR_STEPS)
        there = back >= self.start[segment][:, None]
        recent = (
            np.where(there, column[np.maximum(back, 0)], 0)
            for column in (self.steps.category, self.steps.item)
        )
        return Windows(step, now_s, counts, labels, *recent)

    def _entries(
        self,
        first: np.ndarray,
        end: np.ndarray,
        now_s: np.ndarray,
        decay: Decay,
    ) -> Sparse:
        """Decayed counts of the distinct categories of steps first..end of each window."""
        sizes = np.cumsum(np.maximum(end - first, 0))
        parts, at = [], 0
        while at < len(first):
            done = sizes[at - 1] if at else 0
            stop = max(at + 1, int(np.searchsorted(sizes, done + _CHUNK_ENTRIES)))
            chosen = slice(at, stop)
            parts.append(self._part(first[chosen], end[chosen], now_s[chosen], decay))
            parts[-1] = (parts[-1][0] + at, *parts[-1][1:])
            at = stop
        rates = len(decay.half_life_s)
        window = np.concatenate([p[0] for p in parts]) if parts else np.zeros(0, np.int64)
        category = np.concatenate([p[1] for p in parts]) if parts else np.zeros(0, np.int64)
        count = np.concatenate([p[2] for p in parts]) if parts else np.zeros((0, rates), np.float32)
        start = np.searchsorted(window, np.arange(len(first) + 1))
        return Sparse(start, category, count)

    def _part(
        self,
        first: np.ndarray,
        end: np.ndarray,
        now_s: np.ndarray,
        decay: Decay,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        index, window = ranges(first, end)
        category = self.steps.category[index]
        kept = category > 0
        rates = len(decay.half_life_s)
        if rates == 0:  # labels
            kept &= self.is_target[index]
        index, window, category = index[kept], window[kept], category[kept]
        key, where = np.unique(window << 17 | category, return_inverse=True)
        age_s = now_s[window] - self.clock_s[index]
        count = np.zeros((len(key), rates), np.float32)
        weight = np.where(self.comes_again[index], decay.repeat_weight, 1.0) if rates else None
        for rate, half_life in enumerate(decay.half_life_s):
            decayed = weight * np.exp2(-age_s / half_life)
            count[:, rate] = np.bincount(where, decayed, minlength=len(key))
        window, category = key >> 17, key & 0x1FFFF
        if rates:  # a row holds so many categories, the heaviest at the slowest rate
            order = np.lexsort((-count[:, -1], window))
            place = np.arange(len(key)) - np.searchsorted(window, np.arange(len(first)))[window]
            held = np.sort(order[place < SLOTS])
            window, category, count = window[held], category[held], count[held]
        return window, category, count


def draw_windows(
    users: UserSteps,
    end_s: int,
    count: int,
    decay: Decay,
    horizon_s: int,
    random: np.random.Generator,
) -> Windows:
    """At most ``count`` windows that end by ``end_s``: a fifth at steps, the rest at any time.

    A window at a step is what the lane asks for, one at any time is what a forecast asks for.
    Late windows are likelier to be drawn, by half for every ``RECENT_HORIZONS`` horizons.
    """
    latest_s = end_s - horizon_s
    step = np.flatnonzero(users.clock_s <= latest_s)
    if len(step) == 0:
        return users.windows(step, step, decay, horizon_s)
    following = np.full(len(users), np.iinfo(np.int64).max)
    following[:-1] = np.where(users.new_user[1:], following[:-1], users.clock_s[1:])
    until = np.minimum(following[step], latest_s)
    idle = np.minimum(until - users.clock_s[step], 3 * horizon_s)  # one silent user is not all
    now_s = users.clock_s[step] + (random.random(len(step)) * idle).astype(np.int64)
    recent = np.exp2((users.clock_s[step] - latest_s) / (RECENT_HORIZONS * horizon_s)) + 1e-9
    weight = idle * recent
    later = np.zeros(0, np.int64)
    if idle.sum() > 0:
        size = min(count - count // 5, int((idle > 0).sum()))
        later = random.choice(len(step), size, False, weight / weight.sum())
    size = min(count // 5, len(step))
    at_step = random.choice(len(step), size, False, recent / recent.sum())
    taken = np.zeros(len(step), dtype=bool)
    taken[later] = True
    at_step = at_step[~taken[at_step]]
    now_s[at_step] = users.clock_s[step[at_step]]
    chosen = np.sort(np.concatenate((later, at_step)))
    step, now_s = step[chosen], now_s[chosen]
    return users.windows(step, now_s, decay, horizon_s)


def cutoff_windows(users: UserSteps, cutoff_s: int, decay: Decay, horizon_s: int) -> Windows:
    """One window at ``cutoff_s`` for each user with a step before it."""
    segment = np.arange(len(users.start) - 1)
    step = users.last_before(np.full(len(segment), cutoff_s - 1), segment)
    step = step[step >= users.start[segment]]
    now_s = np.full(len(step), cutoff_s)
    return users.windows(step, now_s, decay, horizon_s)
