"""A prompt, an answer or a provider's message that holds HTML, ANSI codes, markup or a path stands there as text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from speed.core.escape import escape, on_one_line
from speed.data.records import Scores
from speed.runs import report
from speed.runs.progress import Screen
from speed.runs.stage_lines import StageLine

HOSTILE = (
    "<script>alert(1)</script> | [x](javascript:1) [bold]y[/bold] \x1b[31mred\x1b]0;t\x07 {{ 7*7 }} ../../etc\n# no"
)


def test_what_could_steer_a_terminal_is_spelt_out() -> None:
    assert escape("a\tb\nc é 漢 \U0001f600") == "a\tb\nc é 漢 \U0001f600"
    assert escape("\x1b[2J \x00 \x9b1m \r \u202e \ud800") == "\\x1b[2J \\x00 \\x9b1m \\r \\u202e \\ud800"
    assert on_one_line("a\n b\x1b" + "c" * 50, 20) == "a b\\x1bcccccccccc..."
    assert escape(HOSTILE).isprintable() or "\x1b" not in escape(HOSTILE)


def test_a_report_shows_hostile_text_as_text(tmp_path: Path) -> None:
    line = StageLine(
        label="seed data", key="k", state="built", rows_in=1, rows_out=0, rejected={HOSTILE: 1}, seconds=1.0,
        gpu_seconds=0.0, cost={}, dollars=0.0, metrics={"said": HOSTILE}, noted={HOSTILE: 2},
    )  # fmt: skip
    scores = Scores(tasks={HOSTILE: 1.0}, types={"STS": 1.0}, mean=1.0, mean_of_types=1.0)
    written = report.write(tmp_path, "run", {"command": HOSTILE}, [line], scores).read_text()
    assert "<script" not in written
    assert "\x1b" not in written
    assert not any(text.startswith("# no") for text in written.splitlines())
    assert "[x](javascript" not in written
    table = next(text for text in written.splitlines() if text.startswith("| seed data"))
    assert table.replace("\\|", "").count("|") == 10, "a bar in a cell adds no cell"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["report.md", "summary.json"]


@pytest.mark.parametrize("live", [False, True])
def test_a_message_on_the_screen_is_neither_markup_nor_a_command(
    live: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: live)
    with Screen() as screen:
        screen.show("seed data", {"event": "start", "rows": 1})
        screen.show("seed data", {"event": "say", "message": HOSTILE})
    told = capsys.readouterr().err
    assert "[bold]y[/bold]" in told
    assert "\\x1b[31mred" in told
    assert "\x1b[31mred" not in told
    assert "\x07" not in told
