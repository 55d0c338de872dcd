"""Batches: which rows form a step, how they are cut into chunks, and the exact gradient of a step over chunks.

Contrastive training needs large batches whose activations do not fit in memory. GradCache (arXiv 2101.06983) encodes
the batch once without a graph, computes the loss's gradient with respect to the vectors, and encodes again chunk by
chunk to propagate that gradient. Since the vectors do not depend on which rows share a chunk, rows may be sorted by
length first: on the paper's mix of short and long texts a chunk then holds almost no padding, and a step computes 1.3
instead of 3 to 5 tokens for each real one. Chunks whose graphs fit in memory are not encoded twice.
"""

from __future__ import annotations

import math
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


def epoch(
    groups: NDArray[np.int64], batch_size: int, homogeneous: float, seed: int | Sequence[int]
) -> list[Annotated[NDArray[np.int64], "batch"]]:
    """The batches of one epoch: every record once, and no last batch of only a few records.

    n records make ceil(n / batch_size) mixed batches whose sizes differ by one at most, and which keep the proportions
    of the groups throughout (each group is shuffled, then all are merged evenly). With `homogeneous` above 0, that
    share of a batch comes from one group and the rest from all (KaLM, arXiv 2501.01028); at 1 all comes from one.
    Groups that cannot fill half of their share of a batch are mixed in batches of their own.

    Args:
        groups: code of each record's group.
    """
    draw = np.random.default_rng(seed)
    members = _shuffled_groups(groups, draw)
    room = int(homogeneous * batch_size)
    own: list[NDArray[np.int64]] = []
    common: list[NDArray[np.int64]] = []
    for group in members:
        kept = round(homogeneous * len(group))
        if room and 2 * kept >= room:
            own += _even_parts(group[:kept], room)
            common.append(group[kept:])
        else:
            common.append(group)
    rest = _merged(common, draw)
    sizes = [len(part) for part in own]
    ends = np.floor(np.cumsum(sizes) * ((1 - homogeneous) / homogeneous)).astype(np.int64) if own else np.zeros(0, int)
    ends = np.minimum(ends, len(rest))
    batches = [np.concatenate([part, rest[a:b]]) for part, (a, b) in zip(own, pairwise([0, *ends]), strict=True)]
    batches += _even_parts(rest[ends[-1] :] if own else rest, batch_size)
    return [batches[place] for place in draw.permutation(len(batches))] if own else batches


def _shuffled_groups(groups: NDArray[np.int64], draw: np.random.Generator) -> list[NDArray[np.int64]]:
    order = draw.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)


def _merged(members: list[NDArray[np.int64]], draw: np.random.Generator) -> NDArray[np.int64]:
    """All members, each group spread evenly over the whole length."""
    places = [(np.arange(len(group)) + draw.random(len(group))) / len(group) for group in members if len(group)]
    numbers = np.concatenate([*members, np.zeros(0, np.int64)]).astype(np.int64)
    return numbers[np.argsort(np.concatenate([*places, np.zeros(0)]), kind="stable")]


def _even_parts(members: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    parts = math.ceil(len(members) / size)
    return [members[len(members) * part // parts : len(members) * (part + 1) // parts] for part in range(parts)]


def chunks(lengths: Sequence[int], tokens: int, share: int = 16, ranks: int = 1) -> list[list[int]]:
    """Rows sorted by length, longest first, and cut into chunks.

    A chunk's rows x longest row stays within `tokens` (one row at least), and its padding within `tokens / share`:
    about what an additional chunk costs (a sixteenth with the backward pass and the adapters' many small layers).

    Args:
        ranks: processes that share each chunk, rank r taking the rows `chunk[r::ranks]`. Then the bounds hold for
            each rank's part, and every chunk has at least one row a rank, so that all make the same number of passes.
    """
    out: list[list[int]] = []
    width = padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padding += width - lengths[row]
        full = not out or (len(out[-1]) + 1) * width > tokens * ranks or padding > tokens * ranks // share
        if not out or (full and len(out[-1]) >= ranks):
            out.append([])
            width, padding = max(1, lengths[row]), 0
        out[-1].append(row)
    if len(out) > 1 and len(out[-1]) < ranks:
        out[-2:] = [out[-2] + out[-1]]
    return out


def padded(
    rows: Sequence[Ids], pad: int, device: torch.device | str = "cpu"
) -> tuple[Annotated[Tensor, "rows width"], Annotated[Tensor, "rows width"]]:
    """Right-padded token ids and their mask (1 for real tokens). The mask comes from lengths, as pad may equal EOS."""
    width = max(1, *(len(row) for row in rows))  # a transformer needs at least one column
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


@contextmanager
def drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the block; afterwards they are as before.

    Dropout then drops the same units in both passes over a chunk, and in a resumed training as in one without a stop.
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
    rows: int | None = None,
    all_reduce: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Add the gradient of `loss_of(vectors of all rows)` to the parameters; returns the loss, detached.

    In several processes each one passes its own chunks. All of them then have all vectors and compute the same loss;
    the sum of their gradients is the gradient of the whole batch.

    Args:
        encode: vectors of a chunk of rows.
        parts: the chunks; together each row 0..n-1 once (over all processes).
        sizes: padded tokens of each chunk.
        loss_of: from vectors `[n dim]`, in the order of the row numbers, to a scalar.
        kept_tokens: graphs are kept for chunks of up to so many padded tokens together; the others are encoded twice.
        seed: of dropout; a chunk's place is added.
        rows: n, where other processes hold the rest of the rows.
        all_reduce: adds a tensor up over all processes, in place.
    """
    kept: dict[int, Tensor] = {}
    vectors: Tensor | None = None
    room = kept_tokens
    total = rows or sum(len(part) for part in parts)
    for place in reversed(range(len(parts))):  # the shortest first, so that the most graphs fit
        fits = sizes[place] <= room
        with drawn_from(seed + place, device), torch.set_grad_enabled(fits):
            chunk = encode(parts[place])
        if fits:
            kept[place] = chunk
            room -= sizes[place]
        if vectors is None:
            vectors = torch.zeros(total, chunk.shape[1], dtype=chunk.dtype, device=chunk.device)
        vectors[torch.tensor(parts[place], device=chunk.device)] = chunk.detach()
    assert vectors is not None, "a step needs rows"
    if all_reduce is not None:
        all_reduce(vectors)  # rows of other processes are zero here, so the sum is exact
    vectors.requires_grad_()
    loss = loss_of(vectors)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = vectors.grad
    assert gradient is not None
    for place in [
        *kept,
        *(place for place in range(len(parts)) if place not in kept),
    ]:  # kept graphs free their memory
        part = parts[place]
        chunk_of = kept.pop(place, None)
        if chunk_of is None:
            with drawn_from(seed + place, device):
                chunk_of = encode(part)
        chunk_of.backward(gradient[torch.tensor(part, device=gradient.device)])  # type: ignore[no-untyped-call]
    return loss.detach()
