"""Runs a function of rows in blocks of fixed, padded sizes.

A row's result must not depend on who stands beside it or where a batch was cut. Matrix products
of a few fixed heights keep that: each row is summed in the same order in all of them
(tests/unit/test_blocks.py holds it against other cuts).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

BLOCK_SIZES = (16, 32, 64, 128, 192, 256, 384, 512, 768, 1024)


def padded_size(count: int) -> int:
    """The smallest block that holds ``count`` rows, the largest block above that."""
    return next((size for size in BLOCK_SIZES if size >= count), BLOCK_SIZES[-1])


def pad(array: np.ndarray, size: int) -> torch.Tensor:
    """``array`` (B, ...) with zero rows up to ``size``, as a tensor."""
    if len(array) == size:
        return torch.from_numpy(np.ascontiguousarray(array))
    padded = np.zeros((size, *array.shape[1:]), dtype=array.dtype)
    padded[: len(array)] = array
    return torch.from_numpy(padded)


@torch.inference_mode()
def in_blocks(function: Callable[..., torch.Tensor], *arrays: np.ndarray) -> np.ndarray:
    """``function`` of arrays (B, ...), block by block: its (B, ...) result as an array."""
    count, most = len(arrays[0]), BLOCK_SIZES[-1]
    first = function(*[pad(array[:most], padded_size(count)) for array in arrays]).numpy()
    if count <= most:
        return first[:count].copy()
    result = np.empty((count, *first.shape[1:]), first.dtype)
    result[:most] = first
    for start in range(most, count, most):
        part = [array[start : start + most] for array in arrays]
        size = padded_size(len(part[0]))
        padded = function(*[pad(array, size) for array in part]).numpy()
        result[start : start + most] = padded[: len(part[0])]
    return result
