"""Shares of a query's words that stand in its documents."""

from __future__ import annotations

import pytest

from speed.data.quality import word_overlap
from speed.data.quality.word_overlap import WordOverlap
from speed.data.records import Example, Kind


def example(kind: Kind, query: str, positive: str, negative: str | None = None) -> Example:
    return Example(kind=kind, task="t", query=query, positive=positive, negative=negative)


def test_each_kind_has_the_mean_share_of_its_queries_words() -> None:
    overlap = WordOverlap()
    overlap.add(example(Kind.RETRIEVAL, "Red cats, red dogs!", "RED and dogs", "cats"))
    overlap.add(example(Kind.RETRIEVAL, "one two", "nothing", None))
    overlap.add(example(Kind.STS, "a b", "b a", "c"))
    overlap.add(example(Kind.STS, "...", "no word in the query"))
    assert overlap.shares("positive") == {"retrieval": round((2 / 3 + 0) / 2, 4), "sts": 1.0}
    assert overlap.shares("negative") == {"retrieval": round(1 / 3, 4), "sts": 0.0}


def test_the_first_examples_of_a_kind_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_overlap, "MOST", 1)
    overlap = WordOverlap()
    for positive in ("a", "b"):
        overlap.add(example(Kind.RETRIEVAL, "a", positive))
    assert overlap.shares("positive") == {"retrieval": 1.0}
