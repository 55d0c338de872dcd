"""A provider of which nearly no answer is of use: said while the stage runs, and the run stops behind it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import runs, speed, speed_here

from speed.core.rejections import Watch, causes_of_nearly_all
from speed.core.stage import Context
from speed.core.store import Store
from speed.data.judging.votes import CHOICES
from speed.runs.rejections import _remedies
from speed.runtime import Runtime

sys.path.insert(0, str(Path(__file__).parent / "teaching"))
sys.path.insert(0, str(Path(__file__).parent / "core"))

from provider import Provider
from toys import Number, Numbers

TEACHER = ("+experiment=[smoke,teacher_data]", "teacher=openai_compatible", "teacher.model=rules")


@pytest.mark.parametrize(
    ("rows", "rejected", "causes"),
    [
        (0, {}, {}),
        (1, {"empty": 1}, {"empty": 1}),
        (8, {"empty": 7}, {}),
        (50, {"empty": 40, "no_json": 8}, {"empty": 40, "no_json": 8}),
        (50, {"empty": 40, "no_json": 7}, {}),
        (50, {"identical": 49, "empty": 1}, {}),
    ],
)
def test_nearly_all(rows: int, rejected: dict[str, int], causes: dict[str, int]) -> None:
    assert causes_of_nearly_all(rows, rejected, CHOICES) == causes


def said(tmp_path: Path, rows: list[str | None], of: int) -> list[str]:
    events: list[dict[str, Any]] = []
    watch = Watch(Numbers(1), of, Context(Store(tmp_path), Runtime(), "numbers", events.append))
    for place, cause in enumerate(rows):
        row = Number(row=place, value=0)
        watch.see(row if cause is None else row.reject(cause, "I'm\nsorry"))
    return [event["message"] for event in events if event["event"] == "say"]


def test_a_stage_says_once_and_while_it_runs_that_nearly_all_is_rejected(tmp_path: Path) -> None:
    assert said(tmp_path, ["refusal"] * 49, 400) == []
    (message,) = said(tmp_path, [None, *["refusal"] * 39, *["empty"] * 200], 400)
    assert "49 of the first 50 rows are rejected: 39 refusal, 10 empty" in message
    assert message.count("I'm sorry") == 2
    assert said(tmp_path, [None] * 3 + ["refusal"] * 200, 400) == []
    assert len(said(tmp_path, ["refusal"] * 3, 3)) == 1


def test_each_cause_has_its_setting() -> None:
    for purpose, cause, setting in [
        ("seed", "refusal", "teacher.ask_again=[refusal]"),
        ("seed", "truncated", "limits.example"),
        ("judge", "truncated", "limits.judgement"),
        ("brainstorm", "unfinished_reasoning", "limits.tasks"),
        ("brainstorm", "unfinished_reasoning", "teacher.ask_again=[unfinished_reasoning]"),
        ("seed", "no_json", "teacher.structured=json_schema"),
        ("", "no_json", "counts.sft"),
        ("", "truncated", "limits.example"),
        ("seed", "same_texts", "guidelines=keep"),
    ]:
        remedies = " ".join(_remedies(purpose, Counter({cause: 3})))
        assert setting in remedies
        assert ("ask_again" in remedies) == bool(purpose and cause in ("refusal", "unfinished_reasoning"))


def test_a_run_of_which_the_provider_refuses_all_stops_with_table_causes_setting_and_report(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Provider() as serving:
        serving.steps = lambda prompt: "ok"
        serving.answer = lambda prompt: "I'm sorry, but I can't help with that."
        done = speed(home, *TEACHER, f"runtime.api_base={serving.url}")
        asked = len(serving.headers)
        assert done.code == 1
        assert "Traceback" not in done.out + done.err
        assert "rows are rejected: " in done.err
        assert done.err.count("row 0, refusal: I'm sorry, but I can't help with that.") == 2, (
            "said at once, and at last"
        )
        assert "the run stops here" in done.err
        assert "teacher.ask_again=[refusal]" in done.err
        assert "refusal" in done.out, "the table of stages"
        (report,) = (home / "runs").glob("*/*/report.md")
        assert "## Stopped" in report.read_text()
        assert "ask these rows again" in report.read_text()
        assert runs(home) == [], "it is no finished run"
        again = speed_here(home, *TEACHER, f"runtime.api_base={serving.url}")
        assert again.code == 1
        assert "the run stops here" in again.err
        assert len(serving.headers) == asked, "what was rejected is not paid for again, and not built upon"
