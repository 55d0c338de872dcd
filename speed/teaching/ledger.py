"""What the journal says was asked and paid, added up by purpose, kind, model and cause."""

from __future__ import annotations

from speed.core.ledger import Line
from speed.teaching.journal import Entry, Journal

_QUERY = """
SELECT purpose, kind, model, cause, count(*), sum(retry > 0), sum(resent),
       sum(tokens_in), sum(tokens_out), sum(tokens_cached), sum(dollars), sum(answered AND dollars IS NULL)
FROM entry GROUP BY purpose, kind, model, cause ORDER BY purpose, kind, model, cause
"""


def ledger_of(journal: Journal) -> list[Line]:
    """One line per purpose, kind, model and cause that the transport saw."""
    names = ("purpose", "kind", "model", "cause", "calls", "retries", "resent", "tokens_in", "tokens_out")
    return [
        Line(
            **dict(zip(names, figures, strict=True)),
            tokens_cached=cached,
            dollars=None if unpriced else dollars or 0.0,
        )
        for *figures, cached, dollars, unpriced in journal.select(_QUERY)
    ]


def cost_of(entry: Entry, cause: str, *, cached: bool) -> Line:
    """One request as a line of a ledger: how it ended for the caller; free where the journal had its answer."""
    place = {"purpose": entry.purpose, "kind": entry.kind, "model": entry.model, "cause": cause}
    if cached:
        return Line(**place, cached=1)
    return Line(
        **place,
        calls=1,
        retries=int(entry.params.get("retry", 0) > 0),
        resent=entry.resent,
        tokens_in=entry.tokens_in,
        tokens_out=entry.tokens_out,
        tokens_cached=entry.tokens_cached,
        dollars=entry.dollars,
    )
