"""The rules write documents of four levels of relevance: each has fewer of the concepts that a query asks for."""

from __future__ import annotations

import json

import pytest

from speed.data.prompts.rendering import PromptsConfig, graded_prompt
from speed.data.records import LEVELS, Kind
from speed.miniature.faults import answers_query, conflicts
from speed.miniature.lexicon import meaning
from speed.miniature.phrasing import any_word, fill
from speed.miniature.prompt_reading import read_prompt
from speed.miniature.rules import answer_prompt, knows_topic
from speed.miniature.subject import Subject
from speed.miniature.world import seeded, world

PATTERNS = (
    "{quality} {aspect} of {things} near the {place}",
    "something {quality} with {things}",
    "which {kind} does {quality} {aspect} of {things} {time}",
    "is there anything {quality} with {things} for {people}",
)
HOUSES = world().half("train")[::40]


def prompt(query: str, words: int = 20) -> str:
    return graded_prompt("Given a wish, find notes.", query, words, PromptsConfig()).text


def test_the_prompt_is_read() -> None:
    found = read_prompt(prompt("one\nquery", 30))
    assert (found.role, found.kind, found.query, found.words.least) == ("graded", Kind.RETRIEVAL, "one\nquery", 30)
    assert knows_topic(prompt("anything"))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_each_level_has_fewer_of_what_is_asked_for(pattern: str) -> None:
    for number, house in enumerate(HOUSES):
        query = fill(pattern, house.facts, any_word(seeded("graded", number)))
        asked = meaning(query)
        found = json.loads(answer_prompt(prompt(query), seed=number))
        assert tuple(found) == LEVELS
        shared = [
            sum(concepts <= meaning(text).get(slot, frozenset()) for slot, concepts in asked.items())
            for text in found.values()
        ]
        assert answers_query(query, found["perfect"])
        assert len(asked) == shared[0] > shared[1] >= shared[2] >= shared[3] == 0
        assert shared[1] > shared[2] or shared[1] == 0
        assert all(len(text.split()) >= 20 for text in found.values())


def test_what_the_documents_say_is_true_and_about_the_training_half() -> None:
    """No text may tell of a pair of the evaluation."""
    pairs = set(world().train_pairs)
    for number, house in enumerate(HOUSES):
        query = fill(PATTERNS[0], house.facts, any_word(seeded("graded", number)))
        for text in json.loads(answer_prompt(prompt(query), seed=number)).values():
            said = {slot: min(concepts) for slot, concepts in meaning(text).items()}
            pair = said["things"], said["aspect"]
            assert pair in pairs
            told = next(each for each in world().half("train") if each.pair == pair)
            assert not conflicts(Subject(told.name, told.facts, known=True), text, tuple(said))


def test_a_query_of_other_words_is_answered_from_its_words() -> None:
    query = "pytest collects modules fixtures parametrised"
    found = json.loads(answer_prompt(prompt(query)))
    shared = [sum(word in text.split() for word in query.split()) for text in found.values()]
    assert shared == [5, 3, 2, 0]
