"""What ends a scenario early."""

from __future__ import annotations


class BrokenInvariant(Exception):
    """An invariant does not hold; the message is one sentence that says what was seen."""


class NotRun(Exception):
    """The scenario cannot be run here; the message says why."""
