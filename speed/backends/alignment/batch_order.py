"""The order in which rows are trained on: a pure function of seed and epoch, with little padding inside a batch.

A batch is a random set of rows; only the rows inside it are sorted by length. Where a batch is computed in micro
batches, each of them then holds rows of similar length and is padded less, while the batch's loss and gradient stay
what they are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence


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
        """Take the order of the pass in which the step after `step` lies."""
        self.set_epoch(step // -(-len(self.lengths) // self.batch_size))

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        for start in range(0, len(order), self.batch_size):
            yield from sorted(order[start : start + self.batch_size], key=lambda row: (-self.lengths[row], row))
