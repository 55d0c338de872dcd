"""The share of flawless examples of a run whose teacher knows the truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_run import MadeUpRun, Maker, made_up_run

from speed.data.records import Kind, Prompt
from speed.runs.stage_lines import StageLine
from speed.runs.truth import with_truth


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    return made_up_run(tmp_path_factory.mktemp("made-up"))


def line(lines: list[StageLine], label: str) -> StageLine:
    return next(line for line in lines if line.label == label)


def test_the_stages_that_write_the_corpus_say_how_many_examples_are_flawless(run: MadeUpRun) -> None:
    asked: list[str] = []

    def verdict(prompt: Prompt, text: str) -> list[str]:
        asked.append(text)
        return ["Wrong."] if prompt.kind is Kind.STS else []

    lines = with_truth(run.lines, run.order, run.store, verdict)
    maker = Maker("", 12)
    rows = next(goal.rows for goal in run.order if goal.label == "synthesis")
    for label, made in (("synthesis", maker.sample), ("revision", maker.revised)):
        sound = [row for row in map(made, range(rows)) if row.rejected is None and not row.faults]
        flawless = sum(row.prompt.kind is not Kind.STS for row in sound)
        assert line(lines, label).metrics["flawless"] == pytest.approx(flawless / rows, abs=1e-4)
        assert line(lines, label).metrics["remarks"] == [
            f"{flawless / rows:.1%} of {rows} examples are without a flaw, by the truth, which no model sees"
        ]
    assert line(lines, "dedup").metrics["flawless"] == line(lines, "revision").metrics["flawless"], "what it is given"
    assert "remarks" not in line(lines, "dedup").metrics
    assert all(text.startswith("{") for text in asked), "an example is shown as it was read, without a revisor's reason"
    assert [each for each in lines if "flawless" not in each.metrics] == [
        each for each in run.lines if each.label not in ("synthesis", "revision", "dedup")
    ]


def test_nothing_is_said_where_nobody_knows_the_truth(run: MadeUpRun) -> None:
    assert with_truth(run.lines, run.order, run.store, lambda prompt, text: None) == run.lines


def test_rows_that_cannot_be_read_cost_no_report(tmp_path: Path) -> None:
    run = made_up_run(tmp_path / "torn")
    pool = next(goal.node for goal in run.order if goal.label == "revision")
    for file in run.store.folder(pool).glob("rows-*"):
        file.write_bytes(b"torn")
    lines = with_truth(run.lines, run.order, run.store, lambda prompt, text: [])
    assert "flawless" in line(lines, "synthesis").metrics
    assert "flawless" not in line(lines, "revision").metrics
    assert "flawless" not in line(lines, "dedup").metrics, "not that of what was written before"
