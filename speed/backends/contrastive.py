"""The embedder's training (paper §3.1, §4.1, Appendix B; recipe of E5-mistral, arXiv 2401.00368): contrastive LoRA.

A bare loop over token rows made once. A step pools queries and documents, sorts them by length, cuts them into
chunks and accumulates the exact gradient of the whole batch's loss (`speed.model.batching`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from speed.core.content import ModelReference
from speed.core.context import Context
from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.ports import EmbedderTrainer

if TYPE_CHECKING:
    from typing import Self

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Lora(Spec):
    """Low-rank adapters (PEFT); merged into the exported model."""

    r: Annotated[int, Field(ge=1)] = 16
    """Rank (paper, Appendix B)."""
    alpha: Positive = 32
    """Scale; 32 as in the adapter that E5-mistral published."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """On the adapter's input; 0.1 as in the adapter that E5-mistral published."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers; `all-linear` alone stands for all."""


class Masks(Spec):
    """Which documents of the batch do not count as a query's negatives (`speed.model.loss.blocked`)."""

    identical_positives: bool = True
    own_duplicates: bool = True
    same_label: bool = True
    score_margin: float | None = None


class ContrastiveTrainer(EmbedderTrainer):
    """InfoNCE with in-batch and hard negatives; LoRA or full fine-tuning; one process."""

    heavy: ClassVar[tuple[str, ...]] = ("torch", "peft", "transformers.modeling_utils")

    base: ModelReference
    """Hub name, folder, or `package:miniature/bases/NAME`."""
    lora: Lora | None = Lora()
    """None trains all weights."""
    learning_rate: Positive = 1e-4
    """E5-mistral, §4.2."""
    temperature: Positive = 0.02
    """E5-mistral, §4.2."""
    batch_size: Annotated[int, Field(ge=2)] = 1536
    """Records a step, and so the number of in-batch negatives (paper, Appendix B)."""
    epochs: Annotated[int, Field(ge=1)] = 1
    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens, special ones included."""
    warmup_ratio: Share = 0.1
    """Share of the steps; a fixed number would eat most of a small run (E5-mistral: 100 of under 1,000 steps)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    max_gradient_norm: Positive | None = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the arithmetic inside the transformer; the loss is always fp32."""
    pooling: Literal["last", "mean", "cls"] = "last"
    normalize: bool = True
    bos: Literal["as_base", "always", "never"] = "as_base"
    """Whether a BOS token stands in front of every text."""
    instruction: str = "Instruct: {task}\nQuery: {query}"
    """How a query is written (E5-mistral, §3.2); documents stand alone."""
    batching: Literal["mixed", "homogeneous"] = "mixed"
    """Whether a batch holds all kinds of examples in their proportions, or one kind."""
    masks: Masks = Masks()
    hard_negatives: bool = True
    """Whether the records' hard negatives are used."""
    share_hard_negatives: bool = True
    """Whether a hard negative also counts for the other queries of the batch."""
    chunk_tokens: Annotated[int, Field(ge=1)] = 4096
    """Padded tokens encoded at once. Bounds the memory of a step."""
    kept_tokens: Annotated[int, Field(ge=0)] = 32768
    """Padded tokens whose activations are kept between the two passes of a step; the others are computed twice."""

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if "{query}" not in self.instruction or "{task}" not in self.instruction:
            raise ValueError("instruction must contain {task} and {query}")
        if not self.instruction.endswith("{query}"):
            raise ValueError("instruction must end with {query}, so that it can be kept as a prompt in front of a text")
        return self

    def steps(self, examples: int) -> int:
        """Optimiser steps for so many examples (with homogeneous batches up to four more an epoch)."""
        return self.epochs * -(-examples // self.batch_size)

    def train(self, examples: Path, out: Path, seed: int, ctx: Context) -> None:
        """Train on the `Example`s of a JSONL file; the model, in sentence-transformers layout, into `out/model`.

        Resumes, to the bit, from the last checkpoint in `out/checkpoints`, which is removed at the end.

        Raises:
            UserError: no usable records, a base that cannot be loaded, a setting that this machine cannot carry out,
                or a loss that is no longer a number (with the step and the records; checkpoints stay).
        """
        from speed.backends.contrastive_loop import run

        if ctx.runtime.processes > 1:
            raise UserError(
                f"runtime.processes={ctx.runtime.processes}, but this embedder trains in one process: "
                "set runtime.processes=1"
            )
        run(self, examples, out, seed, ctx)
