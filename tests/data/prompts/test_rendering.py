"""Prompts have the paper's words and the stated slot frequencies, and slot values stay plain text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from speed.core.spec import digest, recipe
from speed.data.draws import generator
from speed.data.prompts.rendering import (
    BRAINSTORMED,
    Lengths,
    PromptsConfig,
    brainstorm_prompt,
    data_prompt,
    judge_prompt,
    revise_prompt,
)
from speed.data.prompts.template_files import OURS, SLOTS
from speed.data.records import KEYS, STS_INSTRUCTION, Kind, Prompt

CONFIG = PromptsConfig()
SHUFFLED = (Kind.RETRIEVAL, Kind.CLASSIFICATION)
"""Kinds whose guidelines and examples come in a drawn order, as in the authors' code."""
RENDERS = 8_000

APPENDIX_C = dict(
    section.split("\n", 1) for section in (Path(__file__).parent / "appendix_c.txt").read_text().split("\n== ")[1:]
)


def printed(name: str, **slots: str) -> str:
    """A prompt as the paper prints it, white space squeezed, slots filled in."""
    text = squeezed(APPENDIX_C[name])
    for slot, value in slots.items():
        text = text.replace(f"{{{slot}}}", value)
    return text


def squeezed(text: str) -> str:
    return " ".join(text.split())


def sts_with_difficulty() -> Prompt:
    prompts = (data_prompt(Kind.STS, "", "Arts/Movies", CONFIG, Random(seed)) for seed in range(100))
    return next(prompt for prompt in prompts if "difficulty" in prompt.slots)


def test_sts_is_the_papers_prompt() -> None:
    prompt = sts_with_difficulty()
    assert squeezed(prompt.text) == printed("STS", topic="Arts/Movies", **prompt.slots)
    assert prompt.task == STS_INSTRUCTION


def test_judge_is_the_papers_prompt_over_a_numbered_list() -> None:
    text = judge_prompt("P", ['{"a": 1}', '{"b": 2}'], CONFIG).text
    assert squeezed(text) == printed("JUDGE", prompt="P", list='0. {"a": 1} 1. {"b": 2}')
    assert '\n0. {"a": 1}\n1. {"b": 2}\n' in text


def test_revise_is_the_papers_prompt() -> None:
    prompt = revise_prompt("P", '{"S1": "x"}', CONFIG)
    assert squeezed(prompt.text) == printed("REVISE", prompt="P", example='{"S1": "x"}')
    assert re.fullmatch(r"revise@[0-9a-f]{8}", prompt.template)


@pytest.mark.parametrize("kind", BRAINSTORMED)
def test_brainstorming_has_the_topic_clause(kind: Kind) -> None:
    prompt = brainstorm_prompt(kind, "Arts/Movies", 5, CONFIG, Random(0))
    first = squeezed(prompt.text.splitlines()[0])
    words = {
        "retrieval": "potentially useful text retrieval tasks",
        "classification": "potentially useful text classification tasks",
    }
    assert first.startswith(f"Brainstorm a list of {words.get(kind, 'text matching tasks')} for the topic: Arts/Movies")
    assert "about 5 elements" in prompt.text
    assert prompt.slots["request"] == "5"
    assert (prompt.kind, prompt.topic) == (kind, "Arts/Movies")


def test_sts_tasks_are_not_brainstormed() -> None:
    with pytest.raises(ValueError, match="sts"):
        brainstorm_prompt(Kind.STS, "Arts", 5, CONFIG, Random(0))


@pytest.mark.parametrize("kind", list(Kind))
def test_data_prompts_name_exactly_the_keys_of_their_kind(kind: Kind) -> None:
    text = data_prompt(kind, "Find it.", "Arts", CONFIG, Random(0)).text
    asked = set(re.findall(r'^- "(\w+)": a string', text, re.MULTILINE)) or set(re.findall(r'"(S\d)"', text))
    assert asked == set(KEYS[kind].all)


FREQUENCIES: dict[Kind, dict[str, Mapping[str | None, float]]] = {
    Kind.RETRIEVAL: {
        "query_type": {"extremely long-tail": 0.4, "long-tail": 0.5, "common": 0.1},
        "query_length": {"less than 5 words": 0.4, "5 to 15 words": 0.4, "at least 10 words": 0.2},
        "clarity": {"clear": 0.6, "understandable with some effort": 0.2, "ambiguous": 0.2},
        "num_words": {str(words): 1 / 6 for words in (50, 100, 200, 300, 400, 500)},
        "difficulty": {None: 0.5, "high school": 1 / 6, "college": 1 / 6, "PhD": 1 / 6},
    },
    Kind.CLASSIFICATION: {
        "num_words": {
            "less than 10": 0.1, "at least 10": 0.3, "at least 50": 0.2, "at least 100": 0.2, "at least 200": 0.2,
        },
        "clarity": {None: 0.5, "clear": 0.3, "understandable with some effort": 0.1, "ambiguous": 0.1},
        "difficulty": {None: 0.5, "high school": 1 / 6, "college": 1 / 6, "PhD": 1 / 6},
    },
    Kind.STS: {
        "unit": {"sentence": 0.9, "phrase": 0.05, "passage": 0.05},
        "high_score": {"4": 1 / 3, "4.5": 1 / 3, "5": 1 / 3},
        "low_score": {"2.5": 1 / 3, "3": 1 / 3, "3.5": 1 / 3},
        "difficulty": {None: 0.5, "elementary school": 1 / 6, "high school": 1 / 6, "college": 1 / 6},
    },
    Kind.SHORT_SHORT: {},
    Kind.LONG_LONG: {"num_words": {"300": 1.0}},
}  # fmt: skip
CHI_SQUARE = {1: 19.5, 2: 23.0, 3: 25.9, 4: 28.5, 5: 30.9, 9: 40.0}
"""Upper 1e-5 points by degrees of freedom (9: rounded up)."""


def chi_square(seen: Counter[str | None], expected: Mapping[str | None, float]) -> float:
    total = seen.total()
    return sum((seen[value] - total * share) ** 2 / (total * share) for value, share in expected.items())


@pytest.mark.parametrize("kind", list(Kind))
def test_slot_frequencies(kind: Kind) -> None:
    prompts = [
        data_prompt(kind, "t", "x", CONFIG, generator(0, "prompt", "synthesis", kind, row)) for row in range(RENDERS)
    ]
    drawn = set(FREQUENCIES[kind]) | ({"guidelines_order"} if kind in SHUFFLED else set())
    assert set().union(*(prompt.slots for prompt in prompts)) == {*drawn, "language"}
    for slot, expected in FREQUENCIES[kind].items():
        seen = Counter(prompt.slots.get(slot) for prompt in prompts)
        assert set(seen) == set(expected), slot
        if len(expected) > 1:
            assert chi_square(seen, expected) < CHI_SQUARE[len(expected) - 1], slot


@pytest.mark.parametrize(
    ("config", "kind"),
    [(CONFIG, kind) for kind in SHUFFLED] + [(PromptsConfig(wording="paper_2026"), kind) for kind in BRAINSTORMED],
)
def test_examples_of_brainstorming_stand_in_every_place_as_often(config: PromptsConfig, kind: Kind) -> None:
    prompts = [brainstorm_prompt(kind, "x", 5, config, generator(0, kind, row)) for row in range(RENDERS)]
    orders = [prompt.slots["examples_order"].split() for prompt in prompts]
    assert {prompt.slots["request"] for prompt in prompts} == {"5"}
    count = len(orders[0])
    assert 4 <= count <= 10
    for place in (0, count - 1):
        seen = Counter[str | None](order[place] for order in orders)
        assert chi_square(seen, {str(number): 1 / count for number in range(count)}) < CHI_SQUARE.get(count - 1, 40.0)


STATED: dict[Kind, dict[str, str]] = {
    Kind.RETRIEVAL: {
        "query_type": "Make the \"user_query\" {}, of", "query_length": ", of {}, ", "clarity": ", {} in what it means",
        "num_words": "fewer than {} words.\n", "difficulty": "needs {} level education",
    },
    Kind.CLASSIFICATION: {
        "num_words": "has {} words", "clarity": "is {} in what it means", "difficulty": "needs {} level education",
    },
}  # fmt: skip
"""How a template states a slot."""


@pytest.mark.parametrize("kind", SHUFFLED)
def test_what_is_recorded_is_what_stands_in_the_text(kind: Kind) -> None:
    for row in range(500):
        prompt = data_prompt(kind, "t", "x", CONFIG, generator(1, row))
        for slot, sentence in STATED[kind].items():
            if slot in prompt.slots:
                assert sentence.format(prompt.slots[slot]) in prompt.text
            else:
                before, after = sentence.split("{}")
                assert not re.search(f"{re.escape(before)}[^,.]*{re.escape(after)}", prompt.text), slot


def labels_of(config: PromptsConfig) -> set[str]:
    return {config.template(name).label for name in SLOTS if name not in OURS}


FORMER = {
    "brainstorm/retrieval": "d318fd62", "brainstorm/classification": "48a66cb2",
    "brainstorm/short_short": "b84ffa74", "brainstorm/long_long": "1754db23",
    "synthesis/retrieval": "42267cde", "synthesis/classification": "d090f084",
    "synthesis/sts": "cc20b100",
    "synthesis/short_short": "9a177385", "synthesis/long_long": "ceba1529", "judge": "ad9c242d", "revise": "deda5302",
}  # fmt: skip
"""Beginnings of the sha256 of the texts that earlier versions sent."""


def test_what_was_sent_before_is_still_sent_by_its_name() -> None:
    """The templates of `prompts=paper_2026`, by which journals of earlier versions are found."""
    former = PromptsConfig(wording="paper_2026")
    assert labels_of(former) == {f"{name}@{sha}" for name, sha in FORMER.items()}
    assert not any(name in str(former.recipe()) for name in OURS), "the paper's prompts have the keys that they had"
    changed = {f"{role}/{kind}" for role in ("brainstorm", "synthesis") for kind in BRAINSTORMED}
    now = {name for name in SLOTS if CONFIG.template(name).label not in labels_of(former)}
    assert now - set(OURS) == changed


@pytest.mark.parametrize("kind", SHUFFLED)
def test_guidelines_come_in_every_order(kind: Kind) -> None:
    firsts: Counter[str | None] = Counter()
    config = PromptsConfig(difficulty_share=1)
    for row in range(5_000):
        prompt = data_prompt(kind, "t", "x", config, generator(2, row))
        lines = prompt.text.split("guidelines:\n")[1].split("\n\n")[0].splitlines()
        firsts[prompt.slots["guidelines_order"].split()[0]] += 1
        assert len(lines) == len(prompt.slots["guidelines_order"].split())
        assert all(line.startswith("- ") for line in lines)
    places = {str(place): 1 / len(lines) for place in range(len(lines))}
    assert chi_square(firsts, places) < CHI_SQUARE.get(len(lines) - 1, 40.0)


def test_order_says_which_line_stands_where() -> None:
    plain = data_prompt(Kind.CLASSIFICATION, "t", "x", CONFIG, Random(0))
    lines = plain.text.split("guidelines:\n")[1].split("\n\n")[0].splitlines()
    order = [int(place) for place in plain.slots["guidelines_order"].split()]
    written = [line for _, line in sorted(zip(order, lines, strict=True))]
    assert "words and is varied" in written[0]
    assert "misleading_label" in written[1]


HOSTILE = (
    "{{ 7 * 7 }}", "{% for x in y %}", "{# gone? #}", "{task}", "%s %d", "<script>alert('&amp;')</script>",
    "a\nb\r\n- c", "\x1b[31mred\x1b[0m", "\x00", "\ud800", "../../etc/passwd", '"quoted" \\n',
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", list(Kind))
def test_slot_values_stay_plain_text(kind: Kind, text: str) -> None:
    prompt = data_prompt(kind, text, text, CONFIG, Random(0))
    clean = data_prompt(kind, "TASK", "TOPIC", CONFIG, Random(0))
    assert prompt.text == clean.text.replace("TASK", text).replace("TOPIC", text)
    assert text in judge_prompt(text, ["", text], CONFIG).text
    assert text in revise_prompt("x", text, CONFIG).text
    if kind in BRAINSTORMED:
        assert text in brainstorm_prompt(kind, text, 5, CONFIG, Random(0)).text


@given(st.text(), st.integers(0, 2**40))
def test_rendering_is_a_function_of_its_arguments(task: str, row: int) -> None:
    first = data_prompt(Kind.RETRIEVAL, task, "x", CONFIG, generator(3, row))
    assert data_prompt(Kind.RETRIEVAL, task, "x", PromptsConfig(), generator(3, row)) == first


def test_lengths_change_numbers_and_not_words() -> None:
    small = PromptsConfig(
        lengths=Lengths(retrieval_words=(8, 16), classification_words=("less than 10", "at least 10"), long_words=20)
    )
    prompt = data_prompt(Kind.RETRIEVAL, "t", "x", small, Random(0))
    usual = data_prompt(Kind.RETRIEVAL, "t", "x", CONFIG, Random(0))
    assert re.sub(r"\d+ words", "N words", prompt.text) == re.sub(r"\d+ words", "N words", usual.text)
    assert prompt.slots["num_words"] in ("8", "16")
    assert "each of 20 words or more" in data_prompt(Kind.LONG_LONG, "t", "x", small, Random(0)).text


def test_every_field_changes_the_recipe() -> None:
    others = (
        {"language": "German"}, {"difficulty_share": 0.25}, {"low_scores": (1.5, 2.0, 2.5)}, {"clarity": ["clear"]},
        {"lengths": {"long_words": 40}}, {"wording": "paper_2026"},
    )  # fmt: skip
    keys = {digest(recipe(PromptsConfig.model_validate(other))) for other in ({}, *others)}
    assert len(keys) == len(others) + 1


@pytest.mark.parametrize(
    "bad",
    [
        {"clarity": {"values": ["a"], "weights": [1, 2]}}, {"clarity": []}, {"unit": {"values": ["a"], "weights": [0]}},
        {"lengths": {"retrieval_words": [0]}}, {"difficulty_share": 2}, {"colour": "red"},
    ],
)  # fmt: skip
def test_bad_tables_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PromptsConfig.model_validate(bad)
