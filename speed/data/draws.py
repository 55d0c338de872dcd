"""Random draws that depend on the seed and a path only.

A path names what is drawn and for which row: `generator(seed, "synthesis", row, attempt)`. So the draws of a row do not
depend on the number of workers, their order, interruptions or PYTHONHASHSEED. Only `Random.random` is used here: it is
the only method whose sequence Python promises to keep in later versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from random import Random
from typing import TypeVar

T = TypeVar("T")


def generator(seed: int, *path: str | int) -> Random:
    """Generator of one path, seeded with blake2b of the canonical JSON `[seed, *path]` (so 1 and "1" differ)."""
    parts = [encode_basestring_ascii(part) if isinstance(part, str) else str(part) for part in (seed, *path)]
    name = f"[{','.join(parts)}]".encode("ascii")  # the same text as `json.dumps`, in a third of the time
    return Random(int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big"))


def weighted_choice(rng: Random, values: Sequence[T], weights: Sequence[float] = ()) -> T:
    """One of `values`, with probability proportional to its weight, or uniform without weights. Takes one draw."""
    if not weights:
        return values[int(rng.random() * len(values))]
    left = rng.random() * sum(weights)
    for value, weight in zip(values, weights, strict=True):
        left -= weight
        if left < 0:
            return value
    return next(value for value, weight in zip(reversed(values), reversed(weights), strict=True) if weight > 0)


def permutation(rng: Random, count: int) -> list[int]:
    """Uniform permutation of 0..count-1 (Fisher-Yates). Takes count-1 draws."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def shuffled_order(count: int, seed: int, *path: str | int) -> list[int]:
    """Permutation of 0..count-1 that belongs to a path."""
    return permutation(generator(seed, *path), count)
