"""What a build costs: as a plan expects it (Work), and as it was seen (Tally)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from speed.core.ledger import Ledger
from speed.core.spec import Json


@dataclass(frozen=True)
class Work:
    """Estimate of a build: what a plan adds up."""

    calls: int = 0
    """Requests to the teacher, retries aside."""
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float | None = 0.0
    """List price; None when the teacher's price is unknown."""
    generated: int = 0
    """Texts that a small model writes."""
    trained: int = 0
    """Records seen in training, epochs counted."""
    waiting: float = 0.0
    """Seconds that the teacher takes, one request after another."""

    def __add__(self, other: Work) -> Work:
        dollars = None if self.dollars is None or other.dollars is None else self.dollars + other.dollars
        return Work(
            self.calls + other.calls,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            dollars,
            self.generated + other.generated,
            self.trained + other.trained,
            self.waiting + other.waiting,
        )


@dataclass
class Tally:
    """What a build saw and spent; written into its manifest."""

    counts: Counter[str] = field(default_factory=Counter)
    """`in`, `out` and whatever else the stage counts."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected rows, by cause."""
    cost: Counter[str] = field(default_factory=Counter)
    """`calls`, `retries`, `cached`, `tokens_in`, `tokens_out`, and causes of failure."""
    dollars: float | None = 0.0
    """List price of the answers used; None as soon as one price is unknown."""
    metrics: dict[str, Json] = field(default_factory=dict)
    """Figures for the report, such as the last loss."""
    ledger: Ledger = field(default_factory=Ledger)
    """Every request to a teacher, by purpose, kind, model and cause."""

    def spend(self, dollars: float | None) -> None:
        """Add the price of one answer; an unknown price makes the sum unknown, never smaller."""
        self.dollars = None if dollars is None or self.dollars is None else self.dollars + dollars
