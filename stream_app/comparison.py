"""Stored rows beside offline rows: which users differ, in which fields, and who is not covered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from model.state import StateBatch, pack, unpack_unchecked

HIDDEN_FIELDS = ("h", "c", "anchor_h", "anchor_c")
HIDDEN_TOLERANCE = 0.005
"""What storing hidden states in 16 bits costs; everything else is equal to the last bit."""

LEFT_OUT = ("window_due_s", "window_category", "window_probability")
"""Predictions are kept for a metric and move nothing; a row that was stored before rows had a place
for them keeps none where the offline row does."""

DIGEST_ROWS = 4096

Rows = Mapping[str, bytes]
"""The row of each user."""


@dataclass(frozen=True)
class Coverage:
    """The part of a partition's history that was replayed.

    from_beginning   nothing before it was ever applied
    end              per input topic, the offset after it; None when it reaches to the end
    """

    from_beginning: bool = True
    end: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class FieldDifference:
    """A field that is not equal; of an array the first place that is not."""

    name: str
    stored: str
    offline: str


@dataclass(frozen=True)
class RowDifference:
    """A user whose rows are not equal.

    fields   in the row's order; empty where one of the two rows is missing
    """

    user: str
    fields: tuple[FieldDifference, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Stored rows against offline rows.

    users               that were compared
    events              sum of the applied events of their stored rows
    hidden_difference   largest absolute difference of a hidden, cell or anchor state
    differing           users whose rows are not equal, or who have only one of the two
    not_covered         users whose history was not replayed as a whole
    stored_sha256       of the stored rows of the users compared, see `digest`
    offline_sha256      the same of the offline rows
    """

    users: int
    events: int
    hidden_difference: float
    differing: list[str] = field(default_factory=list)
    not_covered: int = 0
    stored_sha256: str = ""
    offline_sha256: str = ""

    @property
    def exact(self) -> bool:
        """True when the rows of all users compared are equal."""
        return not self.differing


def compare(
    offline: Rows, stored: Rows, hidden_size: int, coverage: Coverage = Coverage()
) -> Comparison:
    """Rows by user: hidden states by their difference, everything else to the last bit.

    Kept predictions are left out.
    """
    everybody = sorted({*offline, *stored})
    covered = _covered(offline, stored, everybody, hidden_size, coverage)
    users = [user for user, known in zip(everybody, covered.tolist(), strict=True) if known]
    differing = [user for user in users if (user in offline) != (user in stored)]
    both = [user for user in users if user in offline and user in stored]
    left = unpack_unchecked([offline[user] for user in both], hidden_size)
    right = unpack_unchecked([stored[user] for user in both], hidden_size)
    unequal, largest = _differences(left, right)
    differing += [user for user, wrong in zip(both, unequal.tolist(), strict=True) if wrong]
    kept = [stored[user] for user in users if user in stored]
    return Comparison(
        users=len(users),
        events=int(unpack_unchecked([*kept], hidden_size)["events"].sum()),
        hidden_difference=largest,
        differing=sorted(differing),
        not_covered=len(everybody) - len(users),
        stored_sha256=digest({u: stored[u] for u in users if u in stored}, hidden_size),
        offline_sha256=digest({u: offline[u] for u in users if u in offline}, hidden_size),
    )


def _covered(
    offline: Rows, stored: Rows, users: list[str], hidden_size: int, coverage: Coverage
) -> npt.NDArray[np.bool_]:
    """Whether the whole history of each user was replayed, (U,).

    A row that holds an offset at or beyond the end has seen events that were not replayed. Where
    the beginning is missing, so has a row that counts more events than were applied offline. (A
    user whose every event before the beginning was repeated behind it is taken as covered: the
    repeats were applied offline in the place of the originals.)
    """
    right = unpack_unchecked([stored.get(user) for user in users], hidden_size)
    known = np.ones(len(users), dtype=bool)
    if coverage.end is not None:
        known &= (right["offset"] < np.asarray(coverage.end)).all(axis=1)
    if not coverage.from_beginning:
        left = unpack_unchecked([offline.get(user) for user in users], hidden_size)
        known &= right["events"] <= left["events"]
    return known


def _differences(left: StateBatch, right: StateBatch) -> tuple[npt.NDArray[np.bool_], float]:
    unequal = np.zeros(len(left), dtype=bool)
    largest = 0.0
    for name in left.dtype.names or ():
        wrong, gap = _unequal(name, left[name], right[name])
        unequal |= wrong.reshape(len(left), int(np.prod(wrong.shape[1:]))).any(1)
        largest = max(largest, gap)
    return unequal, largest


def _unequal(name: str, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
    """Where a field is not equal, and the largest gap when it is a hidden state."""
    if name in LEFT_OUT:
        return np.zeros(left.shape, dtype=bool), 0.0
    if name not in HIDDEN_FIELDS:
        return left != right, 0.0
    gap = np.abs(left.astype(np.float64) - right.astype(np.float64))
    gap[np.isnan(gap)] = np.inf  # a state that is no number is never right
    return gap >= HIDDEN_TOLERANCE, float(gap.max(initial=0.0))


def explain(
    user: str, offline: bytes | None, stored: bytes | None, hidden_size: int
) -> RowDifference:
    """The fields in which a user's rows are not equal."""
    if offline is None or stored is None:
        return RowDifference(user)
    left, right = unpack_unchecked([offline], hidden_size), unpack_unchecked([stored], hidden_size)
    fields = []
    for name in left.dtype.names or ():
        wrong = _unequal(name, left[name], right[name])[0][0]
        if wrong.any():
            place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            index = "".join(f"[{i}]" for i in place)
            values: list[Any] = [rows[name][0][place] for rows in (right, left)]
            fields.append(FieldDifference(f"{name}{index}", str(values[0]), str(values[1])))
    return RowDifference(user, tuple(fields))


def digest(rows: Rows, hidden_size: int) -> str:
    """SHA-256, in hexadecimal, over users and rows in the order of the users.

    Hidden states are left out, as they compare by their difference, and kept predictions.
    """
    total = sha256()
    users = sorted(rows)
    for start in range(0, len(users), DIGEST_ROWS):
        part = users[start : start + DIGEST_ROWS]
        visible = unpack_unchecked([rows[user] for user in part], hidden_size).copy()
        for name in (*HIDDEN_FIELDS, *LEFT_OUT):
            visible[name] = 0
        for user, row in zip(part, pack(visible), strict=True):
            key = user.encode()
            total.update(len(key).to_bytes(4, "little"))
            total.update(key)
            total.update(row)
    return total.hexdigest()
