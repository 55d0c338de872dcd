"""When a hard negative is left out: by its similarity to the query and that of the positive."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from speed.core.spec import Spec

CAUSES = {
    "near_positive": "is nearly as near to the query as its positive, or nearer",
    "below_margin": "is less than the least margin farther from the query than the positive",
    "above_margin": "is more than the largest margin farther from the query than the positive",
}
"""Why a negative is left out."""


def nearly(similarity: float, share: float) -> float:
    """The share of a similarity; of one below 0 what lies as much below it."""
    return similarity * (share if similarity > 0 else 2 - share)


class NegativeRules(Spec):
    """Which negatives, and which records, the embedder is not trained on."""

    positive_share: float | None = Field(None, gt=0)
    """A negative needs a similarity below this share of the positive's (NV-Retriever, arXiv 2407.15831: 0.95)."""
    margin: tuple[float, float] | None = None
    """Least and largest difference of the positive's similarity to a negative's."""
    top: int | None = Field(None, ge=1)
    """A positive must be among so many nearest documents of its query (consistency), or its record is left out."""
    removes: Literal["negative", "record"] = "negative"
    """What goes with a negative: itself alone, or the record too when none of its negatives is left."""

    @model_validator(mode="after")
    def _ordered(self) -> NegativeRules:
        if self.margin is not None and self.margin[0] >= self.margin[1]:
            raise ValueError(f"margin={list(self.margin)}: the first must be less than the second")
        return self

    @property
    def any(self) -> bool:
        """Whether anything can be left out."""
        return self.positive_share is not None or self.margin is not None or self.top is not None

    def cause(self, positive: float, negative: float) -> str:
        """Why a negative is left out; empty where it stays.

        Args:
            positive: similarity of query and positive.
            negative: similarity of query and negative.
        """
        if self.positive_share is not None and negative >= nearly(positive, self.positive_share):
            return "near_positive"
        if self.margin is not None and positive - negative < self.margin[0]:
            return "below_margin"
        if self.margin is not None and positive - negative > self.margin[1]:
            return "above_margin"
        return ""
