"""Keys that stand in some file of options are left alone, whoever wrote the file; the others are named."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT

from speed.runs.misspelt import misspelt

KEYS = ("seed", "given", "plan")


@pytest.mark.parametrize(
    "argument",
    [
        "preference.dpo.learning_rate=1e-5",
        "limits.example.retrieval=64",
        "embedder.sources.3.expected=null",
        "given.senior=folder",
        "hydra.sweep.dir=x",
        "teacher._target_=speed.miniature.teacher.RulesTeacher",
        "runtime.api_base=http://localhost:8000/v1?a=b",
        "~preference.dpo.betta",
    ],
)
def test_a_key_of_any_option_is_none_of_its_business(argument: str) -> None:
    assert misspelt([argument], ROOT / "conf", KEYS) == []


def test_keys_of_the_users_own_files_and_those_that_the_command_adds_are_known(tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "mine.yaml").write_text("# Ours.\nvoices: {first: 1}\nwhole: ${runtime}\n")
    (tmp_path / "broken.yaml").write_text("[: no YAML")
    (tmp_path / "all.yaml").write_text("# @package _global_\nscale: {own: 3}\n")
    typed = ["scale.own=4", "teacher.voices.first=2", "teacher.whole.part=2"]
    (line,) = misspelt(typed, ROOT / "conf", KEYS)  # of what nothing stands near, Hydra tells
    assert line.startswith("scale.own=4: there is no scale.own; the keys of scale: ")
    assert misspelt(["--config-dir", str(tmp_path), *typed], ROOT / "conf", KEYS) == []
    assert misspelt(["+scale.extra={a: 1}", "scale.extra.a=2"], ROOT / "conf", KEYS) == []
    (line,) = misspelt(["--config-dir", str(tmp_path), "teacher.voices.frist=2"], ROOT / "conf", KEYS)
    assert line == "teacher.voices.frist=2: there is no teacher.voices.frist; did you mean teacher.voices.first=2?"


def test_a_key_of_what_is_null_in_all_options_is_added_by_a_plus() -> None:
    (line,) = misspelt(["embedder.development.records=9"], ROOT / "conf", KEYS)
    assert line.endswith("embedder.development has no keys yet; +embedder.development.records=9 gives it one")


@pytest.mark.parametrize("elsewhere", ["hydra.searchpath=[x]", "--config-path=x", "-cp"])
def test_nothing_is_said_of_files_that_it_does_not_see(elsewhere: str) -> None:
    assert misspelt([elsewhere, "preference.dpo.betta=1"], ROOT / "conf", KEYS) == []
