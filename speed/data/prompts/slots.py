"""What the slots of the prompts may hold, and how often."""

from __future__ import annotations

from random import Random

from pydantic import Field, field_validator, model_validator

from speed.core.spec import Spec
from speed.data.draws import weighted_choice


class Choices(Spec):
    """What a slot may hold. A plain list is a uniform choice."""

    values: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    """One for each value; they need not add up to 1. None: uniform."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: object) -> object:
        return {"values": value} if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _check(self) -> Choices:
        if self.weights and len(self.weights) != len(self.values):
            raise ValueError(f"{len(self.values)} values need as many weights, not {len(self.weights)}")
        if self.weights and (min(self.weights) < 0 or sum(self.weights) <= 0):
            raise ValueError("weights must be 0 or more, and one of them above 0")
        return self

    def draw(self, rng: Random) -> str:
        """One of the values."""
        return weighted_choice(rng, self.values, self.weights)


class Lengths(Spec):
    """How long texts are asked to be. A small model with a short context needs smaller numbers; the wording stays."""

    retrieval_words: tuple[int, ...] = Field((50, 100, 200, 300, 400, 500), min_length=1)
    """Each document: at least so many words, uniform (E5-mistral, table 8)."""
    classification_words: Choices = Choices(
        values=("less than 10", "at least 10", "at least 50", "at least 100", "at least 200"),
        weights=(0.1, 0.3, 0.2, 0.2, 0.2),
    )
    """The input text (E5-mistral, table 9; weights: the SPEED authors' code)."""
    long_words: int = 300
    """Both texts of a long-long example: at least so many words (E5-mistral, table 10)."""

    @field_validator("retrieval_words")
    @classmethod
    def _positive(cls, words: tuple[int, ...]) -> tuple[int, ...]:
        if min(words) < 1:
            raise ValueError("a document has at least 1 word")
        return words
