"""What goes with what, and what follows what: tables of categories by categories, in factors.

Dimensions: U users, C categories, P length of a profile, M entries, B windows, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

POWER_ITERATIONS = 6
OVERSAMPLING = 8
POPULARITY_FLOOR = 1e-4
LEAST_SQUARE = 1e-5
"""Of the largest one: smaller squares of singular values are rounding."""
_CHUNK_ENTRIES = 1_000_000


@dataclass(frozen=True)
class CoOccurrence:
    """Who touched what, in its largest singular vectors.

    vectors  (C, P) right singular vectors, zero beyond the rank
    squares  (P,) squares of the singular values, falling
    share    (C,) share of the users who touched a category
    """

    vectors: np.ndarray
    squares: np.ndarray
    share: np.ndarray

    def factors(self, ridge: float, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """(source, target), each (C, P) float32: what touching the one says of the other.

        The table ``source @ target.T`` is that of the linear model that predicts each category
        from a user's others, EASE (Steck 2019): 1 - P / diag P for P = (X'X + lambda)^-1, spanned
        by the singular vectors that are kept.

        ridge    lambda, in squares of the last singular value that is kept
        damping  targets count relative to their popularity to this power
        """
        held = self.squares[self.squares > LEAST_SQUARE * self.squares.max()]
        last = float(held.min()) if len(held) else 1.0
        kept = self.squares / (self.squares + ridge * last)
        outside = np.maximum(1 - (self.vectors**2) @ kept, 0.05)
        popularity = (self.share + POPULARITY_FLOOR) ** damping
        target = self.vectors / (outside * popularity)[:, None]
        return (self.vectors * kept).astype(np.float32), target.astype(np.float32)


def count_together(
    user: np.ndarray, category: np.ndarray, categories: int, size: int, seed: int = 0
) -> CoOccurrence:
    """The singular vectors of the users' touched categories.

    They come from a randomised subspace iteration (Halko et al. 2011): the matrix is sparse, and
    both its sides may be long.

    user, category  (N,) of steps; category 0 is none
    """
    named = category > 0
    pairs = np.unique(user[named] * categories + category[named])
    users = int(user.max(initial=0)) + 1
    row, column = np.divmod(pairs, categories)
    row_of, column_of = torch.from_numpy(row), torch.from_numpy(column)
    rank = min(size, users, categories)
    generator = torch.Generator().manual_seed(seed)
    width = min(rank + OVERSAMPLING, users, categories)
    basis = torch.randn((categories, width), generator=generator)
    for _ in range(POWER_ITERATIONS):
        of_users = _gathered(row_of, column_of, basis, users)  # X B: (U, width)
        basis = torch.linalg.qr(_gathered(column_of, row_of, of_users, categories))[0]
    of_users = _gathered(row_of, column_of, basis, users)
    _, values, right = torch.linalg.svd(of_users, full_matrices=False)
    vectors, squares = np.zeros((categories, size)), np.zeros(size)
    vectors[:, :rank] = (basis @ right.T).numpy()[:, :rank]
    squares[:rank] = values.numpy()[:rank].astype(float) ** 2
    vectors[0] = 0.0
    share = np.bincount(column, minlength=categories) / max(users, 1)
    return CoOccurrence(vectors, squares, share)


def following(
    profiles: np.ndarray,
    labels: tuple[np.ndarray, np.ndarray],
    categories: int,
    ridge: float,
    damping: float,
) -> np.ndarray:
    """Targets of what windows' profiles were followed by, by ridge regression: (C, P) float32.

    Args:
        profiles: (B, P), of mean 0.
        labels: window and category of each label, (L,) both.
        categories: how many there are.
        ridge: lambda, in mean squares of the profiles' columns.
        damping: targets count relative to the rate of their labels to this power.
    """
    window, category = labels
    rate = np.bincount(category, minlength=categories) / max(len(profiles), 1)  # (C,)
    x = profiles.astype(np.float64)
    together = np.zeros((categories, x.shape[1]))
    np.add.at(together, category, x[window])
    together -= rate[:, None] * x.sum(0)
    square = x.T @ x
    held = max(ridge * np.trace(square) / len(square), 1e-9) * np.eye(len(square))
    target = np.linalg.solve(square + held, together.T).T
    return np.asarray(target / (rate[:, None] + POPULARITY_FLOOR) ** damping, np.float32)


def _gathered(to: torch.Tensor, of: torch.Tensor, values: torch.Tensor, rows: int) -> torch.Tensor:
    """The product of a sparse matrix of ones at (to, of) with ``values``, (rows, width)."""
    total = torch.zeros(rows, values.shape[1])
    for at in range(0, len(to), _CHUNK_ENTRIES):
        part = slice(at, at + _CHUNK_ENTRIES)
        total.index_add_(0, to[part], values[of[part]])
    return total
