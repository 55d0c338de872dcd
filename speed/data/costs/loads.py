"""What a plan must know of a part to tell how much memory and time it takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from speed.core.machine import GIGABYTE
from speed.core.spec import Spec
from speed.data.costs.memory import RESERVED, Footprint


class EmbedderLoad(NamedTuple):
    """What a plan must know of an embedder's training."""

    base: str
    """The base model (a reference, see ModelReference)."""
    footprint: Footprint
    chunk: int
    """Padded tokens encoded at once."""
    kept: int
    """Padded tokens whose activations are kept between the two passes of a step."""
    checkpointing: bool
    """Whether layers keep their inputs only."""
    hard_negatives: int = 1
    """Of a record in a step, at most."""
    graded: bool = False
    """Whether graded documents are trained on."""
    scored: int = 1
    """Models that an evaluation reads its texts with: the embedder, and its base where that is scored too."""


class EngineLoad(NamedTuple):
    """What one model takes while it generates."""

    weights: float
    """Bytes."""
    token: float
    """Bytes of the keys and values of a token."""
    tokens: int
    """That are held at once at most."""
    option: str
    """The setting that says how many."""
    shared_by: tuple[int, ...] = (1,)
    """Numbers of GPUs that can share the model."""
    merged: float = 0.0
    """Bytes on disk of the copy with its adapter merged, while it is loaded; 0 where none is written."""

    def groups(self, gigabytes: float) -> tuple[int, ...]:
        """Those numbers up to the first for which GPUs of so many GB suffice; all where none does."""
        enough = next((number for number in self.shared_by if self.gigabytes(number) <= gigabytes), self.shared_by[-1])
        return tuple(number for number in self.shared_by if number <= enough)

    def gigabytes(self, gpus: int, tokens: int | None = None) -> float:
        """On each of so many GPUs that share the model."""
        return (self.weights + (tokens or self.tokens) * self.token) / gpus / GIGABYTE + RESERVED


class EvaluationLoad(NamedTuple):
    """What a plan must know of an evaluation."""

    characters: int
    """Of all texts, about."""
    precision: Literal["fp32", "bf16", "fp16"]


class Measured(Spec):
    """What a few real steps, or one batch of texts, took (`probe=true`)."""

    gigabytes: float
    """Peak of each GPU, or of the process where it computes on cores."""
    tokens_per_second: float
    """Of all processes that share the work: read in a training and an encoding, written in a generation."""
    settings: str = ""
    """What took the place of `auto`."""
    cut: str = ""
    """What did not fit into memory, and the setting that did."""
