"""The beta-binomial distribution: how many of a group come true when its rate is uncertain.

Dimensions: P groups, N their size.
"""

from __future__ import annotations

import numpy as np
import torch

MIN_MEAN = 1e-9
MIN_CORRELATION = 1e-6
"""Below it the distribution is the binomial one, to the digits of an interval."""
MAX_CORRELATION = 0.5
MAX_CELLS = 1_000_000
"""Probabilities that are held at a time."""


def count_interval(
    mean: np.ndarray, correlation: np.ndarray, size: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most of the likeliest counts that together have ``share`` of the chance.

    mean         (P,) expected rate of each group
    correlation  (P,) of two members of a group: the variance of its rate over mean * (1 - mean)
    size         N, members of each group
    """
    low, high = np.empty(mean.shape, np.int64), np.empty(mean.shape, np.int64)
    together = max(MAX_CELLS // (size + 1), 1)
    for at in range(0, len(mean), together):
        part = slice(at, at + together)
        chance = chances(mean[part], correlation[part], size)  # (P, N + 1)
        order = np.argsort(-chance, axis=1, kind="stable")
        taken = np.cumsum(np.take_along_axis(chance, order, 1), 1)
        last = np.minimum((taken < share).sum(1), size)[:, None]
        low[part] = np.take_along_axis(np.minimum.accumulate(order, 1), last, 1)[:, 0]
        high[part] = np.take_along_axis(np.maximum.accumulate(order, 1), last, 1)[:, 0]
    return low, high


def chances(mean: np.ndarray, correlation: np.ndarray, size: int) -> np.ndarray:
    """The chance of each count from 0 to ``size``, (P, N + 1) float64."""
    rate = np.clip(mean.astype(np.float64), MIN_MEAN, 1 - MIN_MEAN)
    strength = 1 / np.clip(correlation.astype(np.float64), MIN_CORRELATION, MAX_CORRELATION) - 1
    a = torch.from_numpy(rate * strength)[:, None]
    b = torch.from_numpy((1 - rate) * strength)[:, None]
    count = torch.arange(size + 1, dtype=torch.float64)
    ways = -torch.lgamma(count + 1) - torch.lgamma(size - count + 1)
    parts = torch.lgamma(count + a) + torch.lgamma(size - count + b)
    # what does not depend on the count is the same for a row, and the softmax divides it out
    return np.asarray(torch.softmax(ways + parts, 1).numpy())
