"""What a plan must know of a part to tell how much memory and time it takes."""

from __future__ import annotations

from typing import Literal, NamedTuple

from speed.data.costs.memory import Footprint


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


class EvaluationLoad(NamedTuple):
    """What a plan must know of an evaluation."""

    characters: int
    """Of all texts, about."""
    precision: Literal["fp32", "bf16", "fp16"]
