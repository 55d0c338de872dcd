"""Measure how much revisions change: the share of unchanged examples, and the words kept and edited.

Each revision adds to plain counts, and the figures are computed from counts. So the counts of shards can be added up.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from speed.core.spec import Json
from speed.data.records import Example

PREFIX = "edits/"
"""Prefix of all counts, so that a report shows the figures and not the counts."""

_WORD = re.compile(r"[^\W\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|\S")
"""A run of letters and digits, a mark, or one character of a script without spaces (Thai, Lao, Chinese, Japanese)."""


def counts(before: Example | None, after: Example) -> Counter[str]:
    """Counts of one revision; `before` is None if the original could not be read."""
    if before is None:
        return Counter({f"{PREFIX}made_readable": 1})
    old, new = _words(before), _words(after)
    tally = Counter({"compared": 1, "unchanged": before == after, "old": len(old), "new": len(new)})
    tally["kept"] = len(old) if old == new else common_length(old, new)
    return Counter({PREFIX + name: count for name, count in tally.items() if count})


def figures(counts: Mapping[str, int]) -> dict[str, Json]:
    """Figures of some counts; a figure is None if there is no data for it.

    `unchanged_share` is the share of unchanged examples among those whose original could be read, `words_kept` the
    share of their words that stay, in order, and `words_edited` the mean number of words removed and inserted.
    """
    own = Counter({name.removeprefix(PREFIX): count for name, count in counts.items() if name.startswith(PREFIX)})

    def share(part: int, whole: int) -> float | None:
        return round(part / whole, 4) if whole else None

    return {
        "made_readable": own["made_readable"],
        "unchanged_share": share(own["unchanged"], own["compared"]),
        "words_kept": share(own["kept"], own["old"]),
        "words_edited": share(own["old"] + own["new"] - 2 * own["kept"], own["compared"]),
    }


def _words(example: Example) -> list[str]:
    """Words and marks of the values; the keys are the same on both sides."""
    return [word for text in example.fields().values() for word in _WORD.findall(text)]


def common_length(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Computed with bit rows (Hyyrö 2004): bit i of `row` is 0 where the length rises at left[i]. So each word of `right`
    takes a few operations on an integer of len(left) bits, instead of the len(left) steps of a table.
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
