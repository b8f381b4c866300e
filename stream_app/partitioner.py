"""Kafka's default partitioner (murmur2 of the key), for many keys at once.

Source: org.apache.kafka.common.utils.Utils.murmur2 and BuiltInPartitioner.partitionForKey.
Producers built on librdkafka use another hash unless told `partitioner=murmur2_random`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from kafka.partitioner import murmur2

_SEED = 0x9747B28C
_M = np.uint32(0x5BD1E995)
_POSITIVE = np.uint32(0x7FFFFFFF)
_FEW_BYTES = 200
"""Keys of fewer bytes in all are hashed faster one by one."""


def partition_for(key: bytes, partitions: int) -> int:
    """The partition, 0 to `partitions - 1`, that a key belongs to."""
    return int(partitions_for([key], partitions)[0])


def partitions_for(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int64]:
    """The partition of each key; shape (N,).

    Keys of one length are hashed together, so the cost per key is small when the lengths are few.
    """
    if sum(map(len, keys)) < _FEW_BYTES:
        few = [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]
        return np.array(few, np.int64)
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))  # (N,)
    hashes = np.empty(len(keys), np.uint32)
    for length in np.unique(lengths).tolist():
        where = np.flatnonzero(lengths == length)
        same = keys if len(where) == len(keys) else [keys[i] for i in where.tolist()]
        hashes[where] = _murmur2(b"".join(same), length)
    return ((hashes & _POSITIVE) % np.uint32(partitions)).astype(np.int64)


def _murmur2(joined: bytes, length: int) -> npt.NDArray[np.uint32]:
    """Hash N keys of `length` bytes each that stand one after the other; shape (N,)."""
    start = np.uint32(_SEED ^ (length & 0xFFFFFFFF))
    if length == 0:
        return _finish(np.array([start]))  # equal keys: one value serves all
    octets = np.frombuffer(joined, np.uint8).reshape(-1, length)  # (N, length)
    blocks = length // 4
    words = np.ascontiguousarray(octets[:, : 4 * blocks]).view("<u4").astype(np.uint32)
    words = words.T * _M  # (blocks, N)
    words ^= words >> np.uint32(24)
    words *= _M
    h = np.full(len(octets), start, np.uint32)
    for word in words:
        h *= _M
        h ^= word
    if length % 4:
        tail = octets[:, 4 * blocks :].astype(np.uint32)  # (N, 1 to 3)
        for i in range(length % 4):
            h ^= tail[:, i] << np.uint32(8 * i)
        h *= _M
    return _finish(h)


def _finish(h: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    h ^= h >> np.uint32(13)
    h *= _M
    h ^= h >> np.uint32(15)
    return h
