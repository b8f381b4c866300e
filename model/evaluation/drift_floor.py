"""The floor of the protocol ``drift``: the two-sample test of categories alone.

For W in 8, 16, 24 with window counts w and earlier counts h per category and n = sum h:

    z_W = [(sum w^2 - W)/(W(W-1)) + (sum h^2 - n)/(n(n-1)) - 2 sum(w h)/(W n)]
          / sqrt(2 q/(W(W-1)) + 4 q/(W n)),    q = sum (w+h)^2 / (n+W)^2
"""

from __future__ import annotations

import numpy as np

from model.drift import WINDOWS, Window, pair_counts, standardised


def each_z(seen: Window) -> np.ndarray:
    """z of each window, -inf where the history is too short: (B, 3)."""
    total = seen.total
    sums, squares = total.sum(1), (total * total).sum(1)
    held = seen.slots >= 0
    keys = np.where(held, seen.slots, -1 - np.arange(seen.slots.shape[1], dtype=np.int8)).T
    pairs = pair_counts(np.repeat(keys[None], 2, 0))[0]  # (3, B)
    at = np.cumsum(np.take_along_axis(total, np.maximum(seen.slots, 0).astype(np.int64), 1), 1)
    columns = []
    for number, size in enumerate(WINDOWS):
        n = sums - size
        there = (held.sum(1) >= size) & (n >= np.maximum(5, size / 2))
        ww = size + 2.0 * pairs[number]
        window = np.full(len(n), float(size))
        z = standardised(ww, at[:, size - 1], squares, np.where(there, n, 2.0), window)
        columns.append(np.where(there, z, -np.inf))
    return np.stack(columns, 1)


def largest_z(seen: Window) -> np.ndarray:
    """The largest of the three, (B,)."""
    return np.asarray(each_z(seen).max(1))
