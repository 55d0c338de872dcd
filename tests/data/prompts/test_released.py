"""The authors' templates are read from their layout: the record that a small file of that layout must give."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from speed.core.content import Content
from speed.core.errors import UserError
from speed.core.spec import digest, recipe
from speed.data.draws import generator
from speed.data.prompts.rendering import PromptsConfig, brainstorm_prompt, data_prompt, judge_prompt, revise_prompt
from speed.data.records import Kind, Prompt

FOLDER = Path(__file__).parent / "released"


def released(folder: Path = FOLDER, **more: object) -> PromptsConfig:
    return PromptsConfig.model_validate({"wording": "released", "path": str(folder), **more})


def drawn(kind: Kind, difficulty: bool) -> Prompt:
    prompts = (data_prompt(kind, "TASK", "TOPIC", released(), generator(0, row)) for row in range(99))
    return next(prompt for prompt in prompts if ("difficulty" in prompt.slots) is difficulty)


def test_retrieval_is_the_record() -> None:
    prompt = drawn(Kind.RETRIEVAL, difficulty=True)
    said = prompt.slots
    lines = [
        f"- Ask something {said['query_type']}, {said['query_length']}, {said['clarity']}.",
        f"- Write {said['num_words']} words.",
        "- Write in English.",
        f"- For readers with {said['difficulty']} level education.",
    ]
    order = "\n".join(lines[int(place)] for place in said["guidelines_order"].split())
    assert prompt.text == (
        f'Task: TASK\n\nRules:\n{order}\n\nThe keys are "user_query", "positive_document" and "hard_negative_document".'
    )
    assert "level education" not in drawn(Kind.RETRIEVAL, difficulty=False).text


def test_clarity_is_recorded_where_it_is_said() -> None:
    assert {"clarity", "difficulty"} <= set(drawn(Kind.CLASSIFICATION, difficulty=True).slots)
    assert set(drawn(Kind.CLASSIFICATION, difficulty=False).slots) == {"num_words", "language", "guidelines_order"}


def test_sts_is_the_record() -> None:
    prompt = drawn(Kind.STS, difficulty=False)
    said = prompt.slots
    assert prompt.text == (
        f"Write three {said['unit']}s about TOPIC.\n- In English.\n- S1 and S2: {said['high_score']}.\n"
        f"- S1 and S3: {said['low_score']}.\n\nOnly S1, S2 and S3."
    )
    assert "- For readers with" in drawn(Kind.STS, difficulty=True).text


def test_text_matching_is_the_record() -> None:
    short, long = (
        data_prompt(kind, "TASK", "", released(), generator(0)) for kind in (Kind.SHORT_SHORT, Kind.LONG_LONG)
    )
    record = (
        'Task: TASK\n\nRules:\n- In English.\n- Both should be {}.\n\nThe keys are "input" and "positive_document".'
    )
    assert short.text == record.format("short")
    assert long.text == record.format("long (at least 300 words)")
    assert long.slots["num_words"] == "300"


def test_brainstorming_judging_and_revising_are_the_record() -> None:
    prompt = brainstorm_prompt(Kind.RETRIEVAL, "TOPIC", 5, released(), generator(0))
    examples = ["- Find a bus by its number.", "- Find a song by its first line.", "- Find a law by what it forbids."]
    order = "\n".join(examples[int(place)] for place in prompt.slots["examples_order"].split())
    assert prompt.text == (
        f'Think of retrieval tasks about TOPIC.\n\nSuch as:\n{order}\n\nA list, with about 5 elements. {{"no": "more"}}'
    )
    assert "with about 3 elements" in brainstorm_prompt(Kind.LONG_LONG, "TOPIC", 3, released(), generator(0)).text
    assert judge_prompt("P", ["a", "b"], released()).text == "Asked: P\n\nAnswered: 0. a\n1. b\n\nWhich is best?"
    assert revise_prompt("P", "{{ a }}", released()).text == "Asked: P\n\nAnswered: {{ a }}\n\nMend it."


@pytest.mark.parametrize("kind", [Kind.RETRIEVAL, Kind.STS, Kind.LONG_LONG])
def test_slots_are_drawn_as_for_our_own_wording(kind: Kind) -> None:
    for row in range(50):
        theirs, ours = (
            data_prompt(kind, "t", "x", config, generator(1, row)).slots for config in (released(), PromptsConfig())
        )
        assert {**theirs, "guidelines_order": ""} == {**ours, "guidelines_order": ""}


def test_the_text_is_identity_and_the_checkouts_place_is_not(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "copy"))
    assert digest(recipe(released(copy))) == digest(recipe(released()))
    file = copy / "prompts_aligning.py"
    file.write_text(file.read_text().replace("Mend it", "Correct it"))
    other = released(Path(shutil.copytree(copy, tmp_path / "other")))
    assert digest(recipe(other)) != digest(recipe(released()))
    assert digest(recipe(other.of("synthesis"))) == digest(recipe(released().of("synthesis")))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"clarity": ["clear"]}, "draws clarity from .* set prompts.clarity"),
        ({"lengths": {"long_words": 20}}, "draws num_words from .*300.* set prompts.lengths.long_words"),
        ({"difficulty_share": 1}, "set difficulty_share=0.5"),
        ({"path": None}, "needs path: a checkout"),
    ],
)
def test_other_draws_than_the_checkouts_are_refused(more: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        released(**more)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("prompts_tasks.py", "p2p", "other", "has no function get_brainstorm_p2p"),
        ("prompts_synthesis.py", "np.random.shuffle(guidelines)", "guidelines.sort()", "line 27: not the layout"),
        ("prompts_aligning.py", "{data}", "{data[0]}", "line 5: not the layout"),
        ("prompts_aligning.py", "def ", "def def ", "cannot read .*prompts_aligning.py"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, file: str, old: str, new: str, told: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "checkout"))
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(UserError, match=told):
        released(folder)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set prompts.path to a checkout"):
        PromptsConfig(wording="released", path=Content(path=tmp_path))
