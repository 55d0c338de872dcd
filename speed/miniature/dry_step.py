"""One step of a training, as small as can be: a vector for each byte, and a text is the mean of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

LONGEST = 512
"""Bytes of a text that are looked at."""
BYTES, WIDTH = 256, 16
RATE = 1e-2


def take_step(pairs: Sequence[tuple[str, str]], seed: int, file: Path, threads: int) -> float:
    """The loss of one batch, in which the second text of each pair is to be nearer to its first than those of other
    pairs; what the model is after one step of AdamW is in the file."""
    torch.set_num_threads(threads)
    model = torch.nn.EmbeddingBag(BYTES, WIDTH)
    torch.nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    first, second = (_vectors(model, texts) for texts in zip(*pairs, strict=True))
    loss = torch.nn.functional.cross_entropy(first @ second.T, torch.arange(len(pairs)))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    save_file(model.state_dict(), file)
    return loss.item()


def _vectors(model: torch.nn.EmbeddingBag, texts: Sequence[str]) -> Tensor:
    """A vector of length 1 for each text, `[texts width]`."""
    parts = [torch.tensor(list(text.encode("utf-8", "replace")[:LONGEST] or b" ")) for text in texts]
    starts = torch.tensor([0, *(len(part) for part in parts[:-1])]).cumsum(0)
    return torch.nn.functional.normalize(model(torch.cat(parts), starts), dim=-1)
