"""Batches from the command line: a plan at half the price, a run that is left and taken up, what lies with servers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from batch_provider import BatchProvider
from command_line import records, speed, speed_here, summary
from quick_batches import batching, ended, pending, until_later
from quick_teacher import SECRET, answers, context

from speed.journal import main
from speed.miniature.rules import answer_prompt
from speed.teaching.journal import Journal
from speed.teaching.openai_teacher import KEY

SMALL = ("+experiment=[smoke,teacher_data]", "embedder=dry", "eval=dry", "teacher.model=rules")
ROWS = [f"row {row}" for row in range(5)]


def test_a_run_that_leaves_its_batches_and_is_taken_up_gives_the_records_of_any_teacher(
    serving: BatchProvider, tmp_path: Path
) -> None:
    serving.answer = lambda prompt: answer_prompt(prompt, 0)
    serving.key = SECRET
    home, url = tmp_path / "home", f"runtime.api_base={serving.url}"
    command = (*SMALL, "teacher=openai_batch", "teacher.wait=false", "teacher.poll_seconds=0.01", url)
    serving.busy = True
    left = speed(home, *command, **{KEY: SECRET})
    assert left.code == 1
    assert "Traceback" not in left.err
    calls = len(serving.requests["batch-0"])
    assert f"tasks for seed: {calls} requests are with {serving.url} (batches: batch-0)" in left.err
    assert "the same command takes their answers later" in left.err
    status = speed_here(home, "status=true")
    assert re.search(r"tasks for seed +under way elsewhere", status.out)
    planned = speed_here(home, *command, "plan=true")
    assert f"{calls} requests are in 1 batches" in planned.err
    assert len(serving.batches) == 1, "a plan sends nothing"
    serving.busy = False
    done = speed(home, *command, **{KEY: SECRET})
    assert done.code == 0, done.err
    assert len(serving.batches) == 2, "tasks, then seed data: all of a stage in one batch"
    sent = [line["custom_id"] for lines in serving.requests.values() for line in lines]
    assert len(sent) == len(set(sent)), "no question was sent twice"
    assert SECRET not in left.out + left.err + done.out + done.err
    asked = sum(line["calls"] for stage in summary(home)["stages"] for line in stage["ledger"])
    assert asked == serving.paid.total() == sum(each["answered"] for each in ended(home))
    direct = speed(
        tmp_path / "direct", *SMALL, "teacher=openai_compatible", "teacher.structured=none", url, **{KEY: SECRET}
    )
    assert direct.code == 0, direct.err
    assert records(home) == records(tmp_path / "direct")


def test_a_plan_shows_half_the_price_and_how_answers_come(tmp_path: Path) -> None:
    def total(*overrides: str) -> tuple[float, str]:
        shown = speed_here(tmp_path / "home", "preset=paper", *overrides, "plan=true", OPENAI_API_KEY="sk-a").out
        [dollars] = re.findall(r"^ *total .*?\$([\d,.]+)", shown, re.MULTILINE)
        return float(dollars.replace(",", "")), " ".join(shown.split())

    whole, told = total("teacher=gpt4o")
    half, told_of_batches = total("teacher=openai_batch")
    assert whole > 100
    assert half == pytest.approx(whole / 2, abs=0.01)
    assert "answers of the teacher come in batches, each within 24h" in told_of_batches
    assert "at runtime.concurrency=" in told
    assert "at runtime.concurrency=" not in told_of_batches


def test_a_cap_that_half_the_price_keeps_is_kept(tmp_path: Path) -> None:
    command = ("+experiment=[smoke,teacher_data]", "runtime.max_usd=0.06", "plan=true")
    refused = "more than runtime.max_usd=0.06"
    assert refused in speed_here(tmp_path / "home", *command, "teacher=gpt4o", OPENAI_API_KEY="sk-a").out
    assert refused not in speed_here(tmp_path / "home", *command, "teacher=openai_batch", OPENAI_API_KEY="sk-a").out


def test_what_batches_need_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    command = ("+experiment=[smoke,teacher_data]", "teacher=openai_batch")
    shown = speed_here(tmp_path / "home", *command, "plan=true", OPENAI_API_KEY="").out
    assert "asks https://api.openai.com/v1 and needs OPENAI_API_KEY" in " ".join(shown.split())
    checked = speed_here(tmp_path / "home", *command, "teach_check=true", OPENAI_API_KEY="")
    assert checked.code == 1
    assert "teach_check=true asks its twenty questions in four steps" in checked.err


def test_the_journal_lists_batches_and_takes_what_nobody_asks_for_any_more(
    serving: BatchProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*arguments: str) -> str:
        assert main(["--home", str(tmp_path), "batches", *arguments]) == 0
        return capsys.readouterr().out

    answers(["before"], context(tmp_path, serving))
    assert "no requests were ever sent in batches" in listed()
    serving.busy = True
    with until_later():
        answers(ROWS, context(tmp_path, serving), by=batching(wait=False))
    assert re.search(r"batch-0 +rules at http\S+ .* 5 +- +- +- +under way", listed())
    assert re.search(r"under way", listed("--take"))
    serving.busy = False
    serving.steps = lambda prompt: "500" if prompt == "row 4" else "ok"
    assert re.search(r"batch-0 .* 5 +4 +1 +unknown +completed", listed("--take"))
    assert pending(tmp_path) == []
    assert len([entry for entry in Journal(tmp_path / "journal") if entry.batch]) == 4
    serving.steps = lambda prompt: ""
    ctx = context(tmp_path, serving)
    assert len(answers(ROWS, ctx, by=batching())) == 5
    assert (ctx.tally.cost["cached"], ctx.tally.cost["calls"]) == (4, 1)


def test_options_are_those_of_any_teacher(compose: Any) -> None:
    batch, direct = compose("teacher=openai_batch").teacher, compose("teacher=gpt4o").teacher
    assert batch.recipe() == direct.recipe()
    assert (batch.wait, batch.requests, batch.megabytes) == (True, 50_000, 200)
