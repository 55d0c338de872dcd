"""`teach_check=true` on a good teacher (the rules) and on a bad one (a scripted local server)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from provider import Provider

from speed.core.store import Store
from speed.data.prompts.worked_examples import example_texts, without_worked_examples
from speed.data.records import Kind
from speed.pipeline import pipeline
from speed.runs.experiment import check_teacher
from speed.runs.teacher_check import CALLS, Found, TeacherCheck, untried
from speed.runs.teacher_verdicts import told, verdicts


def said(config: Any, home: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"home": home})})
    store = Store(home).open()
    check_teacher(config, pipeline(config).goals(), store)
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_rules_are_good_enough_for_every_role_and_a_second_check_buys_nothing(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compose()
    out, err = said(config, tmp_path, capsys)
    assert err.startswith(f"teacher check: about {CALLS} calls to RulesTeacher (miniature/rules), about ")
    assert [line.partition(".")[0] for line in out.splitlines()[-3:]] == [
        "brainstorm: good enough",
        "writer: good enough",
        "judge: good enough",
    ]
    assert "by hashed words" in out
    config = config.model_copy(update={"runtime": config.runtime.model_copy(update={"max_calls": 1})})
    assert said(config, tmp_path, capsys)[0] == out, "from the journal"


def bad(prompt: str) -> str:
    """A small model: chats where a list of tasks is wanted, repeats one example, and favours a place."""
    request = without_worked_examples(prompt)
    if request.startswith("Brainstorm"):
        return "Sure! Here are some ideas for tasks that you could try."
    if "is to judge" in request:
        return json.dumps({"reason": "It is the first.", "best": 0, "worst": 1})
    if "to evaluate the generated output" in request:
        return "The output is fine."
    return example_texts(Kind.STS)[0]


def test_a_bad_local_server_is_told_role_by_role(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Provider() as serving:
        serving.answer = bad
        config = compose("teacher=openai_compatible", "teacher.model=small", f"runtime.api_base={serving.url}")
        out, err = said(config, tmp_path, capsys)
        asked = len({json.dumps(body["messages"]) for body in serving.bodies})
    assert asked == CALLS
    assert "calls to OpenAICompatibleTeacher (small)" in err
    assert "brainstorm: not good enough. 100% of its lists of tasks cannot be read" in out
    assert "writer: not good enough. 100% of its examples and repairs are of no use" in out
    assert "the judge chose place 1 in 6 of 6 lists of three; 0 of 3 lists have the same best answer" in out
    assert "judge: not good enough. It names one place whatever stands there: take preference=verified_pairs" in out
    assert "copied: 2 examples" in out


def test_a_brainstormer_of_its_own_is_checked_in_its_role(
    compose: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Provider() as serving:
        serving.answer = bad
        choice = ("teacher=openai_compatible", "teacher.model=small", "diversity.brainstormer=thinker")
        said(compose(*choice, f"runtime.api_base={serving.url}"), tmp_path, capsys)
        brainstorms = [
            (without_worked_examples(body["messages"][-1]["content"]).startswith("Brainstorm"), body["model"])
            for body in serving.bodies
        ]
    assert set(brainstorms) == {(True, "thinker"), (False, "small")}


def found(**changed: Callable[[Found], None]) -> Found:
    """What a good teacher leaves, with changes."""
    good = Found()
    for purpose in ("brainstorm", "seed", "judge", "revise"):
        good.valid[purpose, Kind.RETRIEVAL] = [True] * 6
    good.on_topic, good.places, good.right = [True] * 6, [0, 1, 2] * 2, [True] * 6
    good.agreed = [True] * 3
    for change in changed.values():
        change(good)
    return good


def copies(found: Found, count: int) -> None:
    """Three of six examples are not valid, and so many of them are copies."""
    found.valid["seed", Kind.RETRIEVAL], found.copied = [True, False] * 3, count


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda found: None, ""),
        (lambda found: found.valid.update({("brainstorm", Kind.STS): [False] * 2}), "brainstorm: not good enough. 25%"),
        (lambda found: found.on_topic.__setitem__(slice(0, 4), [False] * 4), "writer: not good enough. 67%"),
        (lambda found: copies(found, 3), "writer: not good enough. It repeats"),
        (lambda found: copies(found, 1), "writer: not good enough. 25%"),
        (lambda found: found.valid.update({("judge", Kind.STS): [False] * 6}), "judge: not good enough. 50%"),
        (lambda found: setattr(found, "places", [2] * 6), "judge: not good enough. It names one place"),
        (lambda found: setattr(found, "right", [True, False] * 3), "judge: not good enough. It found"),
    ],
)
def test_each_fault_has_its_verdict(change: Callable[[Found], None], verdict: str) -> None:
    given = list(verdicts(found(change=change)))
    assert [each.partition(":")[0] for each in given] == ["brainstorm", "writer", "judge"]
    faulty = [each for each in given if "not good enough" in each]
    assert len(faulty) == bool(verdict)
    assert all(each.startswith(verdict) for each in faulty)
    assert told(found(change=change), "hashed words")


def test_a_check_advises_what_is_not_set_yet(compose: Any) -> None:
    free = compose("teacher=openai_compatible", "teacher.structured=none").teacher
    assert untried(free) == ("teacher.structured=json_schema", "teacher.examples=3")
    by_schema = compose("teacher=openai_compatible").teacher
    assert Found(untried=untried(by_schema)).mend == "try teacher.examples=3 or a larger teacher.model"
    assert untried(compose("teacher=openai_compatible", "teacher.examples=2").teacher) == ()
    assert Found().mend == "try a larger teacher.model"


def test_the_base_that_is_an_embedder_already_measures_topics(compose: Any, tmp_path: Path) -> None:
    config = compose()
    assert config.embedder.quick_encoder(config.runtime) is None, "the miniature's base never was one"
    config.embedder.untrained(tmp_path, None)
    own = config.embedder.model_copy(update={"base": type(config.embedder.base)(name=str(tmp_path / "model"))})
    name, encode = own.quick_encoder(config.runtime)
    assert name == str(tmp_path / "model")
    one, same, other = encode(["cats at Kesto", "cats at Kesto", "buns haulage"])
    assert one == pytest.approx(same)
    assert one != pytest.approx(other)


def test_a_check_asks_about_what_the_run_is_about(compose: Any, tmp_path: Path) -> None:
    config = compose()
    check = TeacherCheck(config, pipeline(config).goals(), Store(tmp_path).open())
    assert check.cost().calls == CALLS
