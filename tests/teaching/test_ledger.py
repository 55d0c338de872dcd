"""The ledger: causes sum to requests, prices are the paper's, brainstorming stands on its own line."""

from __future__ import annotations

from pathlib import Path

import pytest

from speed.core.ledger import Ledger, Line, gathered, total
from speed.runs.ledger_table import ledger_table
from speed.runs.report import remarks
from speed.runs.stage_lines import StageLine
from speed.teaching.entry import Entry
from speed.teaching.journal import Journal
from speed.teaching.spending import cost_of, ledger_of

GPT_4O = "gpt-4o-2024-05-13"
ALIGNMENT = {"seed": (25_000, 244, 156), "judge": (10_000, 1_100, 100), "revise": (10_000, 620, 380)}
"""Calls and tokens a call in and out: Table 5's 10M + 12M + 10M tokens, split as the lengths of the prompts give it."""
BRAINSTORM = (4_000, 280, 125)


def entry(number: int, **fields: object) -> Entry:
    return Entry.model_validate({"key": f"{number:064x}", "model": GPT_4O, "messages": (), "kind": "sts", **fields})


def paid(number: int, purpose: str, tokens_in: int, tokens_out: int, **fields: object) -> Entry:
    dollars = (5 * tokens_in + 15 * tokens_out) / 1e6
    facts = {"purpose": purpose, "tokens_in": tokens_in, "tokens_out": tokens_out, "dollars": dollars}
    return entry(number, **{**facts, **fields})


def rows_of(lines: list[Line]) -> dict[str, dict[str, str]]:
    """The table's rows by their first cell."""
    table = ledger_table(lines, kinds=False)
    return {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}


def journaled(folder: Path) -> tuple[int, list[Line]]:
    """Size and ledger of a journal with a tenth of the calls."""
    journal, number = Journal(folder), 0
    for purpose, (calls, tokens_in, tokens_out) in {**ALIGNMENT, "brainstorm": BRAINSTORM}.items():
        for _ in range(calls // 10):
            journal.append(paid(number, purpose, tokens_in, tokens_out))
            number += 1
    journal.append(entry(number, purpose="seed", cause="timeout", answered=False, dollars=0.0))
    return len(journal), ledger_of(journal)


def grown() -> tuple[int, list[Line]]:
    """The ledger of stages at the paper's full size."""
    made = Ledger()
    for purpose, (calls, tokens_in, tokens_out) in {**ALIGNMENT, "brainstorm": BRAINSTORM}.items():
        one = paid(0, purpose, tokens_in, tokens_out)
        for _ in range(calls):
            made.add(cost_of(one, "ok", cached=False))
    made.add(cost_of(entry(1, purpose="seed", answered=False, dollars=0.0), "timeout", cached=False))
    return 49_001, list(made.lines())


@pytest.mark.parametrize("size", [10, 1])
def test_table_5(tmp_path: Path, size: int) -> None:
    """25K + 10K + 10K calls, 10M + 12M + 10M tokens, and the dollars that they cost at list price and in batches."""
    requests, lines = journaled(tmp_path) if size == 10 else grown()
    sums = {purpose: total(line for line in lines if line.purpose == purpose) for purpose in (*ALIGNMENT, "brainstorm")}
    calls = {purpose: line.calls - (purpose == "seed") for purpose, line in sums.items()}
    assert {purpose: size * count for purpose, count in calls.items()} == {
        "seed": 25_000, "judge": 10_000, "revise": 10_000, "brainstorm": 4_000,
    }  # fmt: skip
    tokens = {purpose: size * (line.tokens_in + line.tokens_out) for purpose, line in sums.items()}
    assert tokens == {"seed": 10_000_000, "judge": 12_000_000, "revise": 10_000_000, "brainstorm": 1_620_000}
    assert total(lines).calls == requests
    assert {line.cause: line.calls for line in lines if line.purpose == "seed"} == {"ok": 25_000 // size, "timeout": 1}
    whole = {"seed": (89, 44.5), "judge": (70, 35), "revise": (88, 44), "brainstorm": (13.1, 6.55)}
    whole["total"] = (260.1, 130.05)
    for name, row in rows_of(lines).items():
        shown = [float(row[column].removeprefix("$")) for column in ("dollars", "in batches")]
        assert shown == pytest.approx([price / size for price in whole.pop(name)], abs=0.006)
    assert not whole


def test_causes_of_a_growing_ledger_sum_to_its_requests() -> None:
    grown = Ledger()
    ends = [("ok", False), ("no_json", False), ("ok", True), ("bad_schema", True), ("timeout", False)] * 3
    for number, (cause, cached) in enumerate(ends):
        one = paid(number, "seed", 10, 5, params={"retry": number % 2}, resent=1)
        grown.add(cost_of(one, cause, cached=cached))
    lines = grown.lines()
    assert [(line.cause, line.calls, line.cached) for line in lines] == [
        ("bad_schema", 0, 3), ("no_json", 3, 0), ("ok", 3, 3), ("timeout", 3, 0),
    ]  # fmt: skip
    everything = total(lines)
    assert everything.requests == sum(line.requests for line in lines) == 15
    assert (everything.tokens_in, everything.resent) == (90, 9), "what the journal knew is free"
    assert gathered([*lines, *lines]) == [total([line, line]) for line in lines]


def test_an_unknown_price_is_unknown_in_every_sum_and_said(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(paid(0, "seed", 10, 5))
    journal.append(entry(1, purpose="judge", model="nobody/knows", dollars=None))
    lines = ledger_of(journal)
    assert total(lines).dollars is None
    assert {name: row["dollars"] for name, row in rows_of(lines).items()} == {
        "judge": "unknown", "seed": "$0.00", "total": "unknown",
    }  # fmt: skip
    stage = StageLine(
        label="judging", key="k", state="built", rows_in=1, rows_out=1, rejected={}, seconds=1, gpu_seconds=0, cost={},
        dollars=None, metrics={}, ledger=tuple(lines),
    )  # fmt: skip
    assert remarks([stage]) == ["The price of nobody/knows is unknown: its answers are in no sum of dollars."]


@pytest.mark.parametrize("cause", ["ok", "no_json"])
def test_a_price_unknown_once_stays_unknown(cause: str) -> None:
    grown = Ledger()
    for dollars in (1.0, None, 1.0):
        grown.add(cost_of(entry(0, purpose="seed", dollars=dollars), cause, cached=False))
    assert grown.lines()[0].dollars is None
