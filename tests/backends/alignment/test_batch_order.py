"""Batches are random sets of rows, by seed and epoch; inside, the longest row comes first."""

from __future__ import annotations

from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from speed.backends.alignment.batch_order import BatchOrder
from speed.backends.alignment.training import repeated_rows

LENGTHS = [7, 3, 9, 1, 4, 4, 8, 2, 6, 5]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 5))
def test_every_row_once_and_each_batch_by_length(lengths: list[int], batch_size: int, epoch: int) -> None:
    order = BatchOrder(lengths, batch_size, seed=3)
    order.set_epoch(epoch)
    rows = list(order)
    assert sorted(rows) == list(range(len(lengths)))
    for start in range(0, len(rows), batch_size):
        batch = [lengths[row] for row in rows[start : start + batch_size]]
        assert batch == sorted(batch, reverse=True)


def test_epochs_and_seeds_shuffle_anew() -> None:
    def batches(seed: int, epoch: int) -> list[set[int]]:
        order = BatchOrder(LENGTHS, 5, seed)
        order.set_epoch(epoch)
        rows = list(order)
        return [set(rows[:5]), set(rows[5:])]

    assert batches(0, 0) == batches(0, 0)
    assert batches(0, 0) != batches(0, 1)
    assert batches(0, 0) != batches(1, 0)


def test_the_pass_follows_from_the_steps_that_are_behind() -> None:
    order = BatchOrder([1] * 10, 4, 0)
    passes = []
    for step in range(7):
        order.set_step(step)
        passes.append(order.epoch)
    assert passes == [0, 0, 0, 1, 1, 1, 2]


@given(st.integers(2, 40), st.integers(1, 5), st.integers(2, 5))
def test_what_fills_a_last_batch_up_is_the_beginning_of_the_pass(rows: int, micro_batch: int, processes: int) -> None:
    order = BatchOrder([1] * rows, processes * micro_batch, seed=0)
    batches = BatchSampler(order, micro_batch, drop_last=False)
    shards = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
    trained = [row for step in zip(*shards, strict=True) for part in step for row in part]
    repeated = repeated_rows(rows, micro_batch, processes)
    assert trained == [*order, *(list(order) * 30)[:repeated]]
