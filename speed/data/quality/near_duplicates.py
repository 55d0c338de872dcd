"""Find near duplicates by MinHash and LSH, the paper's last step (Table 6: 20 % of 1.15 M examples are dropped).

An example is dropped if it is near an earlier example of its kind that was kept. So the first of a group stays, and the
verdict on a row depends only on the rows before it: the examples kept of a smaller pool are the first ones of a larger
pool. In another order, another example of a group would be kept.

Pairs that share a band of datasketch's MinHash are checked by the exact Jaccard similarity of their shingles. So the
threshold is exact; the bands only decide which pairs are noticed (`MinHashConfig.detection`).
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


def compared_text(example: Example, config: MinHashConfig) -> str:
    """Text by which an example is compared."""
    return f"{example.query}\n{example.positive}" if example.kind in config.with_positive else example.query


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


class Shingled(NamedTuple):
    """Hashes of a text for comparison."""

    hashes: array[int]
    """Hashes of its shingles: sorted, each once."""
    bands: list[int]


def hash_texts(texts: Sequence[tuple[str, int]], config: MinHashConfig) -> list[Shingled]:
    """Hash texts, each given with the number of its space. Texts of different spaces share no band."""
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
    """Index of each example, and the index of the kept example that it duplicates; None if it is kept.

    If it is near several kept examples, the first is named. Memory for each kept example: 1 KB, and 4 bytes for each
    word that is compared.
    """
    kept, indexes = Kept(config), array("Q")
    spaces = {kind: place for place, kind in enumerate(Kind)}
    numbered = enumerate(examples)
    while chunk := list(islice(numbered, _CHUNK)):
        texts = [(compared_text(example, config), spaces[example.kind]) for _, example in chunk]
        for (index, _), text in zip(chunk, hash_texts(texts, config), strict=True):
            first = next(kept.find_near(text), None)
            if first is None:
                kept.add(text)
                indexes.append(index)
            yield index, None if first is None else indexes[first]


class Kept:
    """Index of the kept texts, numbered from 0: their bands and shingles.

    A dict for each band, with a set of texts in each place, would take 8 KB for each text, so flat arrays hold
    everything. A table with open addressing leads from a band to the last entry that has it, and from each entry to the
    one before it. Entry e is a band of text e // bands.
    """

    def __init__(self, config: MinHashConfig) -> None:
        self._bands, self._threshold = config.bands, config.threshold
        self._hashes, self._ends = array("I"), array("Q", [0])
        self._places = array("Q", bytes(8 * 1024))
        self._last = array("I", bytes(4 * 1024))
        """For each place, 1 + the last entry of its band; 0 if the place is free."""
        self._before = array("I")
        """For each entry, 1 + the entry before it with the same band; 0 for the first."""
        self._taken = 0
        """Number of places in use."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    def find_near(self, text: Shingled) -> Iterator[int]:
        """Find the kept texts that share a band with a text and are near it, in order."""
        return (number for number, _ in self.similar(text))

    def similar(self, text: Shingled) -> Iterator[tuple[int, float]]:
        """The same, with their similarity."""
        own = set(text.hashes)
        for number in self._candidates(text.bands):
            similarity = _jaccard(own, self._hashes[self._ends[number] : self._ends[number + 1]])
            if similarity >= self._threshold:
                yield number, similarity

    def add(self, text: Shingled) -> None:
        """Keep another text."""
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
        numbers = set()
        for band in bands:
            entry = self._last[self._place(band)]
            while entry:
                numbers.add((entry - 1) // self._bands)
                entry = self._before[entry - 1]
        return sorted(numbers)

    def _place(self, band: int) -> int:
        """Place of a band in the table, or the free place where it belongs."""
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
    """64-bit hashes of the bands of a signature of 32-bit values; they differ between spaces."""
    from xxhash import xxh64_intdigest

    width, first = 4 * config.rows, config.bands * space
    return [xxh64_intdigest(signature[band * width : (band + 1) * width], first + band) for band in range(config.bands)]


def _hashes(texts: Iterable[str]) -> array[int]:
    """32-bit hashes of shingles, the same in every process."""
    from xxhash import xxh32_intdigest

    return array("I", sorted({xxh32_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts}))


def _itself(value: int) -> int:
    return value


def _jaccard(left: set[int], right: array[int]) -> float:
    common = len(left.intersection(right))
    return common / (len(left) + len(right) - common)
