"""An encoder whose chunks are encoded by several devices, each with a copy of the model in a process of its own; also
by those of the other machines of a cluster.

Chunks are cut as one process cuts them, so that vectors are the same whatever the number, order or death of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from speed.backends.encoding.carried_model import ModelErrand
from speed.backends.encoding.encoder import PADDING_SHARE, Encoder
from speed.backends.encoding.text_encoder import Vectors
from speed.backends.encoding.workers import Encode, EncodingWorkers, Ids, Load, device_there
from speed.backends.runtime.precision import dtype_of
from speed.cluster.ray_cluster import Cluster
from speed.core.elsewhere import Need
from speed.core.errand import Carrier
from speed.core.machine import GIGABYTE
from speed.core.store import Store
from speed.data.costs.memory import CHUNK_TOKENS
from speed.model.batching import chunks
from speed.runtime import Context

LoadEncoder: TypeAlias = Callable[[str], Encoder]
"""Loads a model on a device; a function that another process can be given."""


WEIGHT = 4
"""Bytes, as it is loaded."""


class SharedEncoder(Encoder):
    """Cuts and counts; workers encode."""

    def __init__(self, like: Encoder, workers: EncodingWorkers, carrier: Carrier | None = None) -> None:
        """Take the workers that share its texts.

        Args:
            like: the same embedder in this process, whose weights are given up: the workers have theirs.
            carrier: of the model, to be closed after the workers.
        """
        like.model.to("meta")
        super().__init__(
            like.model, like.tokenizer, like.frame, like.how, like.normalize, like.max_length, like.prompts
        )
        self.workers, self.carrier = workers, carrier

    def pieces_of(self, rows: Sequence[Ids]) -> Iterator[tuple[list[int], Vectors]]:
        cut = chunks([len(row) for row in rows], self.chunk_tokens, PADDING_SHARE)
        for number, vectors, at_once in self.workers.encoded([[rows[row] for row in part] for part in cut]):
            if at_once < self.chunk_tokens:
                self.lower(at_once)
            yield cut[number], vectors

    def close(self) -> None:
        """End the workers."""
        self.workers.close()
        if self.carrier is not None:
            self.carrier.close()


def is_shared(devices: Sequence[str], ctx: Context, everywhere: bool) -> bool:
    """Whether more than this process is to encode.

    Args:
        everywhere: whether all machines of a cluster can have the model.
    """
    return len(devices) > 1 or (everywhere and _asks_others(ctx))


def _asks_others(ctx: Context) -> bool:
    """Whether the other machines of a cluster may be asked: the blocks of a pool are shared among them already, and
    those of a block's encoding would be taken twice, the run's own machine among them."""
    return ctx.runtime.cluster == "ray" and not ctx.in_blocks


def shared(
    encoder: Encoder,
    load: LoadEncoder,
    precision: str,
    devices: Sequence[str],
    ctx: Context,
    everywhere: bool,
    folder: Path | None = None,
) -> SharedEncoder:
    """An encoder on several devices, and on the other machines of a cluster (`runtime.cluster=ray`).

    Args:
        encoder: the same, loaded here.
        load: loads it; each worker does.
        everywhere: whether all machines can have the model; one that has it not after all is left out.
        folder: of the store, where the model lies in it: carried to machines that do not see the store.

    Raises:
        UserError: for a cluster that cannot be had.
    """
    how = (encoder.max_length, precision, encoder.chunk_tokens, ctx.grant.threads)
    asked = everywhere and _asks_others(ctx)
    cluster = Cluster(ctx.runtime.address, looked_at=False).watch() if asked else None
    weights = sum(weight.numel() for weight in encoder.model.parameters())
    on_cores = devices[0] == "cpu"
    need = Need(ctx.grant.threads, 0 if on_cores else 1, WEIGHT * weights / GIGABYTE if on_cores else 0.0)
    carrier = Carrier(Store(ctx.store.home), "encoding") if cluster is not None and folder is not None else None
    errand = ModelErrand(carrier, folder, partial(_load_from, how), device_there(need)) if carrier and folder else None
    workers = EncodingWorkers(partial(_loaded, load, *how), devices, ctx.say, cluster, need, errand)
    found = SharedEncoder(encoder, workers, carrier)
    found.chunk_tokens, found.at_once = encoder.chunk_tokens, encoder.at_once
    return found


def of_folder(folder: Path, device: str) -> Encoder:
    """The embedder of a folder."""
    return Encoder.load(folder, device)


def _load_from(how: tuple[int, str, int, int], folder: Path) -> Load:
    return partial(_loaded, partial(of_folder, folder), *how)


def _loaded(load: LoadEncoder, max_length: int, precision: str, chunk_tokens: int, threads: int, device: str) -> Encode:
    """The embedder of a worker, and how it encodes a chunk."""
    torch.set_num_threads(threads)
    encoder = load("cpu")  # whose memory may hold the files' precision, which the device's may not
    encoder.max_length = max_length
    encoder.model.to(dtype_of(precision)).to(device)
    encoder.chunk_tokens = min(chunk_tokens, CHUNK_TOKENS)

    def encode(rows: list[Ids]) -> tuple[Vectors, int]:
        found = np.empty((len(rows), encoder.dimension), np.float32)
        for places, vectors in encoder.pieces_of(rows):
            found[places] = vectors
        return found, encoder.chunk_tokens

    return encode
