"""Near duplicates by MinHash and LSH (the paper's last step; Table 6: 20 % of 1.15 M examples fall).

An example is dropped when it is near an earlier one that was kept, within its kind. So the first of a group stays, the
verdict on row i depends on rows before i alone, and data sizes nest after deduplication as they did before. What is
kept is a function of the rows in their order, however they were built; another order would keep another of a group.
Candidates share a band of datasketch's MinHash and are always checked by the exact Jaccard similarity of their
shingles: the threshold means what it says, and bands decide only what is noticed (`MinHashConfig.detection`).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from pydantic import Field, model_validator

from speed.core.spec import Spec
from speed.data.records import Example, Kind

_CHUNK = 512


class MinHashConfig(Spec):
    """How near is too near."""

    threshold: float = Field(0.7, gt=0, le=1)
    """Least exact Jaccard similarity of two sets of shingles that counts as a duplicate (ours: the paper is silent)."""
    permutations: int = Field(128, ge=16, le=1024)
    bands: int = Field(25, ge=1)
    """25 bands of 5 rows find 99 % of the pairs at similarity 0.7; datasketch's own choice, 14 of 9, finds 44 %."""
    rows: int = Field(5, ge=1)
    word_shingle: int = Field(5, ge=1)
    """Words of a shingle."""
    character_shingle: int = Field(5, ge=1)
    """Characters of a shingle, of texts too short for word shingles."""
    short_words: int = Field(10, ge=1)
    """A text of fewer words is too short for word shingles."""
    with_positive: tuple[Kind, ...] = (Kind.STS, Kind.SHORT_SHORT)
    """Kinds compared by query and positive together, since both are short; the others by the query alone."""
    seed: int = 1
    """Of the permutations."""

    @model_validator(mode="after")
    def _bands_fit(self) -> MinHashConfig:
        if self.bands * self.rows > self.permutations:
            raise ValueError(f"{self.bands} bands of {self.rows} rows need more than {self.permutations} permutations")
        return self

    def detection(self, similarity: float) -> float:
        """Chance that a pair of this similarity is noticed: 1 - (1 - s^rows)^bands, the S-curve of MinHash."""
        return 1 - (1 - similarity**self.rows) ** self.bands


def compared_text(example: Example, config: MinHashConfig) -> str:
    """The text that decides whether an example is a duplicate."""
    return f"{example.query}\n{example.positive}" if example.kind in config.with_positive else example.query


def words_of(text: str) -> list[str]:
    """The words of a text, without case and punctuation."""
    return re.findall(r"\w+", text.casefold())


def shingles(text: str, config: MinHashConfig) -> set[str]:
    """Overlapping runs of words, or of characters where words are few, without case and punctuation; never empty."""
    words = words_of(text)
    if len(words) >= max(config.short_words, config.word_shingle):
        width = config.word_shingle
        return {" ".join(words[start : start + width]) for start in range(len(words) - width + 1)}
    plain, width = " ".join(words) or text.casefold(), config.character_shingle
    return {plain[start : start + width] for start in range(max(len(plain) - width + 1, 1))}


class Shingled(NamedTuple):
    """A text as it is compared."""

    hashes: array[int]
    """Of its shingles: sorted, each once."""
    bands: list[int]


def shingled(texts: Sequence[tuple[str, int]], config: MinHashConfig) -> list[Shingled]:
    """Texts with the number of the space in which each is compared: those of two spaces share no band."""
    from datasketch import MinHash

    hashed = [_hashes(shingles(text, config)) for text, _ in texts]
    signatures = MinHash.generator(
        hashed, num_perm=config.permutations, seed=config.seed, hashfunc=_itself, scheme="affine32"
    )
    return [
        Shingled(hashes, _bands(signature.hashvalues.tobytes(), space, config))
        for (_, space), hashes, signature in zip(texts, hashed, signatures, strict=True)
    ]


def duplicates(examples: Iterable[Example], config: MinHashConfig) -> Iterator[tuple[int, int | None]]:
    """For each example its index and that of the kept example it duplicates, or None when it is kept itself.

    Of several kept examples it is near to, the first is named. Memory: bands and shingle hashes of what is kept, a KB
    and 4 bytes a word compared.
    """
    kept, indexes = Kept(config), array("Q")
    spaces = {kind: place for place, kind in enumerate(Kind)}
    numbered = enumerate(examples)
    while chunk := list(islice(numbered, _CHUNK)):
        texts = [(compared_text(example, config), spaces[example.kind]) for _, example in chunk]
        for (index, _), text in zip(chunk, shingled(texts, config), strict=True):
            first = next(kept.near(text), None)
            if first is None:
                kept.add(text)
                indexes.append(index)
            yield index, None if first is None else indexes[first]


class Kept:
    """Texts that were kept, numbered from 0: their bands and their shingles.

    A dict for each band, with a set in each place, takes 8 KB a text. Here all stands in a few flat arrays: a table
    of open addressing leads from a band to the last entry that has it, and from there to those before it; entry e is
    one of the bands of text e // bands.
    """

    def __init__(self, config: MinHashConfig) -> None:
        self._bands, self._threshold = config.bands, config.threshold
        self._hashes, self._ends = array("I"), array("Q", [0])
        self._places = array("Q", bytes(8 * 1024))
        self._last = array("I", bytes(4 * 1024))
        """By place, 1 + the last entry of its band; 0 where the place is free."""
        self._before = array("I")
        """By entry, 1 + the one before it with the same band; 0 for the first."""
        self._taken = 0
        """Places."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def near(self, text: Shingled) -> Iterator[int]:
        """Those that share a band with a text and are near it, in order."""
        own = set(text.hashes)
        for number in self._candidates(text.bands):
            if _jaccard(own, self._hashes[self._ends[number] : self._ends[number + 1]]) >= self._threshold:
                yield number

    def add(self, text: Shingled) -> None:
        """One more."""
        self._hashes.extend(text.hashes)
        self._ends.append(len(self._hashes))
        if 3 * (self._taken + len(text.bands)) > 2 * len(self._places):
            self._grow()
        for band in text.bands:
            place = self._place(band)
            self._taken += not self._last[place]
            self._places[place] = band
            self._before.append(self._last[place])
            self._last[place] = len(self._before)

    def _candidates(self, bands: Sequence[int]) -> list[int]:
        found = set()
        for band in bands:
            entry = self._last[self._place(band)]
            while entry:
                found.add((entry - 1) // self._bands)
                entry = self._before[entry - 1]
        return sorted(found)

    def _place(self, band: int) -> int:
        """Where a band stands, or would stand."""
        places, last, mask = self._places, self._last, len(self._places) - 1
        place = band & mask
        while last[place] and places[place] != band:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        places, last = self._places, self._last
        self._places, self._last = array("Q", bytes(16 * len(places))), array("I", bytes(8 * len(last)))
        for band, entry in zip(places, last, strict=True):
            if entry:
                place = self._place(band)
                self._places[place], self._last[place] = band, entry


def _bands(signature: bytes, space: int, config: MinHashConfig) -> list[int]:
    """64-bit hashes of the bands of a signature of 32-bit values; the same for texts of one space alone."""
    from xxhash import xxh64_intdigest

    width, first = 4 * config.rows, config.bands * space
    return [xxh64_intdigest(signature[band * width : (band + 1) * width], first + band) for band in range(config.bands)]


def _hashes(texts: Iterable[str]) -> array[int]:
    """32-bit hashes of shingles; the same in every process."""
    from xxhash import xxh32_intdigest

    return array("I", sorted({xxh32_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts}))


def _itself(value: int) -> int:
    return value


def _jaccard(left: set[int], right: array[int]) -> float:
    common = len(left.intersection(right))
    return common / (len(left) + len(right) - common)
