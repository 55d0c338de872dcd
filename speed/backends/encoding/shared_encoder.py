"""An encoder whose chunks are encoded by several devices, each with a copy of the model in a process of its own.

Chunks are cut as one process cuts them, so that vectors are the same whatever the number, order or death of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from speed.backends.encoding.encoder import CHUNK_TOKENS, PADDING_SHARE, Encoder
from speed.backends.encoding.text_encoder import Vectors
from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids
from speed.backends.runtime.precision import dtype_of
from speed.model.batching import chunks


class SharedEncoder(Encoder):
    """Cuts and counts; workers encode."""

    def __init__(self, like: Encoder, workers: EncodingWorkers) -> None:
        """Args:
        like: the same embedder in this process, whose weights are given up: the workers have theirs.
        """
        like.model.to("meta")
        super().__init__(
            like.model, like.tokenizer, like.frame, like.how, like.normalize, like.max_length, like.prompts
        )
        self.workers = workers

    def pieces_of(self, rows: Sequence[Ids]) -> Iterator[tuple[list[int], Vectors]]:
        cut = chunks([len(row) for row in rows], self.chunk_tokens, PADDING_SHARE)
        for number, vectors, at_once in self.workers.encoded([[rows[row] for row in part] for part in cut]):
            if at_once < self.chunk_tokens:
                self.lower(at_once)
            yield cut[number], vectors

    def close(self) -> None:
        """End the workers."""
        self.workers.close()


def shared(
    encoder: Encoder,
    folder: Path,
    precision: str,
    devices: Sequence[str],
    threads: int,
    say: Callable[[str], None],
) -> SharedEncoder:
    """The encoder of a folder on several devices.

    Args:
        encoder: the same, loaded here.
        threads: of each worker.
    """
    load = partial(_loaded, folder, encoder.max_length, precision, encoder.chunk_tokens, threads)
    return SharedEncoder(encoder, EncodingWorkers(load, devices, say))


def _loaded(folder: Path, max_length: int, precision: str, chunk_tokens: int, threads: int, device: str) -> Encode:
    """The embedder of a worker, and how it encodes a chunk."""
    torch.set_num_threads(threads)
    encoder = Encoder.load(folder, device, max_length)
    encoder.model.to(dtype_of(precision))
    encoder.chunk_tokens = min(chunk_tokens, CHUNK_TOKENS)

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        found = np.empty((len(rows), encoder.dimension), np.float32)
        for places, vectors in encoder.pieces_of(rows):
            found[places] = vectors
        return found, encoder.chunk_tokens

    return encode
