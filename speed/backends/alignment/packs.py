"""Several rows end to end as one, as TRL packs them ("bfd": the longest row first, each where it fits most tightly).

TRL packs while it prepares a data set, which our trainings skip: their rows arrive as token ids. So its function is
called here. No row is cut (`rows` has left out what is too long), and none sees another: TRL passes positions that
start anew with each row, from which transformers 5 builds a mask of blocks (a test compares loss and gradient with
those of the rows alone).
"""

from __future__ import annotations

from collections.abc import Sequence


def packs(rows: Sequence[dict[str, list[int]]], width: int) -> list[dict[str, list[int]]]:
    """`input_ids`, `labels` and `seq_lengths` of packs of at most `width` tokens, each row in one of them."""
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    found: list[dict[str, list[int]]] = pack_dataset(Dataset.from_list(list(rows)), width, "bfd").to_list()
    return found
