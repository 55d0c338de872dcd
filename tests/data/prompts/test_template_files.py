"""A user's own templates are used, hashed, and checked for required slots."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.spec import digest, recipe
from speed.data.prompts.rendering import PromptsConfig, data_prompt, judge_prompt
from speed.data.records import Kind


def config_of(folder: Path, **texts: str) -> PromptsConfig:
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.jinja"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return PromptsConfig(path=Content(path=folder))


def test_own_templates_stand_in_for_the_packages(tmp_path: Path) -> None:
    config = config_of(tmp_path, synthesis__retrieval="{{ task }}!\n{{ num_words }}\n")
    prompt = data_prompt(Kind.RETRIEVAL, "Find {{ it }}", "Arts", config, Random(0))
    assert prompt.text == f"Find {{{{ it }}}}!\n{prompt.slots['num_words']}"
    assert set(prompt.slots) == {"num_words"}, "a slot that the text does not state is not recorded"
    assert judge_prompt("P", ["a"], config) == judge_prompt("P", ["a"], PromptsConfig())


def test_draws_do_not_depend_on_the_wording(tmp_path: Path) -> None:
    config = config_of(tmp_path, synthesis__retrieval="{{ task }} {{ num_words }}")
    for seed in range(20):
        own = data_prompt(Kind.RETRIEVAL, "t", "x", config, Random(seed)).slots["num_words"]
        assert own == data_prompt(Kind.RETRIEVAL, "t", "x", PromptsConfig(), Random(seed)).slots["num_words"]


def test_text_is_identity_and_its_place_is_not(tmp_path: Path) -> None:
    text = "{{ data_prompt }} {{ data_list }}"
    first, same, other = (
        config_of(tmp_path / name, judge=words) for name, words in (("a", text), ("b", text), ("c", text + "."))
    )
    assert digest(recipe(first)) == digest(recipe(same))
    assert len({digest(recipe(config)) for config in (first, other, PromptsConfig())}) == 3


def test_a_role_is_silent_about_the_templates_of_the_others(tmp_path: Path) -> None:
    own, usual = config_of(tmp_path, judge="{{ data_prompt }} {{ data_list }}"), PromptsConfig()
    for role in ("brainstorm", "synthesis", "revise"):
        assert digest(recipe(own.of(role))) == digest(recipe(usual.of(role)))
    assert digest(recipe(own.of("judge"))) != digest(recipe(usual.of("judge")))
    longer = PromptsConfig.model_validate({"lengths": {"long_words": 40}})
    assert digest(recipe(longer.of("synthesis"))) != digest(recipe(usual.of("synthesis")))
    assert digest(recipe(longer.of("judge"))) == digest(recipe(usual.of("judge")))


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ({"judge": "{{ data_prompt }}"}, ("judge.jinja", "data_list", "missing")),
        ({"synthesis__sts": "{{ topic }} {{ task }}"}, ("sts.jinja", "task", "unknown", "high_score")),
        ({"synthesis__sts": "{{ topic "}, ("sts.jinja", "line 1")),
        ({"synthesis__stss": "{{ topic }}"}, ("synthesis/stss", "synthesis/sts")),
        ({}, ("no *.jinja",)),
    ],
)
def test_a_folder_that_cannot_be_used_is_explained(
    tmp_path: Path, texts: dict[str, str], words: tuple[str, ...]
) -> None:
    config = config_of(tmp_path, **texts)
    with pytest.raises(UserError) as raised:
        recipe(config)
    assert all(word in str(raised.value) for word in (*words, str(tmp_path)))


def test_missing_folder_and_text_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder"):
        recipe(PromptsConfig(path=Content(path=tmp_path / "nowhere")))
    (tmp_path / "judge.jinja").write_bytes(b"\xff\xfe{{ data_prompt }}")
    with pytest.raises(UserError, match="UTF-8"):
        recipe(PromptsConfig(path=Content(path=tmp_path)))


def test_templates_run_in_a_sandbox(tmp_path: Path) -> None:
    config = config_of(tmp_path, synthesis__sts="{{ topic.__class__.__mro__ }}")
    with pytest.raises(UserError, match=r"synthesis/sts.*unsafe"):
        data_prompt(Kind.STS, "", "x", config, Random(0))
