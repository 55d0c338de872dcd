"""What share of each kind deduplication keeps, by how texts are compared, beside the paper's Table 6.

The paper gives what was left of each kind and no parameter of its MinHash. `retentions` compares a file's records once
for any number of thresholds: a text is kept for comparison if it is kept at one of them at least, and for each text it
is known at which.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from speed.data.quality.minhash import MinHashConfig
from speed.data.quality.near_duplicates import Earlier, chunks
from speed.data.records import Kind

TABLE_6: dict[str, tuple[int, int]] = {
    Kind.RETRIEVAL: (303_424, 350_000),
    Kind.CLASSIFICATION: (245_947, 350_000),
    Kind.STS: (294_388, 350_000),
    Kind.SHORT_SHORT: (39_954, 50_000),
    Kind.LONG_LONG: (36_702, 50_000),
}
"""Examples that the paper kept, of how many: 1.15M in its proportions, and text matching halved (ours)."""
NOTICED = 0.98
"""Least chance that a pair at the lowest threshold is noticed."""
PERMUTATIONS = 128

Compared = Literal["mixed", "query", "positive", "all"]
"""Texts of a record that are compared; `mixed` is the query, and the positive with it where both are short, as the
stage compares them by default."""


class Record(NamedTuple):
    """The texts of one record."""

    kind: str
    """One of the five kinds, or empty where the record states none."""
    query: str
    positive: str
    negative: str = ""


class Retention(NamedTuple):
    """Records by kind: all, and those kept at each threshold."""

    seen: Counter[str]
    kept: dict[float, Counter[str]]

    def shares(self, threshold: float) -> dict[str, float]:
        """The share kept of each kind, and of all as `whole`."""
        kept = self.kept[threshold]
        shares = {kind: kept[kind] / count for kind, count in self.seen.items()}
        return {**shares, "whole": kept.total() / self.seen.total()}


def published_shares() -> dict[str, float]:
    """The paper's retentions, in the form of `Retention.shares`."""
    shares = {str(kind): kept / raw for kind, (kept, raw) in TABLE_6.items()}
    kept, raw = (sum(column) for column in zip(*TABLE_6.values(), strict=True))
    return {**shares, "whole": kept / raw}


def away_from_table_6(shares: dict[str, float]) -> float | None:
    """Mean distance from the paper's retentions over the kinds that are there; None where none is."""
    published = published_shares()
    distances = [abs(share - published[kind]) for kind, share in shares.items() if kind in TABLE_6]
    return sum(distances) / len(distances) if distances else None


def compared(record: Record, by: Compared) -> str:
    """The text by which a record is compared."""
    if by == "mixed":
        with_positive = record.kind in MinHashConfig().with_positive
        return f"{record.query}\n{record.positive}" if with_positive else record.query
    if by == "all":
        return "\n".join(filter(None, (record.query, record.positive, record.negative)))
    return record.query if by == "query" else record.positive


def settings_for(thresholds: Sequence[float], words: int) -> MinHashConfig:
    """The stage's settings with another size of shingles, and bands that notice nearly all pairs at every threshold."""
    lowest = min(thresholds)
    for rows in range(10, 0, -1):
        config = MinHashConfig(threshold=lowest, word_shingle=words, rows=rows, bands=PERMUTATIONS // rows)
        if config.detection(lowest) >= NOTICED:
            return config
    return config


def retentions(
    read: Callable[[], Iterable[Record]],
    by: Compared,
    config: MinHashConfig,
    thresholds: Sequence[float],
    say: Callable[[int], None],
) -> Retention:
    """What is kept of each kind at each threshold.

    Args:
        read: begins to read the records; called twice.
        config: its threshold is at most the lowest one.
        say: takes the number of records read so far, over both passes.
    """
    spaces, kept_at = dict[str, int](), array("Q")
    texts = ((compared(record, by), spaces.setdefault(record.kind, len(spaces))) for record in read())
    earlier = Earlier(texts, config, say)
    found = Retention(Counter(), {threshold: Counter() for threshold in thresholds})
    for chunk in chunks(read()):
        for record, (number, near) in zip(
            chunk, earlier.compared([compared(record, by) for record in chunk]), strict=True
        ):
            found.seen[record.kind] += 1
            kept_there = [(similarity, kept_at[other]) for other, similarity in near]
            mask = 0
            for place, threshold in enumerate(thresholds):
                if not any(similarity >= threshold and at >> place & 1 for similarity, at in kept_there):
                    found.kept[threshold][record.kind] += 1
                    mask |= 1 << place
            if mask:
                earlier.keep(number)
            kept_at.append(mask)
        say(earlier.count + found.seen.total())
    return found
