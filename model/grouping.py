"""Groups of categories that the same users touch, as a roll-up where a log has no taxonomy.

Users by categories, counts damped and weighed by rarity, in a few dimensions (latent semantic
analysis, Deerwester et al. 1990), then spherical k-means. Dimensions: U users, C categories.
"""

from __future__ import annotations

import numpy as np

GROUPS = 64
LEARNED_GROUPS = 12
"""The others are shared, by index, by categories that were never seen."""
DIMENSIONS = 16
MAX_CELLS = 20_000_000
"""Of users by categories; above it a sample of the users is taken."""
POWER_ITERATIONS = 6
KMEANS_ITERATIONS = 25


def category_groups(
    user: np.ndarray, category: np.ndarray, categories: int, seed: int = 0
) -> np.ndarray:
    """The group of each category, (C,) int64 below ``GROUPS``.

    user, category  (N,) who touched what; category 0 is none
    """
    random = np.random.default_rng(seed)
    named = category > 0
    _, user = np.unique(user[named], return_inverse=True)
    category = category[named]
    unseen = LEARNED_GROUPS + np.arange(categories) % (GROUPS - LEARNED_GROUPS)
    if len(category) == 0:
        return unseen
    users = int(user.max()) + 1
    most = max(MAX_CELLS // categories, 1)
    if users > most:
        place = np.full(users, -1)
        place[random.permutation(users)[:most]] = np.arange(most)
        kept = place[user] >= 0
        user, category, users = place[user[kept]], category[kept], most
    touches = np.bincount(category, minlength=categories).astype(np.float64)
    vectors = _vectors(user, category, users, categories, random)
    group = _nearest(vectors, _centres(vectors, touches, random))
    return np.where(touches > 0, group, unseen)


def _vectors(
    user: np.ndarray, category: np.ndarray, users: int, categories: int, random: np.random.Generator
) -> np.ndarray:
    """A unit vector for each category, (C, 16) float32; zero for one that nobody touched."""
    x = np.zeros((users, categories), np.float32)
    np.add.at(x, (user, category), 1)
    x = np.log1p(x)
    x *= np.log((1 + users) / (1 + (x > 0).sum(0)))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    y = x.T @ random.normal(size=(users, DIMENSIONS + 10)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        y, _ = np.linalg.qr(y)
        y = x.T @ (x @ y)
    y, _ = np.linalg.qr(y)  # (C, D + 10)
    _, strength, axes = np.linalg.svd(x @ y, full_matrices=False)
    vectors = y @ axes.T[:, :DIMENSIONS] * strength[:DIMENSIONS]
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9))


def _centres(vectors: np.ndarray, touches: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Centres of spherical k-means, categories weighed by the root of their touches."""
    seen = np.flatnonzero(touches)
    count = min(LEARNED_GROUPS, len(seen))
    share = touches[seen] / touches[seen].sum()
    centres = vectors[random.choice(seen, count, replace=False, p=share)].copy()
    weighed = vectors * np.sqrt(touches)[:, None]
    for _ in range(KMEANS_ITERATIONS):
        group = _nearest(vectors, centres)
        centres = np.zeros_like(centres)
        np.add.at(centres, group[seen], weighed[seen].astype(centres.dtype))
        length = np.linalg.norm(centres, axis=1, keepdims=True)
        centres /= np.maximum(length, 1e-9)
        empty = np.flatnonzero(length[:, 0] < 1e-9)
        centres[empty] = vectors[random.choice(seen, len(empty))]
    return centres


def _nearest(vectors: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.asarray((vectors @ centres.T).argmax(1))
