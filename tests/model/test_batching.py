"""Batches keep every record and the mix; chunks keep the gradient."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from speed.model.batching import backward, chunks, drawn_from, epoch, padded
from speed.model.loss import info_nce

CPU = torch.device("cpu")
MIX = ["retrieval"] * 700 + ["classification"] * 700 + ["sts"] * 700 + ["long_long"] * 200


def codes(kinds: list[str]) -> NDArray[np.int64]:
    return np.array([sorted(set(kinds)).index(kind) for kind in kinds], dtype=np.int64)


@settings(max_examples=150)
@given(
    kinds=st.lists(st.sampled_from("abc"), min_size=1, max_size=60),
    size=st.integers(1, 20),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 5),
)
def test_every_record_once_in_batches_of_nearly_one_size(kinds: list[str], size: int, share: float, seed: int) -> None:
    batches = epoch(codes(kinds), size, share, seed)
    assert sorted(number for batch in batches for number in batch) == list(range(len(kinds)))
    assert max(map(len, batches)) <= size
    if share == 0.0:
        sizes = [len(batch) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert len(batches) == math.ceil(len(kinds) / size)
    if share == 1.0:
        small = {kind for kind in kinds if 2 * kinds.count(kind) < size}
        for batch in batches:
            found = {kinds[number] for number in batch}
            assert len(found) == 1 or found <= small, "only kinds that fill no half batch may meet"
            assert len(found) > 1 or found <= small or 2 * len(batch) >= size


def test_the_mix_holds_in_every_batch_and_the_seed_draws_the_order() -> None:
    def shares(batch: NDArray[np.int64]) -> Counter[str]:
        return Counter(MIX[number] for number in batch)

    batches = epoch(codes(MIX), 230, homogeneous=0.0, seed=0)
    for batch in batches:
        assert shares(batch)["long_long"] == pytest.approx(20, abs=2)
        assert shares(batch)["sts"] == pytest.approx(70, abs=3)
    assert all((a == b).all() for a, b in zip(epoch(codes(MIX), 230, 0.0, 0), batches, strict=True))
    assert any((a != b).any() for a, b in zip(epoch(codes(MIX), 230, 0.0, 1), batches, strict=True))


def test_a_semi_homogeneous_batch_takes_its_share_from_one_kind_and_the_rest_from_all() -> None:
    batches = epoch(codes(MIX), 100, homogeneous=0.5, seed=0)
    assert len(batches) == pytest.approx(23, abs=2)
    leading = Counter()
    for batch in batches:
        shares = Counter(MIX[number] for number in batch)
        kind, most = shares.most_common(1)[0]
        leading[kind] += 1
        own = (most - len(batch) / 2) / (len(batch) / 2)
        assert own == pytest.approx(MIX.count(kind) / len(MIX), abs=0.1), "the rest of the batch is mixed"
    assert leading == {"retrieval": 7, "classification": 7, "sts": 7, "long_long": 2}


@given(
    lengths=st.lists(st.integers(1, 50), min_size=2, max_size=80), tokens=st.integers(1, 300), ranks=st.integers(2, 5)
)
def test_every_process_gets_a_part_of_every_chunk(lengths: list[int], tokens: int, ranks: int) -> None:
    whole = chunks(lengths, tokens, ranks=ranks)
    assert sorted(row for part in whole for row in part) == list(range(len(lengths)))
    if len(lengths) >= ranks:
        assert min(map(len, whole)) >= ranks
    for part in whole[:-1]:
        width = max(lengths[row] for row in part)
        assert len(part) == ranks or len(part) * width <= tokens * ranks


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=80), tokens=st.integers(1, 300))
def test_chunks_hold_every_row_once_within_the_budget(lengths: list[int], tokens: int) -> None:
    parts = chunks(lengths, tokens)
    assert sorted(row for part in parts for row in part) == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(lengths[row] for row in part) <= tokens
        assert sum(max(lengths[row] for row in part) - lengths[row] for row in part) <= max(0, tokens // 16)


def test_padding_of_the_papers_mix_is_small() -> None:
    draw = np.random.default_rng(0)
    short, long = draw.lognormal(2.6, 0.6, 3000), draw.lognormal(5.0, 0.6, 1500)
    lengths = [int(min(512, max(3, x))) for x in [*short, *long]]
    padded_tokens = sum(len(p) * max(lengths[row] for row in p) for p in chunks(lengths, 8192))
    assert padded_tokens / sum(lengths) < 1.05
    in_order = sum(16 * max(lengths[i : i + 16]) for i in range(0, 4500, 16)) / sum(lengths)
    assert in_order > 1.5, "sorting must be what keeps the padding small"


def test_masks_come_from_lengths_even_where_padding_equals_a_token() -> None:
    ids, mask = padded([np.array([5, 2], np.int32), np.array([2], np.int32)], pad=2)
    assert ids.tolist() == [[5, 2], [2, 2]]
    assert mask.tolist() == [[1, 1], [1, 0]]


class Toy(nn.Module):
    """An encoder whose work depends on a row's length, with dropout."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(30, 8), nn.Linear(8, 6)
        self.drop = nn.Dropout(dropout)
        self.calls = 0

    def forward(self, rows: list[Tensor]) -> Tensor:
        self.calls += 1
        means = torch.stack([self.words(row).tanh().mean(dim=0) for row in rows])
        return nn.functional.normalize(self.out(self.drop(means)), dim=1)


def gradient(toy: Toy) -> Tensor:
    found = torch.cat([weight.grad.flatten() for weight in toy.parameters() if weight.grad is not None])
    toy.zero_grad()
    return found


def problem(count: int, negatives: int) -> tuple[list[Tensor], list[int]]:
    draw = torch.Generator().manual_seed(3)
    lengths = [int(torch.randint(1, 12, (1,), generator=draw)) for _ in range(2 * count + negatives)]
    return [torch.randint(0, 30, (length,), generator=draw) for length in lengths], lengths


@pytest.mark.parametrize("temperature", [0.02, 0.5])
@pytest.mark.parametrize(("tokens", "kept"), [(1, 0), (13, 0), (40, 0), (40, 50), (10_000, 0), (10_000, 10_000)])
def test_the_gradient_equals_autograd_of_the_whole_matrix(temperature: float, tokens: int, kept: int) -> None:
    count, negatives = 7, 4
    rows, lengths = problem(count, negatives)
    torch.manual_seed(0)
    toy = Toy(dropout=0.0)
    targets, mask = torch.arange(count), torch.rand(count, count + negatives) > 0.8
    mask[targets, targets] = False

    def loss_of(vectors: Tensor, temperature: float = temperature) -> Tensor:
        return info_nce(vectors[:count], vectors[count:], targets, mask, temperature).loss.mean()

    expected_loss = loss_of(toy(rows))
    expected_loss.backward()
    expected = gradient(toy)
    parts = chunks(lengths, tokens)
    sizes = [len(part) * lengths[part[0]] for part in parts]
    toy.calls = 0
    loss = backward(lambda part: toy([rows[i] for i in part]), parts, sizes, loss_of, kept, seed=0, device=CPU)
    encoded_twice = toy.calls - len(parts)
    assert encoded_twice == len(parts) if kept == 0 else encoded_twice < len(parts)
    found = gradient(toy)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    assert (found - expected).norm() / expected.norm() < 1e-5
    loss_of(toy(rows), 2 * temperature).backward()
    assert (gradient(toy) - expected).norm() / expected.norm() > 1e-2, "another temperature must not pass"


def test_both_passes_drop_the_same_units() -> None:
    count = 5
    rows, lengths = problem(count, 0)
    torch.manual_seed(0)
    toy = Toy(dropout=0.5)
    parts = chunks(lengths, 20)
    sizes = [len(part) * lengths[part[0]] for part in parts]

    def loss_of(vectors: Tensor) -> Tensor:
        empty = torch.zeros(count, count, dtype=torch.bool)
        return info_nce(vectors[:count], vectors[count:], torch.arange(count), empty, 0.1).loss.mean()

    def take(kept: int, seed: int) -> Tensor:
        backward(lambda part: toy([rows[i] for i in part]), parts, sizes, loss_of, kept, seed, CPU)
        return gradient(toy)

    once = take(kept=0, seed=11)
    assert torch.equal(once, take(kept=0, seed=11))
    torch.testing.assert_close(once, take(kept=10_000, seed=11))  # nothing encoded twice, nothing drawn twice
    assert not torch.allclose(once, take(kept=0, seed=12))


def test_generators_are_as_before_after_a_seeded_draw() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    with drawn_from(9, CPU):
        first = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    with drawn_from(9, CPU):
        assert torch.equal(torch.rand(3), first)
