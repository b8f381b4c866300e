"""The interests of all users over event time: means over the lists of a stretch, in few stretches.

A stretch is 45 minutes at first. When there are too many, their width doubles until it is a day,
and then the oldest go; so memory does not grow with the time that the page runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MAX_STRETCHES = 60
FIRST_WIDTH_MS = 45 * 60_000
LAST_WIDTH_MS = 32 * FIRST_WIDTH_MS
MAX_CATEGORIES = 512  # of a stretch; the least likely ones go first
SHOWN_LISTS = 0.995
"""Share of the lists that the view covers, so that a few events from long ago stretch no axis."""


@dataclass(frozen=True)
class PopulationView:
    """Shares of the interest, S stretches and C categories.

    times_ms    (S,) beginnings of the stretches
    categories  (C,) the largest first
    shares      (S, C) of the sum of all probabilities in the stretch, 0 to 1
    overall     (C,) the same of all stretches together
    drifts      (S,) drifts raised in the stretch
    lists       (S,) lists that were read of the stretch
    """

    width_ms: int
    times_ms: list[int]
    categories: list[str]
    shares: np.ndarray
    overall: list[float]
    drifts: list[int]
    lists: list[int]


@dataclass
class _Stretch:
    lists: int = 0
    drifts: int = 0
    total: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    def take(self, other: _Stretch) -> None:
        self.lists += other.lists
        self.drifts += other.drifts
        self.total += other.total
        for category, value in other.sums.items():
            self.sums[category] = self.sums.get(category, 0.0) + value
        self.cut()

    def cut(self) -> None:
        if len(self.sums) > MAX_CATEGORIES:
            kept = sorted(self.sums.items(), key=lambda pair: -pair[1])[: MAX_CATEGORIES // 2]
            self.sums = dict(kept)


class Population:
    """Collects lists and drifts by event time."""

    def __init__(self) -> None:
        self._width_ms = FIRST_WIDTH_MS
        self._stretches: dict[int, _Stretch] = {}

    def add(self, time_ms: int, interests: list[tuple[str, float]]) -> None:
        """Note the interests of a list: categories and their probabilities."""
        stretch = self._at(time_ms)
        stretch.lists += 1
        for category, probability in interests:
            stretch.total += probability
            stretch.sums[category] = stretch.sums.get(category, 0.0) + probability
        stretch.cut()

    def add_drift(self, time_ms: int) -> None:
        """Note that a drift was raised."""
        self._at(time_ms).drifts += 1

    def view(self, top: int) -> PopulationView:
        """The stretches by time, with the ``top`` largest categories of all of them."""
        found = sorted(self._stretches.items())
        lists = np.array([stretch.lists for _, stretch in found], dtype=np.int64)
        from_here = np.cumsum(lists[::-1])[::-1]
        covering = int(np.count_nonzero(from_here > SHOWN_LISTS * lists.sum()))
        found = found[max(covering - 1, 0) :]
        sums: dict[str, float] = {}
        for _, stretch in found:
            for category, value in stretch.sums.items():
                sums[category] = sums.get(category, 0.0) + value
        categories = sorted(sums, key=lambda category: (-sums[category], category))[:top]
        total = max(sum(stretch.total for _, stretch in found), 1e-12)
        shares = np.zeros((len(found), len(categories)))  # (S, C)
        for row, (_, stretch) in enumerate(found):
            if stretch.total > 0:
                shares[row] = [stretch.sums.get(c, 0.0) / stretch.total for c in categories]
        return PopulationView(
            width_ms=self._width_ms,
            times_ms=[number * self._width_ms for number, _ in found],
            categories=categories,
            shares=shares,
            overall=[sums[category] / total for category in categories],
            drifts=[stretch.drifts for _, stretch in found],
            lists=[stretch.lists for _, stretch in found],
        )

    def _at(self, time_ms: int) -> _Stretch:
        number = time_ms // self._width_ms
        if number not in self._stretches:
            self._stretches[number] = _Stretch()
            self._shrink()
        return self._stretches.setdefault(time_ms // self._width_ms, _Stretch())

    def _shrink(self) -> None:
        while len(self._stretches) > MAX_STRETCHES:
            if self._width_ms < LAST_WIDTH_MS:
                self._widen()
            else:
                del self._stretches[min(self._stretches)]

    def _widen(self) -> None:
        wider: dict[int, _Stretch] = {}
        for number, stretch in self._stretches.items():
            wider.setdefault(number // 2, _Stretch()).take(stretch)
        self._stretches = wider
        self._width_ms *= 2
