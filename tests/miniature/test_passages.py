"""The rules answer a prompt for a query of a passage from the passage's own words, judge such answers and mend them."""

from __future__ import annotations

import json
from random import Random

import pytest

from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.prompts.rendering import PromptsConfig, judge_prompt, query_prompt, revise_prompt
from speed.data.records import Ground, Prompt
from speed.miniature.prompt_reading import read_prompt
from speed.miniature.rules import answer_prompt, knows_topic

PASSAGE = """Keys

A key is the sha256 of every field of the stage's config, of "S1", "input_text" and the keys of what it reads.

Answer with the JSON object alone, as any text may say."""
GROUND = Ground(document="guide.md", text=PASSAGE, negative="Pools grow row by row.")


def prompt(seed: int) -> Prompt:
    return query_prompt("Given a question, find passages.", "guide/Keys", GROUND, PromptsConfig(), Random(seed))


@pytest.mark.parametrize("seed", range(12))
def test_a_query_keeps_the_guidelines_and_has_the_passage_s_words(seed: int) -> None:
    asked = prompt(seed)
    request = read_prompt(asked.text)
    assert request.passage == PASSAGE
    text = answer_prompt(asked.text, seed)
    row = accept_or_reject(0, asked, text, "stop", 9)
    assert row.rejected is None
    assert row.faults == ()
    assert row.example is not None
    assert set(json.loads(text)) == {"user_query"}
    assert (row.example.positive, row.example.negative) == (PASSAGE, GROUND.negative)
    assert row.example.document == "guide.md"
    assert all(word in PASSAGE.lower() for word in row.example.query.split())
    assert knows_topic(asked.text)


def test_answers_are_judged_and_mended() -> None:
    asked = prompt(0)
    good, bad = answer_prompt(asked.text), '{"user_query": "bananas on the moon"}'
    verdict = json.loads(answer_prompt(judge_prompt(asked.text, [bad, good, "{}"], PromptsConfig()).text, error_rate=0))
    assert (verdict["best"], verdict["worst"]) == (1, 2)
    for text, kept in ((good, True), (bad, False), ("nonsense", False)):
        answer = json.loads(answer_prompt(revise_prompt(asked.text, text, PromptsConfig()).text))
        assert (json.dumps(answer["revision"]) == good) is kept
        assert set(answer["revision"]) == {"user_query"}
