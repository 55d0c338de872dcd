"""The order in which rows are trained on: a pure function of seed and epoch, with little padding inside a batch.

A batch is a random set of rows; only the rows inside it are sorted by length. Where a batch is computed in micro
batches, each of them then holds rows of similar length and is padded less, while the batch's loss and gradient stay
what they are.

A micro-batch that does not fit into memory is computed in parts (`Parts`), with the gradient of the whole one: the
parts of a last batch that is not full count by their rows, and processes fill it up as they would without parts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from typing import NamedTuple


class Parts(NamedTuple):
    """How a process computes its share of a batch."""

    rows: int
    """That it computes at once."""
    whole: int
    """Rows of a micro-batch, of which these are a part."""
    share: int
    """Rows of a full batch that are one process's."""

    @property
    def passes(self) -> int:
        """Forward passes of a full batch."""
        return self.share // self.rows

    def weight(self, batch: int, place: int) -> float:
        """What the mean loss of a part is multiplied by, so that the mean over a batch's parts is the mean over its
        whole micro-batches.

        Args:
            batch: rows of the batch that are this process's.
            place: of the part in the batch.
        """
        mine = min(self.rows, batch - place * self.rows)
        whole = min(self.whole, batch - place * self.rows // self.whole * self.whole)
        return mine / whole * math.ceil(batch / self.rows) / math.ceil(batch / self.whole)


class BatchOrder:
    """Indices of all rows, batch after batch."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, parts: Parts | None = None) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.parts = parts
        """Set where micro-batches are computed in parts."""
        processes = 1 if parts is None else batch_size // parts.share
        self.repeated = 0 if parts is None else repeated_rows(len(lengths), parts.whole, processes)
        """Rows from the beginning of a pass that fill its last batch up."""

    def weight(self, step: int, place: int) -> float:
        """See `Parts.weight`; of the part at a place of the batch after `step` steps."""
        if self.parts is None or self.batch_size != self.parts.share:  # processes fill their last batch up
            return 1.0
        begun = step % self.steps * self.batch_size
        return self.parts.weight(min(self.batch_size, len(self.lengths) - begun), place)

    @property
    def steps(self) -> int:
        """Batches of a pass."""
        return -(-len(self.lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Called before each pass."""
        self.epoch = epoch

    def set_step(self, step: int) -> None:
        """Take the order of the pass in which the step after `step` lies."""
        self.set_epoch(step // self.steps)

    def __len__(self) -> int:
        return len(self.lengths) + self.repeated

    def __iter__(self) -> Iterator[int]:
        order = list(range(len(self.lengths)))
        random.Random(f"{self.seed}:{self.epoch}").shuffle(order)
        starts = range(0, len(order), self.batch_size)
        batches = (sorted(order[start : start + self.batch_size], key=self._longest_first) for start in starts)
        rows = list(chain.from_iterable(batches))
        yield from rows
        yield from islice(cycle(rows), self.repeated)

    def _longest_first(self, row: int) -> tuple[int, int]:
        return -self.lengths[row], row


def repeated_rows(rows: int, micro_batch: int, processes: int) -> int:
    """Rows of a pass that accelerate repeats where several processes cannot share its last batch evenly."""
    return -rows % (processes * micro_batch) if processes > 1 else 0
