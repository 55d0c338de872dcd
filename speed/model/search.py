"""Exact search over vectors that lie on disk: block by block, so that memory grows neither with queries nor documents.

Results depend on vectors and numbers alone: of equally similar documents the one with the lower number comes first,
however the documents are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Vectors = NDArray[np.float32]
QUERIES = 1024
"""Queries compared at once."""
DOCUMENTS = 16_384
"""Documents compared at once: a block of similarities takes 64 MB."""


def nearest(
    queries: Annotated[Vectors, "rows dim"],
    documents: Annotated[Vectors, "documents dim"],
    within: range,
    count: int,
    excluded: Sequence[Collection[int]],
    device: torch.device | str = "cpu",
    block: int = DOCUMENTS,
) -> tuple[Annotated[Tensor, "rows count"], Annotated[Tensor, "rows count"]]:
    """(numbers, similarities) of the nearest documents of each query, nearest first; similarity -inf where there are
    fewer.

    Args:
        within: numbers of the documents that are searched.
        excluded: for each query, numbers of documents that are passed over.
    """
    rows = len(queries)
    best = torch.full((rows, count), float("-inf"), device=device)
    numbers = torch.full((rows, count), -1, dtype=torch.int64, device=device)
    for found, start in _similarities(queries, documents, within, excluded, device, block):
        both = torch.cat([best, found], dim=1)
        block_numbers = torch.arange(start, start + found.shape[1], device=device).expand(rows, -1)
        places = _first_places(both, count)
        best = both.gather(1, places)
        numbers = torch.cat([numbers, block_numbers], dim=1).gather(1, places)
    return numbers.cpu(), best.cpu()


def count_nearer(
    queries: Annotated[Vectors, "rows dim"],
    documents: Annotated[Vectors, "documents dim"],
    within: range,
    positives: Sequence[int],
    excluded: Sequence[Collection[int]],
    device: torch.device | str = "cpu",
    block: int = DOCUMENTS,
) -> Annotated[Tensor, "rows"]:
    """How many documents are nearer to each query than its positive.

    Args:
        positives: number of each query's positive, which is not compared with itself.
    """
    own = torch.from_numpy((queries * documents[list(positives)]).sum(axis=1)).to(device)
    passed = [{positive, *more} for positive, more in zip(positives, excluded, strict=True)]
    nearer = torch.zeros(len(queries), dtype=torch.int64, device=device)
    for found, _ in _similarities(queries, documents, within, passed, device, block):
        nearer += (found > own[:, None]).sum(dim=1)
    return nearer.cpu()


def _similarities(
    queries: Vectors,
    documents: Vectors,
    within: range,
    excluded: Sequence[Collection[int]],
    device: torch.device | str,
    block: int,
) -> Iterator[tuple[Tensor, int]]:
    """(similarities `[rows documents]`, number of the first document) of one block of documents after another."""
    asked = torch.from_numpy(np.array(queries)).to(device)
    pairs = [(row, number) for row, numbers in enumerate(excluded) for number in numbers]
    rows, numbers = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).to(device).unbind(dim=1)
    for start in range(within.start, within.stop, block):
        stop = min(start + block, within.stop)
        found = asked @ torch.from_numpy(np.array(documents[start:stop])).to(device).T
        here = (numbers >= start) & (numbers < stop)
        found[rows[here], numbers[here] - start] = float("-inf")
        yield found, start


def _first_places(similarities: Annotated[Tensor, "rows documents"], count: int) -> Annotated[Tensor, "rows count"]:
    """Columns of the highest values of each row, of equal ones the first; in that order.

    `topk` breaks ties as it likes, and a stable sort of whole rows is slow: only rows with ties are sorted.
    """
    more = min(count + 1, similarities.shape[1])
    values, places = similarities.topk(more, dim=1)
    tied = (values[:, :-1] == values[:, 1:]).any(dim=1)
    if tied.any():
        places[tied] = similarities[tied].argsort(dim=1, descending=True, stable=True)[:, :more]
    return places[:, :count]
