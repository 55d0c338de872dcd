"""MinHash signatures of texts, computed in NumPy over many texts at once, equal to those of datasketch.

Of a text: its words without case and punctuation, hashes of their runs (shingles), the least value of those hashes
under each of some permutations (its signature), and hashes of bands of the signature. Texts that are alike share a
band. A shingle is never a Python object: runs of words are slices of one buffer of bytes, hashed together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field, model_validator

from speed.core.spec import Spec
from speed.data.records import Kind

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PLAIN = bytes(
    ord(chr(byte).lower()) if byte < 128 and (chr(byte).isalnum() or byte == ord("_")) else byte if byte > 127 else 32
    for byte in range(256)
)
"""Byte by byte: a character of a word in lower case, a space for what is in no word. Words in UTF-8 stay."""
_PRIMES = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1)
"""The constants of xxh32."""
_FEW = 16
"""Fewer shingles of one length are hashed one by one."""
_BLOCK = 8192
"""Shingles whose permuted values are held at once: they stay in the nearest cache."""


class MinHashConfig(Spec):
    """How similar two examples must be to count as duplicates, and how such pairs are searched for."""

    threshold: float = Field(0.7, gt=0, le=1)
    """Least Jaccard similarity between the shingles of duplicates (ours; the paper gives none)."""
    permutations: int = Field(128, ge=16, le=1024)
    bands: int = Field(25, ge=1)
    """25 bands of 5 rows notice 99 % of the pairs at similarity 0.7; datasketch's default, 14 of 9, notices 44 %."""
    rows: int = Field(5, ge=1)
    word_shingle: int = Field(5, ge=1)
    """Words per shingle."""
    character_shingle: int = Field(5, ge=1)
    """Characters per shingle, for texts too short for word shingles."""
    short_words: int = Field(10, ge=1)
    """A text with fewer words is too short for word shingles."""
    with_positive: tuple[Kind, ...] = (Kind.STS, Kind.SHORT_SHORT)
    """Kinds that are compared by query and positive, since both are short; the others by the query alone."""
    seed: int = 1
    """Seed of the permutations."""

    @model_validator(mode="after")
    def _bands_fit(self) -> MinHashConfig:
        if self.bands * self.rows > self.permutations:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more than {self.permutations} permutations")
        return self

    def detection(self, similarity: float) -> float:
        """Probability that a pair of this similarity is noticed: 1 - (1 - s^rows)^bands."""
        return 1 - (1 - similarity**self.rows) ** self.bands


class Hashed(NamedTuple):
    """Hashes of the shingles of some texts."""

    hashes: NDArray[np.uint32]
    ends: NDArray[np.intp]
    """Where those of each text end."""

    def of(self, place: int) -> NDArray[np.uint32]:
        """Those of one text."""
        return self.hashes[self.ends[place - 1] if place else 0 : self.ends[place]]

    def as_sets(self) -> Hashed:
        """The same, those of each text sorted and once."""
        import numpy as np

        keys = np.repeat(np.arange(len(self.ends), dtype=np.uint64) << 32, np.diff(self.ends, prepend=0))
        keys |= self.hashes
        keys.sort()
        keys = keys[np.concatenate(([True], keys[1:] != keys[:-1]))[: len(keys)]]
        return Hashed(keys.astype(np.uint32), np.cumsum(np.bincount(keys >> 32, minlength=len(self.ends))))


def words_of(text: str) -> list[str]:
    """Words of a text without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def shingles(text: str, config: MinHashConfig) -> set[str]:
    """Overlapping runs of words, or of characters if there are few words; without case and punctuation, never empty."""
    words = words_of(text)
    if len(words) >= max(config.short_words, config.word_shingle):
        width = config.word_shingle
        return {" ".join(words[start : start + width]) for start in range(len(words) - width + 1)}
    plain, width = " ".join(words) or text.casefold(), config.character_shingle
    return {plain[start : start + width] for start in range(max(len(plain) - width + 1, 1))}


def hashed(texts: Sequence[str], config: MinHashConfig) -> Hashed:
    """The xxh32 hashes of the `shingles` of each text, in no order and some of them more than once."""
    import numpy as np
    from xxhash import xxh32_intdigest

    plain = _plain_words(texts)
    width = config.word_shingle
    long = plain.counts >= max(config.short_words, width)
    runs = np.where(long, plain.counts - width + 1, 0)
    first = _ranges(np.cumsum(plain.counts) - plain.counts, runs)
    hashes = _xxh32(plain.text, plain.starts[first], plain.ends[first + width - 1] - plain.starts[first])
    if long.all():
        return Hashed(hashes, np.cumsum(runs))
    few = [shingles(texts[place], config) for place in np.flatnonzero(~long).tolist()]
    values = [xxh32_intdigest(each.encode("utf-8", "surrogatepass")) for own in few for each in own]
    runs[~long] = [len(own) for own in few]
    out = np.empty(runs.sum(), dtype=np.uint32)
    of_words = np.repeat(long, runs)
    out[of_words], out[~of_words] = hashes, values
    return Hashed(out, np.cumsum(runs))


def bands_of(texts: Hashed, config: MinHashConfig) -> NDArray[np.uint32]:
    """A row for each text: hashes of the bands of its signature."""
    import numpy as np

    lowest = signatures(texts, config)
    out = np.empty((len(texts.ends), config.bands), dtype=np.uint32)
    for band in range(config.bands):
        mixed = np.zeros(len(texts.ends), dtype=np.uint64)
        for row in lowest[band * config.rows : (band + 1) * config.rows]:
            mixed += row
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> 32
        out[:, band] = mixed
    return out


class _Words(NamedTuple):
    """The words of some texts."""

    text: bytes
    """All of them, each with a space behind it."""
    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    counts: NDArray[np.intp]
    """How many each text has."""


def _plain_words(texts: Sequence[str]) -> _Words:
    import numpy as np

    known = [
        text.encode() if text.isascii() else " ".join(words_of(text)).encode("utf-8", "surrogatepass") for text in texts
    ]
    data = np.frombuffer(b" %b " % b" ".join(known).translate(_PLAIN), dtype=np.uint8)
    inside = data != ord(" ")
    starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
    ends = np.flatnonzero(inside[:-1] & ~inside[1:]) + 1
    upto = np.searchsorted(starts, np.cumsum([len(text) + 1 for text in known]), side="right")
    inside[1:] |= inside[:-1]  # and the space behind each word
    behind = np.cumsum(ends - starts + 1)
    return _Words(data[inside].tobytes(), behind - (ends - starts + 1), behind - 1, np.diff(upto, prepend=0))


def _ranges(starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.intp]:
    """The numbers of several ranges, one range after the other."""
    import numpy as np

    numbers: NDArray[np.intp] = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return numbers


def _xxh32(data: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> NDArray[np.uint32]:
    """xxh32 of slices, those of one length at a time."""
    import numpy as np
    from xxhash import xxh32_intdigest

    padded = data + bytes(3)
    out = np.empty(len(starts), dtype=np.uint32)
    order = np.argsort(lengths.astype(np.min_scalar_type(lengths.max(initial=0))), kind="stable")
    ordered = lengths[order]
    bounds = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(order)]
    for first, behind in pairwise(bounds):
        for begin in range(first, behind, _BLOCK):
            group = order[begin : min(begin + _BLOCK, behind)]
            length, at = int(ordered[begin]), starts[group]
            if len(group) < _FEW:
                out[group] = [xxh32_intdigest(data[start : start + length]) for start in at.tolist()]
            else:
                size = length + -length % 4
                slices = np.ndarray(len(padded) - size + 1, dtype=f"V{size}", buffer=padded, strides=(1,))[at]
                out[group] = _xxh32_of_one_length(slices.view("<u4").reshape(len(at), -1).T.copy(), length)
    return out


def _xxh32_of_one_length(fours: NDArray[np.uint32], length: int) -> NDArray[np.uint32]:
    """xxh32 of some slices.

    Args:
        fours: a row for every four of their bytes, as one number; a column for each slice.
        length: bytes of each slice.
    """
    import numpy as np

    one, two, three, four, five = (np.uint32(prime) for prime in _PRIMES)
    stripes = length // 16
    if stripes:
        begun = np.array([_PRIMES[0] + _PRIMES[1], _PRIMES[1], 0, -_PRIMES[0]], dtype=np.int64).astype(np.uint32)
        lanes = np.repeat(begun[:, None], fours.shape[1], axis=1)
        for stripe in range(stripes):
            lanes += fours[4 * stripe : 4 * stripe + 4] * two
            lanes = _turned(lanes, 13)
            lanes *= one
        found: NDArray[np.uint32] = _turned(lanes, np.array([[1], [7], [12], [18]], dtype=np.uint32)).sum(
            axis=0, dtype=np.uint32
        )
    else:
        found = np.full(fours.shape[1], five, dtype=np.uint32)
    np.add(found, np.uint32(length), out=found)
    for row in range(4 * stripes, length // 4):
        found = _turned(found + fours[row] * three, 17) * four
    for byte in range(length % 4):
        found = _turned(found + (fours[-1] >> np.uint32(8 * byte) & np.uint32(255)) * five, 11) * one
    return _finished(found, (15, 13, 16), (two, three))


def _turned(values: NDArray[np.uint32], bits: int | NDArray[np.uint32]) -> NDArray[np.uint32]:
    import numpy as np

    left: NDArray[np.uint32] = np.asarray(bits, dtype=np.uint32)
    return values << left | values >> (np.uint32(32) - left)


def _finished(
    values: NDArray[np.uint32], shifts: tuple[int, int, int], factors: tuple[np.uint32, np.uint32]
) -> NDArray[np.uint32]:
    """Values whose bits each depend on all: the last steps of xxh32, and of MurmurHash3."""
    import numpy as np

    out: NDArray[np.uint32] = values.copy()
    for shift, factor in zip(shifts, (*factors, np.uint32(1)), strict=True):
        out ^= out >> np.uint32(shift)
        out *= factor
    return out


def signatures(texts: Hashed, config: MinHashConfig) -> NDArray[np.uint32]:
    """A row for each permutation that a band has: the least of each text's permuted hashes.

    The permutations are datasketch's (`affine32`): hashes finished as MurmurHash3 does, times an odd number, plus a
    number, modulo 2^32.
    """
    import numpy as np

    factors, summands = _permutations(config.permutations, config.seed)
    mixed = _finished(texts.hashes, (16, 13, 16), (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)))
    starts = np.concatenate(([0], texts.ends[:-1]))
    out = np.empty((config.bands * config.rows, len(starts)), dtype=np.uint32)
    first = 0
    while first < len(starts):
        behind = max(first + 1, int(np.searchsorted(texts.ends, starts[first] + _BLOCK, side="right")))
        own, bounds = mixed[starts[first] : texts.ends[behind - 1]], starts[first:behind] - starts[first]
        permuted = np.empty((config.rows, len(own)), dtype=np.uint32)
        for band in range(0, len(out), config.rows):
            np.multiply(own, factors[band : band + config.rows, None], out=permuted)
            permuted += summands[band : band + config.rows, None]
            np.minimum.reduceat(permuted, bounds, axis=1, out=out[band : band + config.rows, first:behind])
        first = behind
    return out


def _permutations(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands, as datasketch draws them."""
    import numpy as np

    drawn = np.random.RandomState(seed)
    factors = drawn.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, drawn.randint(0, 1 << 32, count, dtype=np.uint32)
