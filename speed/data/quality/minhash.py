"""MinHash signatures of texts, equal to those of datasketch.

Of a text: its words without case and punctuation, hashes of their runs (shingles), the least value of those hashes
under each of some permutations (its signature), and hashes of bands of the signature. Texts that are alike share a
band. Many texts are hashed and signed by compiled loops over their bytes (`minhash_kernels`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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


def hashed(texts: Sequence[str], config: MinHashConfig, compiled: bool = False) -> Hashed:
    """The xxh32 hashes of the `shingles` of each text, in no order and some of them more than once.

    Args:
        compiled: by `minhash_kernels`, which is faster from the second call on. The hashes are the same.
    """
    import numpy as np
    from xxhash import xxh32_intdigest

    if compiled:
        from speed.data.quality.minhash_kernels import hash_runs

        least = max(config.short_words, config.word_shingle)
        hashes, runs = hash_runs(*_plain(texts), config.word_shingle, least)
    else:
        hashes, runs = np.empty(0, dtype=np.uint32), np.zeros(len(texts), dtype=np.intp)
    by_runs = runs > 0
    if by_runs.all():
        return Hashed(hashes, np.cumsum(runs))
    others = [shingles(texts[place], config) for place in np.flatnonzero(~by_runs).tolist()]
    values = [xxh32_intdigest(each.encode("utf-8", "surrogatepass")) for own in others for each in own]
    runs[~by_runs] = [len(own) for own in others]
    out = np.empty(runs.sum(), dtype=np.uint32)
    of_runs = np.repeat(by_runs, runs)
    out[of_runs], out[~of_runs] = hashes, values
    return Hashed(out, np.cumsum(runs))


def bands_of(texts: Hashed, config: MinHashConfig, compiled: bool = False) -> NDArray[np.uint32]:
    """A row for each text: hashes of the bands of its signature."""
    import numpy as np

    lowest = signatures(texts, config, compiled)
    out = np.empty((len(texts.ends), config.bands), dtype=np.uint32)
    for band in range(config.bands):
        mixed = np.zeros(len(texts.ends), dtype=np.uint64)
        for row in lowest[band * config.rows : (band + 1) * config.rows]:
            mixed += row
            mixed *= np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> 32
        out[:, band] = mixed
    return out


def _plain(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """The texts as bytes of words and spaces, each with a space at its end, and where each ends."""
    import numpy as np

    known = [
        text.encode() if text.isascii() else " ".join(words_of(text)).encode("utf-8", "surrogatepass") for text in texts
    ]
    data = b" ".join([*known, b""]).translate(_PLAIN)
    return np.frombuffer(data, dtype=np.uint8), np.cumsum([len(text) + 1 for text in known], dtype=np.intp)


def signatures(texts: Hashed, config: MinHashConfig, compiled: bool = False) -> NDArray[np.uint32]:
    """A row for each permutation that a band has: the least of each text's permuted hashes.

    The permutations are datasketch's (`affine32`): hashes finished as MurmurHash3 does, times an odd number, plus a
    number, modulo 2^32.
    """
    import numpy as np

    count = config.bands * config.rows
    factors, summands = (drawn[:count] for drawn in _permutations(config.permutations, config.seed))
    mixed = _finished(texts.hashes)
    if compiled:
        from speed.data.quality.minhash_kernels import least_permuted

        return least_permuted(mixed, texts.ends, factors, summands).T
    out: NDArray[np.uint32] = np.empty((count, len(texts.ends)), dtype=np.uint32)
    starts = np.concatenate(([0], texts.ends[:-1]))
    for row in range(count):
        out[row] = np.minimum.reduceat(mixed * factors[row] + summands[row], starts)
    return out


def _finished(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Hashes whose bits each depend on all: the last steps of MurmurHash3."""
    import numpy as np

    out = hashes ^ hashes >> np.uint32(16)
    out *= np.uint32(0x85EBCA6B)
    out ^= out >> np.uint32(13)
    out *= np.uint32(0xC2B2AE35)
    finished: NDArray[np.uint32] = out ^ out >> np.uint32(16)
    return finished


def _permutations(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors and summands, as datasketch draws them."""
    import numpy as np

    drawn = np.random.RandomState(seed)
    factors = drawn.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return factors, drawn.randint(0, 1 << 32, count, dtype=np.uint32)
