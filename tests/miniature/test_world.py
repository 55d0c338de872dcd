"""The world: each word has one meaning, the halves share only words, and it is the same on all machines."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from importlib.resources import files

import pytest
from miniature_corpus import QUESTIONS, Answered, read_in_forms, read_in_words, recalled, texts

from speed.miniature.lexicon import SLOTS, domains, lexicon, meaning, meanings, mentions, patterns
from speed.miniature.phrasing import any_word, fill, phrase, slots_of
from speed.miniature.world import EXCEPTIONS, FOLLOWS, World, seeded, similarity, training_topics, world

EVERY_WORD = [form for concepts in lexicon().values() for forms in concepts.values() for form in forms]


def test_a_word_has_one_meaning() -> None:
    assert len(EVERY_WORD) == len(set(EVERY_WORD)) == len(meanings()) == 516
    assert {slot: len(concepts) for slot, concepts in lexicon().items()} == {
        "things": 96,
        "aspect": 16,
        "quality": 16,
        "people": 16,
        "place": 12,
        "time": 8,
        "kind": 8,
    }


def test_patterns_have_no_meaning_of_their_own() -> None:
    for pattern in itertools.chain(*patterns().values()):
        bare = re.sub(r"\{[^}]+\}", "", pattern)
        assert mentions(bare) == [], pattern
        assert slots_of(pattern) <= {*SLOTS, "name"}, pattern


def test_the_meaning_of_a_text_can_be_read_back() -> None:
    rng = seeded("test")
    for entity in world().entities[::37]:
        for group in ("sentence", "query", "short_query", "phrase"):
            text = phrase(group, entity.facts, rng, any_word(rng))
            for slot, concepts in meaning(text).items():
                assert concepts == {entity.facts[slot]}, (text, slot)


def test_filled_pattern() -> None:
    facts = {"name": "Velmora", "kind": "guild", "quality": "quick"}
    text = fill("{Name} is {a kind} and {quality}.", facts, lambda slot, concept: lexicon()[slot][concept][2])
    assert text == "Velmora is an association and speedy."


def test_size_and_split_of_the_world() -> None:
    every = world()
    assert (len(every.entities), len(every.train), len(every.held), every.facts) == (1536, 1152, 384, 384)
    assert not {entity.pair for entity in every.half("held")} & set(every.train_pairs)
    assert not set(every.train) & set(every.held)
    assert not {*every.train, *every.held} & {word.lower() for word in EVERY_WORD}


def test_facts_follow_from_things_and_aspect() -> None:
    """What a base has read about one pair tells it the facts of another, and no exception is held out."""
    for entity in world().half("held"):
        for slot, cause in FOLLOWS.items():
            told = {other.facts[slot] for other in world().half("train") if other.facts[cause] == entity.facts[cause]}
            assert entity.facts[slot] in told
            assert entity.facts[slot] == world().rules[slot][entity.facts[cause]]
    odd = world().exceptions
    assert len(odd) == len({entity.pair for entity, _ in odd}) == EXCEPTIONS
    assert {entity.half for entity, _ in odd} == {"train"}


def test_a_rule_uses_all_values_equally_often() -> None:
    for slot, values in world().rules.items():
        counts = Counter(values.values())
        assert set(counts) == set(lexicon()[slot])
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_world_is_the_same_everywhere() -> None:
    assert world().half("train")[0].topic == "Vehicles/Yachts/Warehousing/Drolia"
    assert world(1).entities[0].name != world(0).entities[0].name


def test_topics_file_is_the_training_half() -> None:
    lines = files("speed.miniature").joinpath("topics.txt").read_text(encoding="utf-8").splitlines()
    assert lines == training_topics()
    assert {line.split("/")[0] for line in lines} == set(domains())


def test_similarity_by_hand() -> None:
    boat = {"things": "boats", "aspect": "repair", "people": "students"}
    assert similarity(boat, boat) == 5.0
    assert similarity(boat, boat | {"people": "farmers"}) == 1 + 4 * 4 / 5
    assert similarity(boat, boat | {"things": "cars", "people": "farmers"}) == 1 + 4 * 2 / 5
    assert similarity({}, {}) == 1.0


def _grams(text: str, length: int) -> set[tuple[str, ...]]:
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[place : place + length]) for place in range(len(found) - length + 1)}


@pytest.mark.parametrize(
    "shares",
    [{}, {"forms": 1.0}, {"revised": 1.0}, {"lists": 0.5, "synonyms": 0.5}, {"labels": 1.0}],
    ids=str,
)
def test_the_corpus_holds_no_held_out_name_no_prompt_and_no_record(shares: dict[str, float]) -> None:
    stream = texts(world(), seed=0, **shares)
    sample = "\n".join(next(stream) for _ in range(3000))
    assert not set(re.findall(r"[a-z]+", sample.lower())) & set(world().held)
    assert not {entity.topic for entity in world().half("held")} & set(re.findall(r"\S+/\S+", sample))
    assert not [found for found in re.findall(r"{[^{}]*}", sample) if _is_record(found)]
    met = _grams(sample, 9)
    templates = files("speed.data.prompts").joinpath("templates")
    roles = (templates.joinpath("judge.jinja"), templates.joinpath("revise.jinja"))
    for template in [*templates.joinpath("synthesis").iterdir(), *roles]:
        wording = re.sub(r"{#.*?#}", "", template.read_text(encoding="utf-8"), flags=re.S)
        assert not _grams(wording, 9) & met, template.name


def test_questions_of_the_corpus_are_answered_by_the_facts_of_a_training_pair() -> None:
    known = {entity.pair: entity.facts for entity in world().half("train")}
    rng = seeded("recalled")
    for _ in range(200):
        text, places = recalled(world(), rng)
        head, *lines = text.removesuffix("\n").split("\n")
        about = dict(mentions(head))
        facts = known[about["things"], about["aspect"]]
        answers = [text[start:end].strip(" .") for start, end in places]
        asked = [
            next(slot for slot, ways in QUESTIONS.items() if line.partition(":")[0].lower() in ways) for line in lines
        ]
        assert sorted(asked) == sorted(QUESTIONS)
        assert all(answer in lexicon()[slot][facts[slot]] for slot, answer in zip(asked, answers, strict=True))
        assert not set(re.findall(r"[a-z]+", text.lower())) & set(world().held)


@pytest.mark.parametrize("write", [read_in_words, read_in_forms])
def test_what_is_asked_about_a_text_stands_in_it(write: Callable[[World, random.Random], Answered]) -> None:
    rng = seeded("read")
    for _ in range(100):
        text, places = write(world(), rng)
        assert places
        for start, end in places:
            [(slot, concept)] = mentions(text[start:end])
            assert concept in meaning(text[:start])[slot]


def _is_record(text: str) -> bool:
    try:
        return len(json.loads(text)) > 1  # two marks of a list may meet by chance around one word
    except ValueError:
        return False


def test_the_corpus_is_the_same_everywhere() -> None:
    first, second = texts(world(), seed=3), texts(world(), seed=3)
    assert [next(first) for _ in range(50)] == [next(second) for _ in range(50)]
