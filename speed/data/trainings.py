"""What a generator is trained on and how: rows of supervised and preference training, and their settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from speed.core.spec import Json, Spec, fields_of

Loss = Literal["sigmoid", "ipo", "robust", "hinge", "apo_zero", "apo_down", "simpo", "cpo", "orpo"]
"""Objectives of a preference training."""
WITHOUT_REFERENCE = ("simpo", "cpo", "orpo")
"""Those that look at the trained model alone."""


class Sft(Spec):
    """Supervised fine-tuning (paper, equation 1 and Appendix B)."""

    learning_rate: float
    batch_size: int
    epochs: float
    max_length: int
    """Tokens of prompt and completion together; longer rows are left out and counted."""
    warmup_ratio: float = 0.03
    seed: int = 0

    @property
    def texts_a_row(self) -> int:
        """Texts that a row of the batch is: prompt and completion."""
        return 1


class Dpo(Spec):
    """Direct preference optimisation (paper, equation 2 and Appendix B), and what others have put in its place."""

    beta: float = Field(gt=0.0)
    """Strength of the reference; with loss=ipo it is that paper's tau, on log-probabilities a token. Without a
    reference it is the scale of log-probabilities (simpo, cpo), or the weight of the odds ratio (orpo)."""
    learning_rate: float
    batch_size: int
    epochs: float
    max_length: int
    warmup_ratio: float = 0.1
    loss: Loss = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of judgements taken to be wrong, for loss=robust."""
    sft_weight: float = Field(default=0.0, ge=0.0)
    """Weight of a further term: the mean negative log-likelihood of the chosen answer's tokens, which keeps the
    likelihood of form (JSON) from falling with both answers (Pang et al. 2024, whose weight is 1; Llama 3: 0.2)."""
    gamma: float = Field(default=0.0, ge=0.0)
    """Margin that loss=simpo asks for between the two answers."""
    seed: int = 0

    @model_validator(mode="after")
    def _smoothed(self) -> Dpo:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(
                f"label_smoothing={self.label_smoothing} has no effect on loss={self.loss}: set it to 0, or loss=robust"
            )
        if self.gamma and self.loss != "simpo":
            raise ValueError(f"gamma={self.gamma} has no effect on loss={self.loss}: set it to 0, or loss=simpo")
        return self

    @property
    def texts_a_row(self) -> int:
        """Texts that a row of the batch is: the prompt with each of two answers."""
        return 2

    @property
    def needs_reference(self) -> bool:
        """Whether the loss looks at the model that the training started from."""
        return self.loss not in WITHOUT_REFERENCE

    def recipe(self) -> Json:
        """Identity: the fields; gamma where it has an effect."""
        return {name: value for name, value in fields_of(self).items() if name != "gamma" or value}


class Completion(Spec):
    """One SFT row."""

    prompt: str
    completion: str


class Preference(Spec):
    """One DPO row."""

    prompt: str
    chosen: str
    rejected: str
    begun: str = ""
    """What both answers begin with; it is context, and nothing is learned on it."""
