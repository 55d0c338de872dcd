"""Tables: figures on the right, words on the left; framed and wrapped on a terminal alone."""

from __future__ import annotations

import pytest

from speed.runs.tables import Table


def table() -> Table:
    made = Table("stage", "state", "calls", "dollars", "why")
    made.add("topics", "hit", "0", "$0.00", "")
    made.add("seed data", "partial", "400 to 2,000", "unknown", "sft 1 -> 2 [bold]\x1b[31m")
    return made


def test_piped_tables_are_plain_and_words_stand_left() -> None:
    assert table().text() == table().plain()
    assert table().plain().splitlines() == [
        "stage      state           calls  dollars  why",
        "---------  -------  ------------  -------  -------------------------",
        "topics     hit                 0    $0.00",
        r"seed data  partial  400 to 2,000  unknown  sft 1 -> 2 [bold]\x1b[31m",
    ]


def test_a_terminal_gets_the_same_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    drawn = table().text()
    for cell in ("seed data", "400 to 2,000", "unknown", r"[bold]\x1b[31m"):
        assert cell in drawn, "nothing in a cell is markup"


def test_a_terminal_leaves_out_columns_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    made = Table("stage", "calls", "dollars", "note")
    made.add("topics", "0", "$0.00", "-")
    made.add("seed data", "46", "$0.00", "")
    drawn = made.text()
    assert "calls" in drawn
    assert "dollars" not in drawn
    assert "note" not in drawn
    assert "dollars" in made.plain(), "a pipe gets every column"


def test_a_wide_table_is_broken_between_words() -> None:
    made = Table("stage", "calls", "why")
    made.add("seed data", "400 to 2,000", "one two " * 30)
    made.add("topics", "0", "")
    lines = made.plain(120).splitlines()
    assert max(map(len, lines)) <= 120
    assert " ".join(" ".join(lines[2:-1]).split()) == "seed data 400 to 2,000 " + ("one two " * 30).strip()
    assert lines[-1].split() == ["topics", "0"]


def test_markdown_aligns_columns_of_figures_alone() -> None:
    assert table().markdown().splitlines()[1] == "| --- | --- | ---: | ---: | --- |"
