"""How much repairs change: the share left as it was, and how far the others went, in words.

Each repair adds to plain counts; the figures follow from the counts of any number of rows, so those of shards add up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from speed.core.spec import Json
from speed.data.records import Example

PREFIX = "edits/"
"""In front of every count, so that a report shows the figures and not what they are made of."""

_WORD = re.compile(r"[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|\S")
"""A run of letters and digits, or a mark; a character where a script puts no spaces (Thai, Lao, Chinese, Japanese)."""


def counts(before: Example | None, after: Example) -> Counter[str]:
    """What one repair adds; `before` is None where what was repaired could not be read."""
    if before is None:
        return Counter({f"{PREFIX}made_readable": 1})
    old, new = _words(before), _words(after)
    found = Counter({"compared": 1, "unchanged": before == after, "old": len(old), "new": len(new)})
    found["kept"] = len(old) if old == new else common(old, new)
    return Counter({PREFIX + name: count for name, count in found.items() if count})


def figures(counts: Mapping[str, int]) -> dict[str, Json]:
    """The figures of some counts; None where nothing was seen that could tell.

    `unchanged_share` is of the repairs of what could be read; `words_kept` is the share of its words that stay, in
    order; `words_edited` is the edit distance of a repair, words taken out and put in, on average.
    """
    found = Counter({name.removeprefix(PREFIX): count for name, count in counts.items() if name.startswith(PREFIX)})

    def share(part: int, whole: int) -> float | None:
        return round(part / whole, 4) if whole else None

    return {
        "made_readable": found["made_readable"],
        "unchanged_share": share(found["unchanged"], found["compared"]),
        "words_kept": share(found["kept"], found["old"]),
        "words_edited": share(found["old"] + found["new"] - 2 * found["kept"], found["compared"]),
    }


def _words(example: Example) -> list[str]:
    """The words and marks of the values; keys are the same on both sides."""
    return [word for text in example.fields().values() for word in _WORD.findall(text)]


def common(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    By rows of bits (Hyyrö 2004): bit i of `row` is 0 where the count rises at left[i]. A word of `right` costs a few
    operations on an integer of len(left) bits, where a table would cost len(left) steps.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(left)) - 1
    row = everywhere
    for word in right:
        met = row & places.get(word, 0)
        row = (row + met | row - met) & everywhere
    return len(left) - row.bit_count()
