"""Memory and time that a training or a generation will need, before anything is loaded: estimates for a plan.

Weights, gradients and optimizer are counted exactly; activations by a formula for decoders with fused attention, whose
scores are never kept (after Korthikanti et al. 2022, arXiv 2205.05198, section 4); time by six arithmetic operations a
weight and token (Kaplan et al. 2020, section 2.1), four where most weights stand still, at 40 % of the GPU's peak.
A tiny model's training takes 0.7 to 0.9 of what is said here (experiments/alignment.md). Nothing was measured on a GPU:
an estimate says where to begin, and the first step says whether it fits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

from speed.core.spec import Spec
from speed.data.costs.model_shapes import Shape

GIGABYTE = 1024**3
RESERVED = 2.0
"""GB for the driver, kernels and fragments of memory (ours)."""
UTILISATION = 0.4
"""Share of the peak that trainings reach (ours)."""
PEAKS = {24: 165e12, 40: 312e12, 80: 312e12}
"""bf16 operations a second of GPUs with so many GB: RTX 4090, and A100 twice (their data sheets)."""
ADAM = 8
"""Bytes a trained weight: two moments in fp32."""
TILE = (4_096, 32_768)
"""Tokens and words of the vocabulary whose logits TRL 1.16 makes at once: all logits of a batch never stand there."""


class Footprint(Spec):
    """What of a trainer's settings decides over memory."""

    lora: int | None
    """Rank of the adapter; None where all weights are trained."""
    weight_bytes: Literal[2, 4]
    """Of a weight in the forward pass."""
    checkpointing: bool
    """Activations are computed twice rather than kept."""
    embeddings: bool = False
    """The embedding matrix is trained beside the adapter."""


class Fit(NamedTuple):
    """How a training fits into one GPU, or into how many."""

    micro_batch: int
    checkpointing: bool
    gpus: int
    """1, or the processes that ZeRO-3 needs."""
    gigabytes: float
    """Of each GPU."""

    def __str__(self) -> str:
        parts = [f"micro_batch={self.micro_batch}", "checkpointing" if self.checkpointing else ""]
        parts += [f"zero3 on {self.gpus}" if self.gpus > 1 else "", f"({self.gigabytes:.0f} GB)"]
        return " ".join(filter(None, parts))


def trained_weights(shape: Shape, footprint: Footprint) -> int:
    """Weights that the optimizer moves."""
    if footprint.lora is None:
        return shape.parameters
    return shape.lora(footprint.lora) + (shape.embedding if footprint.embeddings else 0)


def state_bytes(shape: Shape, footprint: Footprint, preference: bool) -> int:
    """Weights, gradients and optimizer, and the reference of a preference training."""
    trained = trained_weights(shape, footprint)
    moving = trained * (4 + 4 + ADAM)  # weight and gradient in fp32
    if footprint.lora is None:
        standing = shape.parameters * footprint.weight_bytes if footprint.weight_bytes < 4 else 0  # autocast's copies
        return moving + standing + (shape.parameters * 4 if preference else 0)
    return moving + shape.parameters * footprint.weight_bytes + (trained * 4 if preference else 0)


def activation_bytes(shape: Shape, footprint: Footprint, checkpointing: bool) -> int:
    """Kept for the backward pass, a token."""
    attention = 2 * (shape.heads + 2 * shape.key_heads) * shape.head
    block = footprint.weight_bytes * (10 * shape.hidden + attention + 4 * shape.feed_forward)
    return footprint.weight_bytes * shape.hidden * shape.layers + block if checkpointing else block * shape.layers


def head_bytes(footprint: Footprint, tokens: int) -> int:
    """Logits that stand at once when so many tokens of answers pass at once."""
    rows, words = TILE
    return min(tokens, rows) * words * footprint.weight_bytes


def training_bytes(
    shape: Shape, footprint: Footprint, tokens: int, checkpointing: bool, preference: bool = False, gpus: int = 1
) -> float:
    """Of each GPU, when so many tokens pass at once and ZeRO-3 shares the state among `gpus`."""
    state = state_bytes(shape, footprint, preference) / gpus
    gathered = max(shape.embedding, sum(a * b for a, b in shape.linears)) * footprint.weight_bytes if gpus > 1 else 0
    passing = tokens * activation_bytes(shape, footprint, checkpointing) + head_bytes(footprint, tokens)
    return state + gathered + passing


def fit(
    shape: Shape, footprint: Footprint, batch_size: int, max_length: int, gigabytes: int, preference: bool = False
) -> Fit | None:
    """The largest share of a batch whose rows of full length fit, on as few GPUs as possible; None where not even one
    row a GPU does.

    Keeping activations is tried before computing them twice, unless the trainer computes them twice anyway.
    """
    room = (gigabytes - RESERVED) * GIGABYTE
    rows_a_pair = 2 if preference else 1
    for gpus in reversed(list(_divisors(batch_size))):
        for checkpointing in (True,) if footprint.checkpointing else (False, True):
            for micro_batch in _divisors(batch_size // gpus):
                tokens = micro_batch * rows_a_pair * max_length
                needed = training_bytes(shape, footprint, tokens, checkpointing, preference, gpus)
                if needed <= room:
                    return Fit(micro_batch, checkpointing, gpus, needed / GIGABYTE + RESERVED)
    return None


def training_hours(
    shape: Shape, footprint: Footprint, tokens: int, found: Fit, gigabytes: int, preference: bool = False
) -> float:
    """For so many tokens, all rows and epochs counted."""
    # forward and backward; forward again; forward of the reference
    passes = (6 if footprint.lora is None else 4) + (2 if found.checkpointing else 0) + (2 if preference else 0)
    return passes * shape.parameters * tokens / (PEAKS[gigabytes] * UTILISATION * found.gpus) / 3600


def cache_bytes(shape: Shape, weight_bytes: int = 2) -> int:
    """Keys and values of one token in generation."""
    return 2 * shape.layers * shape.key_heads * shape.head * weight_bytes


def rows_at_once(shape: Shape, tokens: int, gigabytes: int, weight_bytes: int = 2) -> int:
    """Texts of so many tokens, prompt and answer, that fit side by side; 0 where the weights alone do not."""
    room = (gigabytes - RESERVED) * GIGABYTE - shape.parameters * weight_bytes
    return max(0, math.floor(room / (tokens * cache_bytes(shape, weight_bytes))))


def _divisors(batch: int) -> Iterator[int]:
    return (rows for rows in range(batch, 0, -1) if batch % rows == 0)
