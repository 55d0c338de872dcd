"""Estimate the memory and time of a training or a generation, for a plan, before anything is loaded.

Weights, gradients and optimizer states are counted exactly. Activations follow a formula for decoders with fused
attention, which keeps no scores (after Korthikanti et al. 2022, arXiv 2205.05198, section 4). Time is six operations
for each weight and token (Kaplan et al. 2020, section 2.1), or four if most weights are frozen, at 40 % of the GPU's
peak. The training of a tiny model takes 0.7 to 0.9 of the estimated memory (experiments/alignment.md). Nothing was
measured on a GPU: use an estimate to begin with, and see in the first step whether the training fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from speed.core.machine import GIGABYTE
from speed.core.spec import Spec
from speed.data.costs.model_shapes import Shape
from speed.data.trainings import Dpo, Sft

RESERVED = 2.0
"""GB for the driver, kernels and fragmented memory (ours)."""
UTILISATION = 0.4
"""Share of the GPU's peak that trainings reach (ours)."""
PEAKS = {24: 165e12, 40: 312e12, 80: 312e12}
"""GB of a GPU -> its bf16 operations per second, by the data sheets of RTX 4090 and A100 (twice)."""
ADAM = 8
"""Bytes of optimizer state for each trained weight: two moments in fp32."""
TILE = (4_096, 32_768)
"""Tokens and vocabulary entries whose logits TRL 1.16 computes at once; it never holds all logits of a batch."""


CHUNK_TOKENS = 16_384
"""Padded tokens that an encoder reads at once; where they do not fit, half as many."""


class Footprint(Spec):
    """Settings of a trainer that decide how much memory it needs."""

    lora: int | None
    """Rank of the adapter; None if all weights are trained."""
    weight_bytes: Literal[2, 4]
    """Bytes of a weight in the forward pass."""
    checkpointing: bool
    """Whether activations are computed again in the backward pass instead of kept."""
    embeddings: bool = False
    """Whether the embedding matrix is trained beside the adapter."""
    micro_batch: int | None = None
    """Rows that are computed at once; None: as many as the batch has, or as fit."""
    auto_rows: bool = False
    """Whether so many rows are computed at once as fit."""
    auto_checkpointing: bool = False
    """Whether activations are computed again where they do not fit otherwise."""
    precomputed_reference: bool = False
    """Whether the reference of a preference training is run before it, and not beside it."""


class Fit(NamedTuple):
    """How a training fits into one or more GPUs."""

    micro_batch: int
    checkpointing: bool
    gpus: int
    """1, or the number of GPUs that ZeRO-3 needs."""
    gigabytes: float
    """Memory needed on each GPU."""

    @property
    def settings(self) -> str:
        """What a trainer is set to for it."""
        return f"micro_batch={self.micro_batch} gradient_checkpointing={str(self.checkpointing).lower()}"

    def __str__(self) -> str:
        parts = [f"micro_batch={self.micro_batch}", "checkpointing" if self.checkpointing else ""]
        parts += [f"zero3 on {self.gpus}" if self.gpus > 1 else "", f"({self.gigabytes:.0f} GB)"]
        return " ".join(filter(None, parts))


def trained_weights(shape: Shape, footprint: Footprint) -> int:
    """Number of weights that the optimizer updates."""
    if footprint.lora is None:
        return shape.parameters
    return shape.lora(footprint.lora) + (shape.embedding if footprint.embeddings else 0)


def checkpoint_bytes(trained: int, gathered: int = 0) -> int:
    """Bytes of a checkpoint of a training of so many weights: each in fp32 and its optimizer state.

    Args:
        gathered: bytes of a weight of the model that DeepSpeed's ZeRO-3 writes beside that, in the type of the
            arithmetic; 0 where each process has the whole model.
    """
    return trained * (4 + ADAM + gathered)


def state_bytes(shape: Shape, footprint: Footprint, config: Sft | Dpo | None = None) -> int:
    """Bytes of weights, gradients and optimizer states, and of the reference model of a preference training.

    Beside an adapter the reference is a copy of it, which TRL 1.16 makes for every objective. Beside all weights it is
    a second model, where one runs during the training.

    Args:
        config: of a generator's training; None of an embedder's.
    """
    trained = trained_weights(shape, footprint)
    updated = trained * (4 + 4 + ADAM)  # weight and gradient in fp32
    if footprint.lora is None:
        copies = shape.parameters * footprint.weight_bytes if footprint.weight_bytes < 4 else 0  # made by autocast
        return updated + copies + (shape.parameters * 4 if _runs_reference(footprint, config) else 0)
    return updated + shape.parameters * footprint.weight_bytes + (trained * 4 if isinstance(config, Dpo) else 0)


def _runs_reference(footprint: Footprint, config: Sft | Dpo | None) -> bool:
    return isinstance(config, Dpo) and config.needs_reference and not footprint.precomputed_reference


def activation_bytes(shape: Shape, footprint: Footprint, checkpointing: bool) -> int:
    """Bytes kept for the backward pass, for each token."""
    attention = 2 * (shape.heads + 2 * shape.key_heads) * shape.head
    block = footprint.weight_bytes * (10 * shape.hidden + attention + 4 * shape.feed_forward)
    return footprint.weight_bytes * shape.hidden * shape.layers + block if checkpointing else block * shape.layers


def head_bytes(footprint: Footprint, tokens: int) -> int:
    """Bytes of the logits that are held at once, for so many answer tokens in a micro-batch."""
    rows, words = TILE
    return min(tokens, rows) * words * footprint.weight_bytes


def training_bytes(
    shape: Shape, footprint: Footprint, config: Sft | Dpo, tokens: int, checkpointing: bool, gpus: int = 1
) -> float:
    """Bytes on each GPU for so many tokens in a micro-batch; ZeRO-3 shares the state among `gpus`."""
    state = state_bytes(shape, footprint, config) / gpus
    gathered = max(shape.embedding, sum(a * b for a, b in shape.linears)) * footprint.weight_bytes if gpus > 1 else 0
    passing = tokens * activation_bytes(shape, footprint, checkpointing) + head_bytes(footprint, tokens)
    return state + gathered + passing


def embedder_bytes(shape: Shape, footprint: Footprint, chunk: int, kept: int, checkpointing: bool) -> float:
    """Bytes on each GPU for a contrastive step of a model without a head.

    Args:
        chunk: padded tokens encoded at once.
        kept: padded tokens whose activations stay between the two passes of a step.
        checkpointing: whether layers keep their inputs only.
    """
    state = state_bytes(shape, footprint) - (0 if shape.tied else shape.embedding * footprint.weight_bytes)
    dropped = 0  # in front of the seven adapters of a block: a mask of bytes, and what it leaves
    if footprint.lora is not None:
        dropped = shape.layers * (6 * shape.hidden + shape.feed_forward) * (1 + footprint.weight_bytes)
    whole = activation_bytes(shape, footprint, False) + dropped
    if not checkpointing:
        return state + max(chunk, kept) * whole
    inputs = footprint.weight_bytes * shape.hidden * shape.layers
    return state + max(chunk, kept) * inputs + chunk * whole / shape.layers


def encoding_bytes(shape: Shape, weight_bytes: int, tokens: int) -> float:
    """Bytes of a model without a head that reads so many tokens at once and keeps nothing of a layer for later: most
    stand in a feed-forward layer, three of its width and four of the model's for each token."""
    weights = shape.parameters - (0 if shape.tied else shape.embedding)
    return weight_bytes * (weights + tokens * (3 * shape.feed_forward + 4 * shape.hidden))


def fit(shape: Shape, footprint: Footprint, config: Sft | Dpo, gigabytes: int) -> Fit | None:
    """Find the largest micro-batch of full-length rows that fits, on as few GPUs as possible; None if nothing fits.

    Keeping activations is tried before checkpointing, unless the trainer always uses checkpointing.
    """
    tried = (fit_on(shape, footprint, config, gigabytes, gpus) for gpus in reversed(list(_divisors(config.batch_size))))
    return next(filter(None, tried), None)


def fit_on(
    shape: Shape,
    footprint: Footprint,
    config: Sft | Dpo,
    gigabytes: float,
    gpus: int,
    partitioned: bool = True,
) -> Fit | None:
    """The largest micro-batch of full-length rows that fits on so many GPUs; None if none does.

    Args:
        partitioned: whether they share one model, as ZeRO-3 does; otherwise each has the whole of it.
    """
    for checkpointing in (True,) if footprint.checkpointing else (False, True):
        for micro_batch in _divisors(config.batch_size // gpus):
            tokens = micro_batch * config.texts_a_row * config.max_length
            shared = gpus if partitioned else 1
            needed = training_bytes(shape, footprint, config, tokens, checkpointing, shared) / GIGABYTE + RESERVED
            if needed <= gigabytes:
                return Fit(micro_batch, checkpointing, gpus, needed)
    return None


def host_gigabytes(shape: Shape, footprint: Footprint, config: Sft | Dpo, rows: int, tokens: float) -> float:
    """GB of the machine's memory that a training on cores takes.

    Args:
        rows: of a micro-batch; pairs, in a preference training.
        tokens: of each, padded.
    """
    return training_bytes(shape, footprint, config, round(rows * tokens), footprint.checkpointing) / GIGABYTE


def training_hours(
    shape: Shape, footprint: Footprint, tokens: int, fitted: Fit, gigabytes: int, config: Sft | Dpo | None = None
) -> float:
    """Hours for so many tokens: those of all rows in all epochs. A reference that runs before the training is left out.

    Args:
        config: as in `state_bytes`.
    """
    # forward and backward; forward again for checkpointing; forward of the reference
    passes = (
        (6 if footprint.lora is None else 4)
        + (2 if fitted.checkpointing else 0)
        + (2 if _runs_reference(footprint, config) else 0)
    )
    return passes * shape.parameters * tokens / (PEAKS[gigabytes] * UTILISATION * fitted.gpus) / 3600


def cache_bytes(shape: Shape, weight_bytes: int = 2) -> int:
    """Bytes of the cached keys and values of one token in generation."""
    return 2 * shape.layers * shape.key_heads * shape.head * weight_bytes


def rows_at_once(shape: Shape, tokens: int, gigabytes: int, weight_bytes: int = 2) -> int:
    """Number of texts of so many tokens (prompt and answer) that fit at once; 0 if the weights alone do not fit."""
    room = (gigabytes - RESERVED) * GIGABYTE - shape.parameters * weight_bytes
    return max(0, math.floor(room / (tokens * cache_bytes(shape, weight_bytes))))


def _divisors(batch: int) -> Iterator[int]:
    """Divisors, largest first."""
    return (rows for rows in range(batch, 0, -1) if batch % rows == 0)
