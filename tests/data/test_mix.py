"""The first rows of a pool have the same mix as the whole."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speed.data.mix import Mix
from speed.data.records import Kind

weights = st.lists(st.integers(0, 12), min_size=5, max_size=5).filter(any)


def mix_of(values: list[int]) -> Mix:
    return Mix(**{kind.value: value for kind, value in zip(Kind, values, strict=True)})


@pytest.mark.parametrize(("rows", "large", "small"), [(1_150_000, 350_000, 50_000), (230_000, 70_000, 10_000)])
def test_counts_of_the_paper(rows: int, large: int, small: int) -> None:
    expected = dict(zip(Kind, (large, large, large, small, small), strict=True))
    assert Mix().counts(rows) == expected


def test_pattern_of_the_paper_has_23_turns() -> None:
    pattern = Mix().pattern()
    assert len(pattern) == 23
    assert [pattern.count(kind) for kind in Kind] == [7, 7, 7, 1, 1]
    assert all(left is not right for left, right in itertools.pairwise(pattern))


def test_common_factor_does_not_change_the_pattern() -> None:
    assert Mix(retrieval=14, classification=14, sts=14, short_short=2, long_long=2).pattern() == Mix().pattern()


@given(weights)
def test_every_prefix_is_within_one_row_of_exact(values: list[int]) -> None:
    mix = mix_of(values)
    total = sum(values)
    given_so_far = dict.fromkeys(Kind, 0)
    for rows, kind in enumerate(mix.pattern(), start=1):
        given_so_far[kind] += 1
        for other, weight in mix.weights.items():
            assert abs(given_so_far[other] - Fraction(weight * rows, total)) < 1


@given(weights, st.integers(0, 10_000))
def test_row_and_index_are_inverse(values: list[int], row: int) -> None:
    mix = mix_of(values)
    kind, index = mix.kind_of(row), mix.index_within_kind(row)
    assert mix.row_of(kind, index) == row
    assert mix.counts(row)[kind] == index
    assert sum(mix.counts(row).values()) == row


def test_some_kinds_only() -> None:
    mix = Mix().only(Kind.STS, Kind.LONG_LONG)
    assert mix.kinds == (Kind.STS, Kind.LONG_LONG)
    assert mix.counts(8) == {**dict.fromkeys(Kind, 0), Kind.STS: 7, Kind.LONG_LONG: 1}
    assert Mix().only(Kind.STS).pattern() == (Kind.STS,)
    with pytest.raises(ValueError, match="retrieval has weight 0"):
        mix.row_of(Kind.RETRIEVAL, 0)


def test_bad_weights_are_refused() -> None:
    for bad in ({kind.value: 0 for kind in Kind}, {"sts": -1}, {"sts": 200_000}):
        with pytest.raises(ValidationError):
            Mix(**bad)
