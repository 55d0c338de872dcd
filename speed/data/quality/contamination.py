"""Find texts of evaluation tasks in training records, by shared runs of words and as near duplicates.

Both are needed: a passage quoted in a longer document is no near duplicate of it, and a copy with every tenth word
replaced shares no long run. The usual length of a run is 13 words (GPT-3, arXiv 2005.14165, Appendix C).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from speed.data.quality.minhash import MinHashConfig, words_of
from speed.data.quality.near_duplicates import BandIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Chinese characters
)
"""Characters of scripts without spaces between words."""
_WORD = re.compile(rf"(?=\w)[{_UNSPACED}]|[^\W{_UNSPACED}]+")
"""A word, or a character of such a script: between two punctuation marks it has a clause, and no quotation would hold
thirteen of those. MinHash has its own words, which keys depend on."""


class Overlap(NamedTuple):
    """Numbers of the data sets that contaminate one record."""

    shared: frozenset[int]
    """Data sets with which the record shares a run of words, or a whole text that is shorter than a run."""
    near: frozenset[int]
    """Data sets with a near duplicate of one of its texts."""


class EvaluationTexts:
    """Index of the texts of some data sets.

    Memory: 10 bytes for each run of words, and for each text 200 bytes and 4 bytes a word.
    """

    def __init__(self, datasets: Iterable[Iterable[str]], words: int, similarity: float) -> None:
        """Read the texts of some data sets.

        Args:
            words: length of a run, in words.
            similarity: least Jaccard similarity of near duplicates, between their shingles; below 0.7 the bands
                miss some.
        """
        self.counts: list[int] = []
        """Number of texts of each data set."""
        self._words = words
        self._of = array("H")
        """The data set of each text that has words."""
        self._run_hashes, self._run_owners = array("Q"), array("H")
        self._index = BandIndex(self._with_words(datasets), MinHashConfig(threshold=similarity))
        self._runs, self._owners = _sorted(self._run_hashes, self._run_owners)
        del self._run_hashes, self._run_owners

    def _with_words(self, datasets: Iterable[Iterable[str]]) -> Iterator[str]:
        """The texts that have words; their runs are noted."""
        for number, texts in enumerate(datasets):
            self.counts.append(0)
            for text in texts:
                self.counts[number] += 1
                own = runs_of(text, self._words)
                self._run_hashes.extend(own)
                self._run_owners.extend([number] * len(own))
                if own:
                    self._of.append(number)
                    yield text

    def overlaps(self, records: Sequence[Sequence[str]]) -> list[Overlap]:
        """Overlap of each record, which is given as its texts."""
        near: list[set[int]] = [set() for _ in records]
        texts = [(place, text) for place, record in enumerate(records) for text in record if words_of(text)]
        for (place, _), numbers in zip(texts, self._index.near([text for _, text in texts]), strict=True):
            near[place].update(self._of[number] for number in numbers)
        return [Overlap(self._sharing(record), frozenset(own)) for record, own in zip(records, near, strict=True)]

    def _sharing(self, record: Sequence[str]) -> frozenset[int]:
        import numpy as np

        own = np.array([run for text in record for run in runs_of(text, self._words)], dtype=np.uint64)
        first, behind = (np.searchsorted(self._runs, own, side) for side in ("left", "right"))
        spans = [(first[place], behind[place]) for place in np.flatnonzero(first < behind)]
        return frozenset(int(owner) for start, stop in spans for owner in self._owners[start:stop])


def runs_of(text: str, words: int) -> list[int]:
    """64-bit hashes of all runs of so many words in a text, or of the whole text if it is shorter. Of scripts without
    spaces each character counts as a word."""
    from xxhash import xxh64_intdigest

    own = _WORD.findall(text.casefold())
    starts = range(max(len(own) - words + 1, 1)) if own else ()
    return [xxh64_intdigest(" ".join(own[start : start + words]).encode("utf-8", "surrogatepass")) for start in starts]


def _sorted(runs: array[int], owners: array[int]) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """Each pair of run and data set once, sorted by run."""
    import numpy as np

    hashes, numbers = np.array(runs, dtype=np.uint64), np.array(owners, dtype=np.uint16)
    order = np.lexsort((numbers, hashes))
    hashes, numbers = hashes[order], numbers[order]
    once = np.ones(len(hashes), dtype=bool)
    once[1:] = (hashes[1:] != hashes[:-1]) | (numbers[1:] != numbers[:-1])
    return hashes[once], numbers[once]
