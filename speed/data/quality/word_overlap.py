"""How much of a query's words stand in its documents: where nearly all do, words alone find the positive."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from speed.data.records import Example

MOST = 10_000
"""Examples of a kind that are looked at, the first ones."""
_WORD = re.compile(r"\w+")


class WordOverlap:
    """Shares of the query's words that stand in positive and hard negative, by kind."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = {"positive": Counter(), "negative": Counter()}
        self._sums: dict[str, defaultdict[str, float]] = {
            "positive": defaultdict(float),
            "negative": defaultdict(float),
        }

    def add(self, example: Example) -> None:
        """Look at one example, unless enough of its kind were."""
        self._seen[example.kind] += 1
        if self._seen[example.kind] > MOST:
            return
        query = words_of(example.query)
        for name, text in (("positive", example.positive), ("negative", example.negative)):
            if query and text:
                self._counts[name][example.kind] += 1
                self._sums[name][example.kind] += len(query & words_of(text)) / len(query)

    def shares(self, document: str) -> dict[str, float]:
        """The mean share of each kind that has such documents.

        Args:
            document: `positive` or `negative`.
        """
        sums, counts = self._sums[document], self._counts[document]
        return {str(kind): round(sums[kind] / counts[kind], 4) for kind in sorted(counts)}


def words_of(text: str) -> set[str]:
    """The different words of a text, whatever their case."""
    return set(_WORD.findall(text.casefold()))
