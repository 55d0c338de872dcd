"""Values of the slots of prompts, and how often each is drawn."""

from __future__ import annotations

from random import Random

from pydantic import Field, field_validator, model_validator

from speed.core.spec import Spec
from speed.data.draws import weighted_choice


class Choices(Spec):
    """Values of a slot with their weights. A plain list is drawn from uniformly."""

    values: tuple[str, ...] = Field(min_length=1)
    weights: tuple[float, ...] = ()
    """One weight for each value; they need not add up to 1. Empty means uniform."""

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
        """Draw one of the values."""
        return weighted_choice(rng, self.values, self.weights)


class Lengths(Spec):
    """Lengths that prompts ask for. A small model with a short context needs smaller numbers in the same wording."""

    retrieval_words: tuple[int, ...] = Field((50, 100, 200, 300, 400, 500), min_length=1)
    """Least words of each document, drawn uniformly (E5-mistral, Table 8)."""
    classification_words: Choices = Choices(
        values=("less than 10", "at least 10", "at least 50", "at least 100", "at least 200"),
        weights=(0.1, 0.3, 0.2, 0.2, 0.2),
    )
    """Words of the input text (E5-mistral, Table 9; weights of the SPEED authors' code)."""
    long_words: int = 300
    """Least words of both texts of a long-long example (E5-mistral, Table 11)."""

    @field_validator("retrieval_words")
    @classmethod
    def _positive(cls, words: tuple[int, ...]) -> tuple[int, ...]:
        if min(words) < 1:
            raise ValueError("a document has at least 1 word")
        return words
