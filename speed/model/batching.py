"""Batches: which rows meet in a step, how they are cut into chunks, and the exact gradient of a step over chunks.

Contrastive training needs large batches whose activations do not fit in memory. GradCache (arXiv 2101.06983) encodes
the batch once without a graph, takes the loss's gradient with respect to the vectors, and encodes again chunk by chunk
to carry that gradient on. Since the vectors do not depend on which rows share a chunk, rows may be sorted by
length first: on the paper's mix of short and long texts a chunk then holds almost no padding, and a step
computes 1.3 instead of 3 to 5 tokens for each real one. Chunks whose graphs fit in memory are not encoded twice.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int32]
"""Token ids of one row, special tokens included."""

Encode = Callable[[list[int]], Tensor]
"""Vectors `[rows dim]` of the rows with these numbers, with a graph when autograd is on."""


def epoch(kinds: Sequence[str], batch_size: int, homogeneous: bool, seed: int) -> list[list[int]]:
    """The batches of one epoch: every record once, as many batches as needed, all of nearly one size.

    A remainder would be a batch with few negatives and another scale of loss; so n records make ceil(n / batch_size)
    batches whose sizes differ by one at most. Mixed batches keep the proportions of the kinds throughout (each kind is
    shuffled, then all are merged evenly); homogeneous batches hold one kind each, in random order.

    Args:
        kinds: kind of each record.
    """
    rng = random.Random(seed)
    by_kind: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(number)
    for members in by_kind.values():
        rng.shuffle(members)
    if homogeneous:
        batches = [part for members in by_kind.values() for part in _even_parts(members, batch_size)]
        rng.shuffle(batches)
        return batches
    places = [
        ((place + rng.random()) / len(members), number)
        for members in by_kind.values()
        for place, number in enumerate(members)
    ]
    return _even_parts([number for _, number in sorted(places)], batch_size)


def _even_parts(members: list[int], size: int) -> list[list[int]]:
    parts = math.ceil(len(members) / size)
    cuts = [len(members) * part // parts for part in range(parts + 1)]
    return [members[start:stop] for start, stop in pairwise(cuts)]


def chunks(lengths: Sequence[int], tokens: int, share: int = 16) -> list[list[int]]:
    """Rows sorted by length, longest first, and cut into chunks.

    A chunk's rows x longest row stays within `tokens` (one row at least), and its padding within `tokens / share`:
    about what an additional chunk costs (a sixteenth with the backward pass and the adapters' many small layers).
    """
    out: list[list[int]] = []
    width = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padding += width - lengths[row]
        if not out or (len(out[-1]) + 1) * width > tokens or padding > tokens // share:
            out.append([])
            width, padding = max(1, lengths[row]), 0
        out[-1].append(row)
    return out


def padded(
    rows: Sequence[Ids], pad: int, device: torch.device | str = "cpu"
) -> tuple[Annotated[Tensor, "rows width"], Annotated[Tensor, "rows width"]]:
    """Right-padded token ids and their mask (1 for real tokens), never inferred from the ids: pad may equal EOS."""
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from this seed inside, and the generators are as before afterwards.

    So both passes over a chunk drop the same units, and a resumed training the same as an undisturbed one.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def backward(
    encode: Encode,
    parts: Sequence[list[int]],
    sizes: Sequence[int],
    loss_of: Callable[[Tensor], Tensor],
    kept_tokens: int,
    seed: int,
    device: torch.device,
) -> Tensor:
    """Add the gradient of `loss_of(vectors of all rows)` to the parameters; returns the loss, detached.

    Args:
        encode: vectors of a chunk of rows.
        parts: the chunks; together each row 0..n-1 once.
        sizes: padded tokens of each chunk.
        loss_of: from vectors `[n dim]`, in the order of the row numbers, to a scalar.
        kept_tokens: graphs are kept for chunks of up to so many padded tokens together; the others are encoded twice.
        seed: what dropout draws from; a chunk's place is added.
    """
    kept: dict[int, Tensor] = {}
    vectors: Tensor | None = None
    room = kept_tokens
    total = sum(len(part) for part in parts)
    for place in reversed(range(len(parts))):  # the shortest first: they leave the most graphs in the same room
        fits = sizes[place] <= room
        with drawn_from(seed + place, device), torch.set_grad_enabled(fits):
            chunk = encode(parts[place])
        if fits:
            kept[place] = chunk
            room -= sizes[place]
        if vectors is None:
            vectors = torch.empty(total, chunk.shape[1], dtype=chunk.dtype, device=chunk.device)
        vectors[torch.tensor(parts[place], device=chunk.device)] = chunk.detach()
    assert vectors is not None, "a step needs rows"
    vectors.requires_grad_()
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = vectors.grad
    assert gradient is not None
    for place in [*kept, *(place for place in range(len(parts)) if place not in kept)]:  # kept graphs go first
        part = parts[place]
        chunk_of = kept.pop(place, None)
        if chunk_of is None:
            with drawn_from(seed + place, device):
                chunk_of = encode(part)
        chunk_of.backward(gradient[torch.tensor(part, device=gradient.device)])  # type: ignore[no-untyped-call]
    return loss.detach()
