"""The table of requests to teachers, of a run or of a journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from speed.core.ledger import Line, gathered
from speed.core.ledger import total as sum_of
from speed.data.costs.prices import dollars
from speed.runs.tables import Table, money


def ledger_table(lines: Iterable[Line], kinds: bool = True) -> Table:
    """Requests to teachers by purpose, model and (unless told otherwise) kind: how they ended, what they took and cost.

    The causes of a row sum to its requests. Brainstorming, which the paper's Table 5 leaves out, has rows of its own.
    """
    table = Table(
        "purpose", "kind", "model", "requests", "cached", "retries", "resent", "tokens in", "out", "in its cache",
        "estimated", "dollars", "in batches", "ended",
    )  # fmt: skip
    lines = gathered(lines)
    for names in dict.fromkeys(line.place[:3] for line in lines) if kinds else ():
        _ledger_row(table, names, [line for line in lines if line.place[:3] == names])
    for purpose, model in dict.fromkeys((line.purpose, line.model) for line in lines):
        ended = [line for line in lines if (line.purpose, line.model) == (purpose, model)]
        _ledger_row(table, (purpose, "all" if kinds else "", model), ended)
    _ledger_row(table, ("total", "", ""), lines)
    return table


def _ledger_row(table: Table, names: tuple[str, str, str], lines: list[Line]) -> None:
    whole, causes = sum_of(lines), Counter[str]()
    for line in lines:
        causes[line.cause] += line.requests
    batches = [dollars(line.model, line.tokens_in, line.tokens_out, batch=True) for line in lines if line.calls]
    counts = (whole.requests, whole.cached, whole.retries, whole.resent)
    tokens = (whole.tokens_in, whole.tokens_out, whole.tokens_cached, whole.estimated)
    table.add(
        *names, *(f"{count:,}" for count in (*counts, *tokens)), money(whole.dollars),
        money(None if None in batches else sum(price or 0.0 for price in batches)),
        ", ".join(f"{count:,} {cause}" for cause, count in causes.most_common()),
    )  # fmt: skip
