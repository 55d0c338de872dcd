"""A row's vector depends on that row alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from speed.model.pooling import Pooling, pooled


def batch(lengths: list[int], width: int, left: list[bool]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """States padded with garbage on either side, their mask, and the bare rows."""
    draw = torch.Generator().manual_seed(7)
    rows = [torch.randn(length, 5, generator=draw) for length in lengths]
    states = torch.full((len(rows), width, 5), 1e6)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        start = width - len(row) if left[place] else 0
        states[place, start : start + len(row)] = row
        mask[place, start : start + len(row)] = 1
    return states, mask, rows


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=6), extra=st.integers(0, 4))
def test_a_vector_does_not_depend_on_padding_side_width_or_neighbours(rows: list[tuple[int, bool]], extra: int) -> None:
    lengths = [length for length, _ in rows]
    states, mask, bare = batch(lengths, max(lengths) + extra, [left for _, left in rows])
    expected = {
        "last": torch.stack([row[-1] for row in bare]),
        "cls": torch.stack([row[0] for row in bare]),
        "mean": torch.stack([row.mean(dim=0) for row in bare]),
    }
    for how, vectors in expected.items():
        torch.testing.assert_close(pooled(states, mask, how, normalize=False), vectors)  # type: ignore[arg-type]


def test_vectors_are_fp32_of_length_one_when_asked() -> None:
    states, mask, _ = batch([3, 2], 4, [False, True])
    found = pooled(states.bfloat16(), mask, "last", normalize=True)
    assert found.dtype == torch.float32
    assert found.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


@pytest.mark.parametrize("how", ["last", "cls", "mean"])
def test_a_row_without_tokens_is_zero(how: Pooling) -> None:
    states, mask, _ = batch([3, 0], 3, [False, False])
    found = pooled(states, mask, how, normalize=True)
    assert found[0].norm().item() == pytest.approx(1.0, abs=1e-6)
    assert (found[1] == 0).all()
