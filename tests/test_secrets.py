"""A teacher that demands a key: whatever it does with it, the key stands in nothing that the run writes or says."""

from __future__ import annotations

import sys
from pathlib import Path

from command_line import Finished, content, runs, speed, summary

sys.path.insert(0, str(Path(__file__).parent / "teaching"))

from provider import Provider

from speed.miniature.rules import answer_prompt
from speed.teaching.journal import Journal
from speed.teaching.openai_teacher import KEY

RIGHT, WRONG = "planted-right-7b21c9e4", "planted-wrong-0d55aa13"
TEACHER = (
    *("+experiment=[smoke,teacher_data]", "teacher=openai_compatible", "teacher.model=rules"),
    *("embedder=dry", "eval=dry"),  # test_smoke.py plants this key as well, where both are real
)


def said_in(home: Path, done: Finished) -> list[str]:
    """Where one of the keys stands: files of the root by name, or the screen."""
    found = [
        str(path.relative_to(home))
        for path in home.rglob("*")
        if path.is_file() and any(key.encode() in content(path) for key in (RIGHT, WRONG))
    ]
    return found + ["screen"] * any(key in done.out + done.err for key in (RIGHT, WRONG))


def test_a_key_that_every_error_repeats_stands_nowhere(tmp_path: Path) -> None:
    """401 with the key in it; then a whole run, a third of whose calls first meet a 500 or nonsense that repeat it."""
    home = tmp_path / "home"
    with Provider() as serving:
        serving.key = RIGHT
        serving.answer = lambda prompt: answer_prompt(prompt, 0)
        serving.steps = lambda prompt: ("leak500 ok", "leak200 ok", "ok")[len(prompt) % 3]
        refused = speed(home, *TEACHER, f"runtime.api_base={serving.url}", **{KEY: WRONG})
        assert refused.code != 0
        assert "HTTP 401: Incorrect API key provided" in refused.err
        assert KEY in refused.err, "the remedy names where the key comes from"
        assert said_in(home, refused) == []
        done = speed(home, *TEACHER, f"runtime.api_base={serving.url}", **{KEY: RIGHT})
    assert done.code == 0, done.err
    assert {headers["Authorization"] for headers in serving.headers} == {f"Bearer {RIGHT}", f"Bearer {WRONG}"}
    assert sum(line["resent"] for stage in summary(home)["stages"] for line in stage["ledger"]) > 10
    assert len(Journal(home / "journal")) > 20
    run = runs(home)[0]
    assert list(run.glob("wandb/offline-run-*"))
    assert (run / "report.md").exists()
    assert said_in(home, done) == []
