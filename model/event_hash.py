"""The hash of an event id, by which a row recognises an event that comes again."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

HASH_BYTES = 8


def event_hash(event_ids: Sequence[str]) -> np.ndarray:
    """64-bit BLAKE2b hashes of event ids, (N,) uint64, never 0 (0 is a row's empty place).

    Equal in every process and of every batch; about 0.35 us an id.
    """
    joined = b"".join(
        [
            blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
            for event_id in event_ids
        ]
    )
    hashes = np.frombuffer(joined, dtype="<u8").copy()
    hashes[hashes == 0] = 1
    return hashes
