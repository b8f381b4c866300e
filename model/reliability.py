"""How far stated probabilities may be off, and the intervals that follow.

An interval is one of a group: of N pairs of user and category with like stated probability p, how
many come true. The count is beta-binomial: chance within the group, and a rate that lies around p,
in log-odds, as far as rates of groups did in the later slice of the log, which the network had not
seen. What a user's pairs have in common, and a curve of the wrong shape, both show there.

Dimensions: P pairs, G groups, B bins.
"""

from __future__ import annotations

import numpy as np

from model.beta_binomial import count_interval

GROUP_PAIRS = 100
BINS = 15
PRIOR_GROUPS = 10
"""What all groups together say of a bin's variance counts as much as so many of its own."""
SHARE = 0.9
"""Of the groups whose count lies inside of the interval."""
Cases = tuple[np.ndarray, np.ndarray]
"""Stated probabilities (P,) and whether each came true (P,)."""


def grouped(cases: Cases, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean probability, observed share) of groups of ``size`` pairs with like probabilities, (G,).

    The least likely pairs are left out where they fill no group.
    """
    p, true = cases
    order = np.argsort(p, kind="stable")[len(p) % size :]
    return p[order].reshape(-1, size).mean(1), true[order].reshape(-1, size).mean(1)


def fit_reliability(cases: Cases) -> np.ndarray:
    """(mean probability, standard deviation in log-odds, cases, hits) of bins, (B, 4) float32.

    A bin's variance is drawn to that of all groups, the more the fewer groups it has. Fewer cases
    than a group say nothing, and give no bin.
    """
    mean, share = grouped(cases, GROUP_PAIRS)
    if len(mean) == 0:
        return np.zeros((0, 4), np.float32)
    order = np.argsort(mean, kind="stable")
    common = _variance(mean, share)
    bins = []
    for part in np.array_split(order, min(BINS, len(order))):
        own = len(part) / (len(part) + PRIOR_GROUPS)
        spread = np.sqrt(own * _variance(mean[part], share[part]) + (1 - own) * common)
        hits = round(share[part].sum() * GROUP_PAIRS)
        bins.append((mean[part].mean(), spread, len(part) * GROUP_PAIRS, hits))
    made = np.array(bins, np.float32)
    return made[np.diff(made[:, 0], prepend=-1.0) > 0]


def _variance(mean: np.ndarray, share: np.ndarray) -> float:
    """Variance of the rates of G groups around their mean, beyond chance, in log-odds."""
    chance = mean * (1 - mean)
    beyond = (share - mean) ** 2 - chance / GROUP_PAIRS
    scale = chance**2 * (1 - 1 / GROUP_PAIRS)
    return float(max(beyond.sum(), 0.0) / max(scale.sum(), 1e-12))


def share_interval(
    probability: np.ndarray, reliability: np.ndarray, pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """The 90 % interval of the share of ``pairs`` that comes true, each as ``probability``.

    Without a reliability it is that of calibrated probabilities: chance alone.
    """
    p = np.clip(probability.astype(np.float64).ravel(), 1e-9, 1 - 1e-9)
    spread = np.zeros(len(p))
    if len(reliability):
        known = np.clip(reliability[:, 0].astype(np.float64), 1e-9, 1 - 1e-9)
        spread = np.interp(_log_odds(p), _log_odds(known), reliability[:, 1])
    low, high = count_interval(p, p * (1 - p) * spread**2, pairs, SHARE)
    shape = probability.shape
    return (low / pairs).reshape(shape), (high / pairs).reshape(shape)


def _log_odds(p: np.ndarray) -> np.ndarray:
    return np.asarray(np.log(p) - np.log1p(-p))
