"""Hard caps on what teachers may cost: in dollars, in tokens, in calls."""

from __future__ import annotations

from typing import NamedTuple

from speed.runtime import Runtime


class Spending(NamedTuple):
    """An amount: of one call, or of many."""

    dollars: float = 0.0
    """List price; what has no known price counts as nothing, and caps in dollars refuse such teachers."""
    tokens: int = 0
    """Input and output together."""
    calls: int = 0
    """Answers."""

    def plus(self, other: Spending) -> Spending:
        """The sum."""
        return Spending(self.dollars + other.dollars, self.tokens + other.tokens, self.calls + other.calls)

    def minus(self, other: Spending) -> Spending:
        """The difference."""
        return Spending(self.dollars - other.dollars, self.tokens - other.tokens, self.calls - other.calls)


class Caps(NamedTuple):
    """Most that may be spent under a root; None for no cap."""

    dollars: float | None = None
    tokens: int | None = None
    calls: int | None = None

    def passed(self, amount: Spending) -> str | None:
        """Name of the first cap that an amount is above, or None."""
        for name, cap, value in zip(Caps._fields, self, amount, strict=True):
            if cap is not None and value > cap + 1e-9:  # sums of prices are no exact numbers
                return name
        return None

    @property
    def none(self) -> bool:
        """Whether nothing is capped."""
        return all(cap is None for cap in self)


def caps_of(runtime: Runtime) -> Caps:
    """The caps that the options `runtime.max_usd`, `max_tokens` and `max_calls` set."""
    return Caps(runtime.max_usd, runtime.max_tokens, runtime.max_calls)
