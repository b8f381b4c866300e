"""A bound that a figure is to meet, and whether what was measured meets it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """A bound of a figure, and the figure.

    what      the figure, as it stands in a sentence
    bound     met at this value, and on the side of it that ``kind`` names
    decimals  of both figures, as they are shown
    """

    what: str
    kind: Literal["at least", "at most"]
    bound: float
    measured: float
    unit: str = ""
    decimals: int = 0

    @property
    def is_met(self) -> bool:
        """True where the figure is on the right side of the bound."""
        if self.kind == "at least":
            return self.measured >= self.bound
        return self.measured <= self.bound

    @property
    def verdict(self) -> str:
        """Met, or by how much it is missed."""
        if self.is_met:
            return "met"
        if self.bound == 0:
            return f"missed by {self.shown(abs(self.measured))}"
        if self.measured > 2 * self.bound:
            return f"missed, {self.measured / self.bound:.1f} times as much"
        return f"missed by {abs(self.measured - self.bound) / self.bound:.1%}"

    def shown(self, figure: float) -> str:
        """A figure with its unit."""
        return f"{figure:,.{self.decimals}f} {self.unit}".strip()

    def __str__(self) -> str:
        return (
            f"Goal: {self.what} {self.kind} {self.shown(self.bound)}; "
            f"measured {self.shown(self.measured)}: {self.verdict}."
        )
