"""Exact search: what whole matrices would give, whatever the blocks; ties, exclusions and short corpora included."""

from __future__ import annotations

import numpy as np
import pytest

from speed.model.search import count_nearer, nearest

DRAW = np.random.default_rng(0)
QUERIES = DRAW.integers(-2, 3, (7, 4)).astype(np.float32)
DOCUMENTS = DRAW.integers(-2, 3, (40, 4)).astype(np.float32)
"""Small whole numbers, so that sums are exact and many similarities equal."""
EXCLUDED = [{3, 20 + row} for row in range(7)]
WITHIN = range(2, 37)


def ranking(row: int, excluded: set[int]) -> list[int]:
    """The documents of a query, nearest first, of equal ones the lower number."""
    values = DOCUMENTS @ QUERIES[row]
    return sorted((number for number in WITHIN if number not in excluded), key=lambda number: (-values[number], number))


@pytest.mark.parametrize("block", [1, 5, 16, 1000])
def test_the_nearest_are_found_in_one_order_whatever_the_blocks(block: int) -> None:
    numbers, values = nearest(QUERIES, DOCUMENTS, WITHIN, 6, EXCLUDED, block=block)
    for row in range(7):
        assert numbers[row].tolist() == ranking(row, EXCLUDED[row])[:6]
        assert values[row].tolist() == (DOCUMENTS[numbers[row]] @ QUERIES[row]).tolist()


def test_fewer_documents_than_wanted_end_in_minus_infinity() -> None:
    numbers, values = nearest(QUERIES[:1], DOCUMENTS, range(4, 7), 5, [{5}])
    assert sorted(numbers[0][:2].tolist()) == [4, 6]
    assert np.isneginf(values[0][2:].numpy()).all()


@pytest.mark.parametrize("block", [3, 1000])
def test_documents_nearer_than_the_positive_are_counted(block: int) -> None:
    positives = [5, 9, 9, 30, 2, 36, 11]
    found = count_nearer(QUERIES, DOCUMENTS, WITHIN, positives, EXCLUDED, block=block)
    for row, positive in enumerate(positives):
        values = DOCUMENTS @ QUERIES[row]
        left = [number for number in WITHIN if number not in EXCLUDED[row] | {positive}]
        assert int(found[row]) == sum(values[number] > values[positive] for number in left)
