"""The inner loops of MinHash, compiled by numba when they are first called.

Importing and compiling take two seconds or three, so that only who has many texts imports this. Nothing is kept of what
was compiled: numba would keep it as pickles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

C = TypeVar("C", bound=Callable[..., object])

_ONE, _TWO, _THREE, _FOUR, _FIVE = (
    np.uint32(prime) for prime in (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
)
"""The constants of xxh32."""
_SPACE = np.uint8(32)


def _compiled(function: C) -> C:
    """The function compiled when it is first called; while it runs, other threads run too."""
    return cast(C, njit(nogil=True)(function))


@_compiled
def hash_runs(
    data: NDArray[np.uint8], ends: NDArray[np.intp], width: int, least: int
) -> tuple[NDArray[np.uint32], NDArray[np.intp]]:
    """The xxh32 hashes of the runs of words of some texts, and how many each text has.

    Args:
        data: the texts, where each character is part of a word or a space, and each text ends with a space.
        ends: where each text ends.
        width: words of a run.
        least: a text with fewer words has no runs.
    """
    plain = np.empty(len(data), dtype=np.uint8)  # words of one text, with one space behind each
    starts = np.empty(len(data) // 2 + 2, dtype=np.int64)
    hashes = np.empty(len(data) // 2 + 1, dtype=np.uint32)
    counts = np.zeros(len(ends), dtype=np.int64)
    first = found = 0
    for text in range(len(ends)):
        size = words = 0
        inside = False
        for place in range(first, ends[text]):
            byte = data[place]
            if byte != _SPACE:
                if not inside:
                    starts[words] = size
                    words += 1
                    inside = True
                plain[size] = byte
                size += 1
            elif inside:
                plain[size] = _SPACE
                size += 1
                inside = False
        starts[words] = size
        first = ends[text]
        if words >= least:
            counts[text] = words - width + 1
            for word in range(words - width + 1):
                hashes[found] = _xxh32(plain, starts[word], starts[word + width] - 1 - starts[word])
                found += 1
    return hashes[:found], counts


@_compiled
def least_permuted(
    hashes: NDArray[np.uint32],
    ends: NDArray[np.intp],
    factors: NDArray[np.uint32],
    summands: NDArray[np.uint32],
) -> NDArray[np.uint32]:
    """A row for each text, a column for each permutation: the least of its permuted hashes.

    Args:
        hashes: of all texts.
        ends: where those of each text end.
    """
    out = np.empty((len(ends), len(factors)), dtype=np.uint32)
    first = 0
    for text in range(len(ends)):
        least = out[text]
        least[:] = np.uint32(0xFFFFFFFF)
        for place in range(first, ends[text]):
            own = hashes[place]
            for column in range(len(least)):
                value = np.uint32(np.uint32(own * factors[column]) + summands[column])
                least[column] = value if value < least[column] else least[column]
        first = ends[text]
    return out


@_compiled
def _xxh32(data: NDArray[np.uint8], start: int, length: int) -> np.uint32:
    end, at = start + length, start
    if length >= 16:
        lane1, lane2, lane3, lane4 = np.uint32(_ONE + _TWO), _TWO, np.uint32(0), np.uint32(-_ONE)
        while at + 16 <= end:
            lane1 = np.uint32(_turned(np.uint32(lane1 + _four(data, at) * _TWO), 13) * _ONE)
            lane2 = np.uint32(_turned(np.uint32(lane2 + _four(data, at + 4) * _TWO), 13) * _ONE)
            lane3 = np.uint32(_turned(np.uint32(lane3 + _four(data, at + 8) * _TWO), 13) * _ONE)
            lane4 = np.uint32(_turned(np.uint32(lane4 + _four(data, at + 12) * _TWO), 13) * _ONE)
            at += 16
        found = np.uint32(_turned(lane1, 1) + _turned(lane2, 7) + _turned(lane3, 12) + _turned(lane4, 18))
    else:
        found = _FIVE
    found = np.uint32(found + np.uint32(length))
    while at + 4 <= end:
        found = np.uint32(_turned(np.uint32(found + _four(data, at) * _THREE), 17) * _FOUR)
        at += 4
    while at < end:
        found = np.uint32(_turned(np.uint32(found + data[at] * _FIVE), 11) * _ONE)
        at += 1
    found = np.uint32((found ^ (found >> np.uint32(15))) * _TWO)
    found = np.uint32((found ^ (found >> np.uint32(13))) * _THREE)
    return np.uint32(found ^ (found >> np.uint32(16)))


@_compiled
def _four(data: NDArray[np.uint8], at: int) -> np.uint32:
    return np.uint32(
        np.uint32(data[at])
        | np.uint32(data[at + 1]) << np.uint32(8)
        | np.uint32(data[at + 2]) << np.uint32(16)
        | np.uint32(data[at + 3]) << np.uint32(24)
    )


@_compiled
def _turned(value: np.uint32, bits: int) -> np.uint32:
    return np.uint32((value << np.uint32(bits)) | (value >> np.uint32(32 - bits)))
