"""The map from what the network says of a category to the log-odds that are stated.

A linear spline, which only rises: what is said is too sure at the top and too unsure at the bottom,
by other slopes in between. Its knots lie at the quantiles that Harrell (Regression Modeling
Strategies, 2001) gives for five of them, of the log-odds of what came true, so that every piece has
labels to learn from. Dimensions: N pairs, K = 5 knots.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

QUANTILES = (0.05, 0.275, 0.5, 0.725, 0.95)
KNOTS = len(QUANTILES)
PARAMETERS = KNOTS + 2
"""The slope below the first knot, above each knot, and what is added at the first."""
MAX_STEPS = 60
PRIOR_PRECISION = 30.0
"""Of the Gaussian round a map: the labels of a user come together, and say less than so many."""
MIN_SLOPE = 1e-3


def identity(maps: int) -> np.ndarray:
    """So many maps that change nothing, (maps, K + 2) float32."""
    unchanged = np.ones((maps, PARAMETERS), np.float32)
    unchanged[:, -1] = 0.0
    return unchanged


def knots_of(logits: np.ndarray) -> np.ndarray:
    """Where the knots lie, (K,) float32, ascending: ``logits`` (N,) are of what came true."""
    return np.quantile(logits, QUANTILES).astype(np.float32)


def calibrated(logits: np.ndarray, knots: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Stated log-odds of ``logits`` (R, C), each row by its map (R, K + 2): float32."""
    slope, shift = maps[:, :-1, None], maps[:, -1, None]
    above = logits - knots[0]
    stated: np.ndarray = above * slope[:, 0]
    stated += shift + knots[0]
    for number, knot in enumerate(knots):
        np.subtract(logits, knot, out=above)
        np.maximum(above, 0, out=above)
        above *= slope[:, number + 1] - slope[:, number]
        stated += above
    return stated


def fit_map(
    logits: np.ndarray, label: np.ndarray, knots: np.ndarray, around: np.ndarray
) -> np.ndarray:
    """The map of least binary cross-entropy over N pairs, (K + 2,) float32.

    Args:
        logits: (N,) of any real numbers.
        label: (N,) bool.
        knots: (K,) as ``knots_of`` gives them.
        around: (K + 2,) a map. A Gaussian round the logarithms of its slopes, and round what it
            adds, holds the result where there is little to learn from.
    """
    z, true = torch.from_numpy(logits).double(), torch.from_numpy(label)
    pieces = _pieces(z, knots.astype(float).tolist())  # (K + 1, N)
    mean = torch.from_numpy(around).double()
    mean = torch.cat((mean[:-1].clamp(min=MIN_SLOPE).log(), mean[-1:]))
    found = mean.clone().requires_grad_()
    search = torch.optim.LBFGS([found], max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        stated = found[:-1].exp() @ pieces + (found[-1] + float(knots[0]))
        held = PRIOR_PRECISION * (found - mean).square().sum() / 2
        off = softplus(stated).sum() - stated[true].sum() + held
        off.backward()  # type: ignore[no-untyped-call]
        return off

    search.step(loss)  # type: ignore[no-untyped-call]
    made = found.detach()
    return torch.cat((made[:-1].exp(), made[-1:])).numpy().astype(np.float32)


def _pieces(z: Tensor, knots: list[float]) -> Tensor:
    """How far z (N,) reaches into each piece of the spline, (K + 1, N); below 0 in the first."""
    first, last = z.clamp(max=knots[0]) - knots[0], z.clamp(min=knots[-1]) - knots[-1]
    return torch.stack((first, *(z.clamp(*ends) - ends[0] for ends in pairwise(knots)), last))
