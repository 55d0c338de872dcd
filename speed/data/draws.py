"""Counter-based randomness: a draw is a function of (seed, path) and of nothing else.

A path names what is drawn and for which row: `generator(seed, "synthesis", row, attempt)`. So the draws of row i do not
depend on how many workers there are, in which order they come, what was interrupted, or PYTHONHASHSEED. Only
`Random.random` is used below: it is the one method whose sequence Python promises to keep from version to version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from json.encoder import encode_basestring_ascii
from random import Random
from typing import TypeVar

T = TypeVar("T")


def generator(seed: int, *path: str | int) -> Random:
    """An own generator for one path, seeded by blake2b of the canonical JSON `[seed, *path]` (so 1 and "1" differ)."""
    parts = [encode_basestring_ascii(part) if isinstance(part, str) else str(part) for part in (seed, *path)]
    name = f"[{','.join(parts)}]".encode("ascii")  # as `json` writes it, in a third of the time
    return Random(int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "big"))


def weighted_choice(rng: Random, values: Sequence[T], weights: Sequence[float] = ()) -> T:
    """One of `values`, with probability proportional to its weight; uniform without weights. Takes one draw."""
    if not weights:
        return values[int(rng.random() * len(values))]
    left = rng.random() * sum(weights)
    for value, weight in zip(values, weights, strict=True):
        left -= weight
        if left < 0:
            return value
    return next(value for value, weight in zip(reversed(values), reversed(weights), strict=True) if weight > 0)


def permutation(rng: Random, count: int) -> list[int]:
    """A uniform permutation of 0..count-1 (Fisher-Yates; takes count-1 draws)."""
    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


def shuffled_order(count: int, seed: int, *path: str | int) -> list[int]:
    """The permutation of 0..count-1 that belongs to a path."""
    return permutation(generator(seed, *path), count)
