"""What the journal says was asked and paid, added up. The causes of a ledger always sum to its requests.

A ledger of the journal knows the causes that the transport sees (ok, truncated, refusal, content_filter, empty,
http_4xx, timeout ...). Whether a text parses is decided anew by each reading: the ledger of a stage, in its manifest,
has those causes too (no_json, bad_schema ...), and tells what was asked now from what was in the journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from speed.core.journal import Entry, Journal
from speed.core.spec import Spec

_QUERY = """
SELECT purpose, kind, model, cause, count(*), sum(retry > 0), sum(resent),
       sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(dollars), sum(answered AND dollars IS NULL)
FROM entry GROUP BY purpose, kind, model, cause ORDER BY purpose, kind, model, cause
"""


class Line(Spec):
    """Requests that were asked for one purpose, of one kind and model, and ended in one way."""

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
    dollars: float | None = 0.0
    """List price; None as soon as one price is unknown."""

    @property
    def requests(self) -> int:
        """All of them; over the causes of a ledger they sum to what was asked."""
        return self.calls + self.cached

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells lines apart."""
        return self.purpose, self.kind, self.model, self.cause


def ledger(journal: Journal) -> list[Line]:
    """One line per purpose, kind, model and cause."""
    lines = []
    for purpose, kind, model, cause, calls, retries, resent, tin, tout, tcached, dollars, unpriced in journal.select(
        _QUERY
    ):
        lines.append(
            Line(
                purpose=purpose,
                kind=kind,
                model=model,
                cause=cause,
                calls=calls,
                retries=retries,
                resent=resent,
                tokens_in=tin,
                tokens_out=tout,
                tokens_cached=tcached,
                dollars=None if unpriced else dollars or 0.0,
            )
        )
    return lines


def total(lines: Iterable[Line]) -> Line:
    """The sum of some lines; the names that they all share stay."""
    lines = list(lines)
    shared = {
        name: values.pop()
        for name in ("purpose", "kind", "model", "cause")
        if len(values := {getattr(line, name) for line in lines}) == 1
    }
    sums = {
        name: sum(getattr(line, name) for line in lines)
        for name in ("calls", "cached", "retries", "resent", "tokens_in", "tokens_out", "tokens_cached")
    }
    prices = [line.dollars for line in lines]
    return Line(**shared, **sums, dollars=None if None in prices else sum(price or 0.0 for price in prices))


def gathered(lines: Iterable[Line]) -> list[Line]:
    """The same lines, those of one purpose, kind, model and cause added up, in order."""
    places: dict[tuple[str, str, str, str], list[Line]] = {}
    for line in lines:
        places.setdefault(line.place, []).append(line)
    return [total(places[place]) for place in sorted(places)]


class Ledger:
    """A ledger that grows request by request; its size is that of its lines."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str, str], Counter[str]] = {}
        self._dollars: dict[tuple[str, str, str, str], float | None] = {}

    def add(self, entry: Entry, cause: str, *, cached: bool) -> None:
        """One request: how it ended for the caller, and whether the journal had it."""
        place = (entry.purpose, entry.kind, entry.model, cause)
        if place not in self._counts:
            self._counts[place], self._dollars[place] = Counter(), 0.0
        counts, dollars = self._counts[place], self._dollars[place]
        if cached:
            counts["cached"] += 1
            return
        counts["calls"] += 1
        counts["retries"] += entry.params.get("retry", 0) > 0
        for name in ("resent", "tokens_in", "tokens_out", "tokens_cached"):
            counts[name] += getattr(entry, name)
        self._dollars[place] = None if dollars is None or entry.dollars is None else dollars + entry.dollars

    def lines(self) -> tuple[Line, ...]:
        """One line per purpose, kind, model and cause, in order."""
        names = ("purpose", "kind", "model", "cause")
        return tuple(
            Line(**dict(zip(names, place, strict=True)), **self._counts[place], dollars=self._dollars[place])
            for place in sorted(self._counts)
        )
