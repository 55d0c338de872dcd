"""What the journal says was asked and paid, added up. The causes of a ledger always sum to its requests.

Causes are those that the transport sees (ok, truncated, refusal, content_filter, empty, http_4xx, timeout ...);
whether a text parses is decided anew by each reading, and stands in the manifest of the stage that read it.
"""

from __future__ import annotations

from collections.abc import Iterable

from speed.core.journal import Journal
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
    """Requests that ended this way, second tries for a better content included."""
    retries: int = 0
    """Those of them that were second tries."""
    resent: int = 0
    """Further sendings after transport failures; unpaid."""
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    dollars: float | None = 0.0
    """List price; None as soon as one price is unknown."""


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
        for name in ("calls", "retries", "resent", "tokens_in", "tokens_out", "tokens_cached")
    }
    prices = [line.dollars for line in lines]
    return Line(**shared, **sums, dollars=None if None in prices else sum(price or 0.0 for price in prices))
