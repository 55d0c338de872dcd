"""A repair changes only what is wrong."""

from __future__ import annotations

import json
import random
from difflib import SequenceMatcher
from itertools import pairwise

import pytest

from speed.data.prompts.rendering import Choices, Lengths, PromptsConfig, data_prompt
from speed.data.records import Kind
from speed.miniature.faults import content_faults, form_faults, text_similarity
from speed.miniature.lexicon import lexicon, meaning
from speed.miniature.prompt_reading import Request, read_prompt
from speed.miniature.repair import repair
from speed.miniature.rules import answer_prompt
from speed.miniature.subject import Subject, subject_of
from speed.miniature.world import seeded, world
from speed.miniature.writing import TASKS

CONFIG = PromptsConfig(
    wording="paper_2026",
    lengths=Lengths(retrieval_words=(12,), classification_words=Choices(values=("at least 12",)), long_words=20),
)


def asked(kind: Kind, place: int) -> tuple[Request, Subject, dict[str, str]]:
    """A request, what it is about, and a good answer."""
    entity = world().half("train")[place]
    task = TASKS[kind][0] if kind in TASKS else ""
    words = f"{entity.facts['aspect']} of {entity.facts['things']} at {entity.name}"
    task = task.replace("{about}", words).replace("{asked}", "where it stands")
    prompt = data_prompt(kind, task, entity.topic, CONFIG, random.Random(place))
    request = read_prompt(prompt.text)
    return request, subject_of(request.about, seeded(place)), json.loads(answer_prompt(prompt.text, place))


def other_word(slot: str, right: str) -> str:
    return next(forms[0] for concept, forms in lexicon()[slot].items() if concept != right)


def kept(before: str, after: str) -> float:
    """Share of the words that stay."""
    return SequenceMatcher(a=before.split(), b=after.split()).ratio()


@pytest.mark.parametrize("kind", [Kind.RETRIEVAL, Kind.CLASSIFICATION, Kind.LONG_LONG])
def test_a_wrong_fact_is_replaced_where_it_stands(kind: Kind) -> None:
    for place in range(12):
        request, about, fields = asked(kind, place)
        key = {Kind.RETRIEVAL: "positive_document", Kind.CLASSIFICATION: "input_text"}.get(kind, "input")
        wrong = other_word("place", about.facts["place"])
        broken = {**fields, key: f"{fields[key]} It stands near an {wrong}."}
        found = repair(request, about, broken, random.Random(place))
        assert meaning(found[key])["place"] == {about.facts["place"]}
        assert kept(broken[key], found[key]) > 0.8
        assert not form_faults(request, found) + content_faults(request, about, found)


def test_texts_of_another_topic_get_this_one_and_stay_as_similar() -> None:
    for place in range(12):
        request, about, fields = asked(Kind.STS, place)
        foreign = asked(Kind.STS, place + 100)[2]
        found = repair(request, about, foreign, random.Random(place))
        assert meaning(found["S1"])["things"] == {about.facts["things"]}
        assert kept(foreign["S1"], found["S1"]) > 0.5
        for key, score in (("S2", request.high_score), ("S3", request.low_score)):
            assert abs(text_similarity(found["S1"], found[key]) - score) <= 0.75
        assert repair(request, about, fields, random.Random(place)) == fields


def test_an_article_fits_the_word_that_comes_in() -> None:
    request, about, fields = asked(Kind.RETRIEVAL, 3)
    kinds = {"school": "an academy", "company": "an enterprise"}
    for right, text in kinds.items():
        here = Subject(about.name, {**about.facts, "kind": right}, known=True, entity=about.entity)
        broken = {**fields, "positive_document": fields["positive_document"] + " Once it was a club."}
        for seed in range(6):
            said = repair(request, here, broken, random.Random(seed))["positive_document"]
            assert not {" a academy", " a enterprise", " an school", " an company"} & _pairs(said), text


def _pairs(text: str) -> set[str]:
    words = text.split()
    return {f" {left} {right.rstrip('.,')}" for left, right in pairwise(words)}


def test_labels_are_put_right_and_leave_the_text() -> None:
    for place in range(12):
        request, about, fields = asked(Kind.CLASSIFICATION, place)
        right = about.facts["place"]
        broken = {"input_text": f"{fields['input_text']} It stands near the {right}.", "label": "yes"}
        found = repair(request, about, broken, random.Random(place))
        assert found["label"] == right
        assert found["misleading_label"] != right
        assert right not in found["input_text"]
        assert not form_faults(request, found) + content_faults(request, about, found)


def test_a_short_text_is_lengthened() -> None:
    request, about, fields = asked(Kind.RETRIEVAL, 5)
    first = fields["positive_document"].split(". ")[0] + "."
    found = repair(request, about, {**fields, "positive_document": first}, random.Random(0))
    assert found["positive_document"].startswith(first)
    assert len(found["positive_document"].split()) >= request.words.least
