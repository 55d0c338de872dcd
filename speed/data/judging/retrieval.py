"""Judge answers by what an embedder could learn from them: whether it finds the positive, and how hard the rest is.

An example teaches something wrong where a trained embedder does not find its positive for its query (round-trip
consistency: Dai et al. 2022, arXiv 2209.11755), or where its negative is nearly as near as its positive and may answer
the query too (NV-Retriever, arXiv 2407.15831). Among examples without either fault the harder one teaches more. All
functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from speed.data.quality.negative_rules import nearly

NEAR = 0.95
"""Share of the positive's similarity from which another document may answer as well (NV-Retriever)."""
DIGITS = 4
"""Decimals that count: beyond them a similarity depends on the other texts of a batch."""


class Worth(NamedTuple):
    """What an example is worth to an embedder. Ordered: the least is the best."""

    rank: int
    """Of the positive among the documents of the list, from 1."""
    doubtful: bool
    """Whether the nearest other document may answer as well."""
    ease: float
    """Positive's similarity less that of the nearest other document."""

    def __str__(self) -> str:
        near = f", another one at least {NEAR:g} times as near" if self.doubtful else ""
        return f"rank {self.rank}, ahead by {self.ease:.{DIGITS}f}{near}"


def worth(positive: float, own: float | None, others: Sequence[float]) -> Worth:
    """Of one example, by similarities to its query.

    Args:
        positive: of its positive.
        own: of its own hard negative, where it has one; this then says how hard the example is.
        others: of the documents of the other examples of the list.
    """
    positive = round(positive, DIGITS)
    seen = [round(value, DIGITS) for value in others]
    compared = max(seen, default=0.0) if own is None else round(own, DIGITS)
    rank = 1 + sum(value > positive for value in ([] if own is None else [compared]) + seen)
    return Worth(rank, compared >= nearly(positive, NEAR), round(positive - compared, DIGITS))
