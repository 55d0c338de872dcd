"""What `probe=true` carries out for a stage: a few real steps of a training, or one batch of texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from speed.core.work import Work
from speed.data.costs.loads import Measured
from speed.data.trainings import Dpo, Sft
from speed.ports import EmbedderTrainer, Engine, Evaluator, Lengths, Sampling, Trainer, Training
from speed.runtime import Context


@dataclass(frozen=True)
class Trial(ABC):
    """A few real steps of a stage, or one batch, at its own settings and longest lengths. Equal ones are measured once.

    Lengths that only say how much there is to do are no part of the comparison.
    """

    group: ClassVar[Literal["generation", "training", "evaluation"]]
    """Of GPU-hours, in a plan."""
    smaller: ClassVar[str]
    """Settings that take less memory."""
    by_device: ClassVar[bool] = False
    """Whether one of the stage's devices is measured, the others being as fast."""

    tokens_expected: float = field(compare=False)
    """Of a row of the stage, as measured ones are counted; of all texts, in an evaluation."""

    @abstractmethod
    def measure(self, out: Path, ctx: Context) -> Measured | None:
        """Carry it out in an empty folder; None where the part has nothing to measure.

        Raises:
            UserError: where it cannot be carried out or does not fit, with the remedy.
        """

    def tokens(self, work: Work) -> float:
        """Tokens that the stage has still to go through."""
        return self.tokens_expected * (work.generated or work.trained)


@dataclass(frozen=True)
class TrainingTrial(Trial):
    """Three steps of a generator's training."""

    base: str
    config: Sft | Dpo
    trainer: Trainer

    group: ClassVar[Literal["training"]] = "training"
    smaller: ClassVar[str] = (
        "a smaller divisor of the batch as trainer.micro_batch, trainer.gradient_checkpointing=true"
    )

    def measure(self, out: Path, ctx: Context) -> Measured | None:
        return self.trainer.probe(self.base, self.config, out, ctx)


@dataclass(frozen=True)
class GenerationTrial(Trial):
    """One batch of texts."""

    base: str
    engine: Engine
    lengths: Lengths
    sampling: Sampling

    group: ClassVar[Literal["generation"]] = "generation"
    smaller: ClassVar[str] = "a smaller engine.batch_tokens (engine=vllm: engine.cache_tokens)"

    def measure(self, out: Path, ctx: Context) -> Measured | None:
        return self.engine.probe(self.base, self.lengths, self.sampling, out, ctx)


def trial_of(training: Training) -> TrainingTrial:
    """What is measured of a generator's training."""
    return TrainingTrial(training.tokens_a_row, training.base, training.config, training.trainer)


@dataclass(frozen=True)
class EmbedderTrial(Trial):
    """Three steps of a contrastive training."""

    trainer: EmbedderTrainer

    group: ClassVar[Literal["training"]] = "training"
    smaller: ClassVar[str] = "a smaller embedder.chunk_tokens and embedder.kept_tokens"

    def measure(self, out: Path, ctx: Context) -> Measured | None:
        return self.trainer.probe(out, ctx)


@dataclass(frozen=True)
class EncodingTrial(Trial):
    """A few chunks of texts."""

    evaluator: Evaluator
    trainer: EmbedderTrainer

    group: ClassVar[Literal["evaluation"]] = "evaluation"
    by_device: ClassVar[bool] = True
    smaller: ClassVar[str] = "eval.precision=bf16, a smaller eval.max_length"

    def measure(self, out: Path, ctx: Context) -> Measured | None:
        return self.evaluator.probe(self.trainer, ctx)

    def tokens(self, work: Work) -> float:
        return self.tokens_expected
