"""In which order rows are trained on: a pure function of seed and epoch, with no wasted width inside a batch.

A batch is a random set of rows, as ever; only the rows inside it stand by length. Where a batch is computed in micro
batches, each of them then holds rows of similar length, so less padding is computed, and the batch's loss and gradient
stay what they are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any


class BatchOrder:
    """Indices of all rows, batch after batch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called before each pass."""
        self.epoch = epoch

    def set_step(self, step: int) -> None:
        """Be in the pass in which `step` steps are behind."""
        self.set_epoch(step // -(-len(self.lengths) // self.batch_size))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda row: (-self.lengths[row], row))


def in_order(trainer_class: Any, order: BatchOrder) -> Any:
    """A subclass of one of TRL's trainers that takes its rows in this order, already as token ids.

    The order is told its pass by the steps that are behind: in a training of several processes that goes on from the
    middle of a pass, transformers 5.23 and accelerate 1.15 do not reach it with `set_epoch`, and the rest of that pass
    would be in the order of the first one.
    """
    from transformers import TrainerCallback

    class Passes(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            order.set_step(state.global_step)

    class Ordered(trainer_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.add_callback(Passes())

        def _get_train_sampler(self, train_dataset: Any = None) -> BatchOrder:
            return order

        def _prepare_dataset(self, dataset: Any, *rest: Any) -> Any:
            return dataset

    return Ordered
