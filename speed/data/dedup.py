"""Near duplicates by MinHash and LSH (the paper's last step; Table 6: 20 % of 1.15 M examples fall).

An example is dropped when it is near an earlier one that was kept, within its kind. So the first of a group stays, the
verdict on row i depends on rows before i alone, and data sizes nest after deduplication as they did before. Candidates
come from datasketch's LSH and are checked by the exact Jaccard similarity of their shingles: the threshold means what
it says.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

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


def compared_text(example: Example, config: MinHashConfig) -> str:
    """The text that decides whether an example is a duplicate."""
    return f"{example.query}\n{example.positive}" if example.kind in config.with_positive else example.query


def shingles(text: str, config: MinHashConfig) -> set[str]:
    """Overlapping runs of words, or of characters where words are few, without case and punctuation; never empty."""
    words = re.findall(r"\w+", text.casefold())
    if len(words) >= max(config.short_words, config.word_shingle):
        width = config.word_shingle
        return {" ".join(words[start : start + width]) for start in range(len(words) - width + 1)}
    plain, width = " ".join(words) or text.casefold(), config.character_shingle
    return {plain[start : start + width] for start in range(max(len(plain) - width + 1, 1))}


def duplicates(examples: Iterable[Example], config: MinHashConfig) -> Iterator[tuple[int, int | None]]:
    """For each example its index and that of the kept example it duplicates, or None when it is kept itself.

    Of several kept examples it is near to, the first is named. Memory: signatures and shingle hashes of what is kept,
    about 7 KB a document of 200 words.
    """
    from datasketch import MinHash, MinHashLSH

    params = (config.bands, config.rows)
    indexes = {kind: MinHashLSH(num_perm=config.permutations, params=params) for kind in Kind}
    kept: dict[int, array[int]] = {}
    numbered = enumerate(examples)
    while chunk := list(islice(numbered, _CHUNK)):
        hashed = [_hashes(shingles(compared_text(example, config), config)) for _, example in chunk]
        signatures = MinHash.generator(
            hashed, num_perm=config.permutations, seed=config.seed, hashfunc=_itself, scheme="affine32"
        )
        for (index, example), hashes, signature in zip(chunk, hashed, signatures, strict=True):
            lsh: Any = indexes[example.kind]
            own = set(hashes)
            near = (other for other in sorted(lsh.query(signature)) if _jaccard(own, kept[other]) >= config.threshold)
            first = next(near, None)
            if first is None:
                lsh.insert(index, signature, check_duplication=False)
                kept[index] = hashes
            yield index, first


def _hashes(texts: Iterable[str]) -> array[int]:
    """32-bit hashes of shingles; the same in every process."""
    from xxhash import xxh32_intdigest

    return array("I", sorted({xxh32_intdigest(text.encode("utf-8", "surrogatepass")) for text in texts}))


def _itself(value: int) -> int:
    return value


def _jaccard(left: set[int], right: array[int]) -> float:
    common = len(left.intersection(right))
    return common / (len(left) + len(right) - common)
