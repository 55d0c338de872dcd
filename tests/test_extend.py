"""The worked examples of docs/extend.md, in a copy of the project: as they stand on the page, and run."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import HANG, ROOT

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def apply(diff: str, root: Path) -> None:
    """Replace in each file what a hunk takes out, which must stand there once, by what it puts in."""
    for name, hunks in re.findall(r"^--- a/\S+\n\+\+\+ b/(\S+)\n(.*?)(?=^--- a/|\Z)", diff, re.MULTILINE | re.DOTALL):
        text = (root / name).read_text(encoding="utf-8")
        for hunk in re.split(r"^@@ @@\n", hunks, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] != "+")
            new = "".join(line[1:] for line in lines if line[0] != "-")
            assert text.count(old) == 1, f"{name} has {text.count(old)} times:\n{old}"
            text = text.replace(old, new)
        (root / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the page's examples in it."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("speed", "conf"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for diff in DIFF.findall(PAGE):
        apply(diff, root)
    for name, text in FILE.findall(PAGE):
        assert not (root / name).exists(), f"{name} is there already"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def run(project: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project), "SPEED_HOME": str(project / "home")},
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def found(project: Path) -> dict[str, Any]:
    out = run(project, str(ROOT / "tests" / "extended_project.py"), str(project / "home"))
    return dict(json.loads(out.splitlines()[-1]))


def test_the_page_has_five_examples() -> None:
    assert len(re.findall(r"^## ", PAGE, re.MULTILINE)) == 5
    assert len(FILE.findall(PAGE)) == 10
    assert len(DIFF.findall(PAGE)) == 2


def test_an_objective_is_trained_on_and_rebuilds_the_senior_alone(found: dict[str, Any]) -> None:
    after = ["senior", "synthesis", "revision", "dedup", "embedder", "evaluation"]
    assert found["objective"]["loss"] == ["nca_pair"]
    assert found["objective"]["at start"] == pytest.approx(2 * math.log(2))
    assert sorted(found["objective"]["built again"]) == sorted(after)


def test_a_filter_stands_between_revision_and_dedup_and_changes_no_key_without_it(found: dict[str, Any]) -> None:
    golden = json.loads((ROOT / "tests" / "keys.json").read_text())["preset=miniature"]["evaluation"]
    assert found["filter"] == {
        "without": golden,
        "between": ["revision", "dedup"],
        "rejected": ["few_words", None, "few_words", None],
    }


def test_an_engine_gives_each_request_its_texts(found: dict[str, Any]) -> None:
    assert found["engine"] == ["a 0", "a 1", "b 0"]


def test_a_teacher_is_asked_and_its_answers_are_kept(found: dict[str, Any]) -> None:
    said = "small heard: Say something. (9)"
    assert found["teacher"] == {"said": said, "again": True, "calls": 1, "tokens_out": 7}


def test_a_task_is_evaluated(found: dict[str, Any]) -> None:
    assert list(found["task"]) == ["Capitals"]


@pytest.mark.slow
def test_objective_filter_and_task_in_a_whole_run(project: Path) -> None:
    overrides = ("preference=nca", "words=three", "eval=local", "eval.tasks=my_tasks", "tracker=none")
    out = run(project, "-m", "speed.run", "+experiment=smoke", *overrides)
    assert "word limit" in out
    assert "Capitals" in out or "STS" in out
