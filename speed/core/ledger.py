"""Costs as figures: requests to a teacher, added up by purpose, kind, model and cause.

The causes of a ledger sum to its requests. The ledger of a stage stands in its manifest. Its causes are those that the
transport sees (ok, truncated, refusal, content_filter, empty, http_4xx, timeout ...) and those that the stage's own
reading gives (no_json, bad_schema ...); it tells what was asked now from what had been paid for before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from speed.core.spec import Spec

COUNTED = (
    "calls", "cached", "retries", "resent", "tokens_in", "tokens_out", "tokens_cached", "estimated", "found_tokens",
)  # fmt: skip
"""What a line counts."""
PRICED = ("dollars", "found_dollars")
"""Its prices, each of which may be unknown."""


class Line(Spec):
    """Requests made for one purpose, of one kind and model, that ended in one way."""

    purpose: str = ""
    kind: str = ""
    model: str = ""
    cause: str = ""
    calls: int = 0
    """Requests made that ended this way, second tries for a better content included."""
    cached: int = 0
    """Requests that ended this way and were answered by the journal, free."""
    retries: int = 0
    """Those of them that were second tries."""
    resent: int = 0
    """Further sendings after transport failures; unpaid."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    estimated: int = 0
    """Requests whose tokens, and so dollars, are our estimate: their provider said nothing that can be true."""
    dollars: float | None = 0.0
    """List price; None as soon as one price is unknown."""
    found_tokens: int = 0
    """Read and written, of the answers that the journal had: what they took when they were asked for."""
    found_dollars: float | None = 0.0
    """What those had cost then."""

    @property
    def requests(self) -> int:
        """All of them; over the causes of a ledger they sum to what was asked."""
        return self.calls + self.cached

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells lines apart."""
        return self.purpose, self.kind, self.model, self.cause


def total(lines: Iterable[Line]) -> Line:
    """The sum of some lines; the names that they all share stay."""
    lines = list(lines)
    shared = {
        name: values.pop()
        for name in ("purpose", "kind", "model", "cause")
        if len(values := {getattr(line, name) for line in lines}) == 1
    }
    sums = {name: sum(getattr(line, name) for line in lines) for name in COUNTED}
    prices = {name: known_sum(getattr(line, name) for line in lines) for name in PRICED}
    return Line(**shared, **sums, **prices)


def part(lines: Iterable[Line], share: float) -> tuple[Line, ...]:
    """A share of some lines: of each count so that the sum over the lines is that share of its sum, rounded."""
    lines = list(lines)
    counts = {name: _part_of_each([getattr(line, name) for line in lines], share) for name in COUNTED}
    return tuple(
        line.model_copy(
            update={
                **{name: parts[place] for name, parts in counts.items()},
                **{name: None if (price := getattr(line, name)) is None else share * price for name in PRICED},
            }
        )
        for place, line in enumerate(lines)
    )


def _part_of_each(counts: Sequence[int], share: float) -> list[int]:
    """By largest remainders."""
    exact = [share * count for count in counts]
    parts = [math.floor(each) for each in exact]
    left = round(share * sum(counts)) - sum(parts)
    for place in sorted(range(len(parts)), key=lambda place: parts[place] - exact[place])[:left]:
        parts[place] += 1
    return parts


def known_sum(prices: Iterable[float | None]) -> float | None:
    """The sum of some prices; None as soon as one is unknown."""
    listed = list(prices)
    return None if None in listed else sum(price or 0.0 for price in listed)


def gathered(lines: Iterable[Line]) -> list[Line]:
    """The same lines, those of one purpose, kind, model and cause added up, in order."""
    places: dict[tuple[str, str, str, str], list[Line]] = {}
    for line in lines:
        places.setdefault(line.place, []).append(line)
    return [total(places[place]) for place in sorted(places)]


class Ledger:
    """A ledger that grows request by request; its size is that of its lines."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, str, str, str], Line] = {}

    def add(self, line: Line) -> None:
        """Add one request, or several that ended in one way."""
        known = self._lines.get(line.place)
        self._lines[line.place] = line if known is None else total([known, line])

    def lines(self) -> tuple[Line, ...]:
        """One line per purpose, kind, model and cause, in order."""
        return tuple(self._lines[place] for place in sorted(self._lines))
