"""Repair an example by rules: replace single words if that is enough, and otherwise write the field anew.

Everything right stays as it is. So a model that learns from repairs learns to copy, and to change what is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import product

from speed.data.records import KEYS, Kind
from speed.miniature.faults import content_faults, form_faults, on_topic
from speed.miniature.lexicon import SLOTS, lexicon, meaning, meanings, mentions, patterns
from speed.miniature.phrasing import Choose, any_word, phrase, replace_words
from speed.miniature.prompt_reading import Request
from speed.miniature.subject import Subject
from speed.miniature.world import similarity
from speed.miniature.writing import asked_slot, confused_with, neighbour, write_example

TOLD = ("people", "place", "time")
"""Slots on which a sentence can be added."""

ATTEMPTS = 24
CLOSE = 0.5
"""Greatest difference between the similarity of a repaired text and the one asked for, on the scale of 1 to 5."""


def believed(about: Subject, fields: Mapping[str, str]) -> Subject:
    """The subject with the facts that an answer states first, except for its topic.

    The facts are not in the prompt. If the rules corrected them, a model that cannot know them would learn to replace
    words at random: a revisor trained so left the topic in two of ten examples that had been on it.
    """
    said: dict[str, str] = {}
    for text in list(fields.values())[:2]:  # a third one is a negative, which says something else
        for slot, concept in mentions(text):
            said.setdefault(slot, concept)
    return replace(about, facts={**about.facts, **said, **{slot: about.facts[slot] for slot in SLOTS[:2]}})


def repair(request: Request, about: Subject, fields: Mapping[str, str], rng: random.Random) -> dict[str, str]:
    """Change as little of `fields` as gives an example without a fault. Missing fields are written."""
    slots = tuple(about.sure)

    def faulty(tried: Mapping[str, str]) -> set[str]:
        return {fault.key for fault in form_faults(request, tried) + content_faults(request, about, tried, slots)}

    keys = KEYS[request.kind].all
    if set(keys) <= set(fields) and not faulty(fields):
        return dict(fields)
    tries: list[tuple[int, int, dict[str, str]]] = []
    for attempt in range(ATTEMPTS):
        fresh = tried = write_example(request, about, rng)
        if attempt < ATTEMPTS - 4:
            tried = _edited(request, about, {key: fields.get(key, fresh[key]) for key in keys}, rng)
            for _ in range(2):  # a new field may put another one in the wrong
                wrong = faulty(tried)
                tried = {key: fresh[key] if key in wrong else tried[key] for key in keys}
        tries.append((len(faulty(tried)), attempt, tried))
        if tries[-1][0] == 0:
            break
    return min(tries)[2]


def _edited(request: Request, about: Subject, fields: dict[str, str], rng: random.Random) -> dict[str, str]:
    edit = {
        Kind.RETRIEVAL: _retrieval,
        Kind.CLASSIFICATION: _classification,
        Kind.STS: _triple,
        Kind.SHORT_SHORT: _pair,
        Kind.LONG_LONG: _pair,
    }[request.kind]
    return edit(request, about, fields, rng)


def _retrieval(request: Request, about: Subject, fields: dict[str, str], rng: random.Random) -> dict[str, str]:
    query, positive, negative = (fields[key] for key in KEYS[Kind.RETRIEVAL].all)
    query = _right(query, about, any_word(rng))
    positive = _telling(_right(positive, about, any_word(rng)), about, set(meaning(query)), request, rng)
    return dict(zip(fields, (query, positive, _lengthened(negative, request, rng)), strict=True))


def _classification(request: Request, about: Subject, fields: dict[str, str], rng: random.Random) -> dict[str, str]:
    text, label, misleading = (fields[key] for key in KEYS[Kind.CLASSIFICATION].all)
    slot = asked_slot(request.about)
    if slot is None:
        return fields
    right = about.facts[slot]
    if meanings().get(label.lower()) != (slot, right):
        label = right
    meant = meanings().get(misleading.lower())
    if meant is None or meant[0] != slot or meant[1] == right:
        misleading = confused_with(slot, right)
    choose = any_word(rng, avoid=(label, misleading))
    text = _without((label, misleading), _right(text, about, choose), choose)
    return dict(zip(fields, (_telling(text, about, {slot}, request, rng, choose), label, misleading), strict=True))


def _triple(request: Request, about: Subject, fields: dict[str, str], rng: random.Random) -> dict[str, str]:
    texts = [fields[key] for key in KEYS[Kind.STS].all]
    if not on_topic(about, texts[0]):
        said = meaning(texts[0])  # the other texts go on sharing what they share with the first
        topic = {slot: (said[slot], about.facts[slot]) for slot in SLOTS[:2] if slot in said}
        texts = [replace_words(text, topic, any_word(rng)) for text in texts]
    first, *others = texts
    wanted = (request.high_score, request.low_score)
    other = neighbour(about, {"aspect"}, rng)
    moved = [_as_similar(first, text, score, other, rng) for text, score in zip(others, wanted, strict=True)]
    return dict(zip(fields, (first, *moved), strict=True))


def _pair(request: Request, about: Subject, fields: dict[str, str], rng: random.Random) -> dict[str, str]:
    one, two = (_right(fields[key], about, any_word(rng)) for key in KEYS[request.kind].all)
    if request.kind is Kind.LONG_LONG:
        one, two = (_telling(text, about, set(meaning(one)) | set(meaning(two)), request, rng) for text in (one, two))
    return dict(zip(fields, (one, two), strict=True))


def _right(text: str, about: Subject, choose: Choose) -> str:
    """Replace each wrong value in its place."""
    said = meaning(text)
    wrong = {slot: said[slot] - {about.facts[slot]} for slot in SLOTS if slot in about.sure and slot in said}
    return replace_words(text, {slot: (old, about.facts[slot]) for slot, old in wrong.items()}, choose)


def _without(labels: Collection[str], text: str, choose: Choose) -> str:
    """Replace the labels in a text by synonyms."""
    low = text.lower()
    meant = [meanings()[label.lower()] for label in labels if label.lower() in low and label.lower() in meanings()]
    return replace_words(text, {slot: ({concept}, concept) for slot, concept in meant}, choose)


def _telling(
    text: str, about: Subject, slots: set[str], request: Request, rng: random.Random, choose: Choose | None = None
) -> str:
    """Add a sentence on each of these slots that the text does not mention, and fillers until it is long enough."""
    choose = choose or any_word(rng)
    missing = slots - set(meaning(text))
    groups = [slot for slot in TOLD if slot in missing] + (["nameless"] if missing - set(TOLD) else [])
    return _lengthened(
        " ".join([_ended(text), *(phrase(group, about.facts, rng, choose) for group in groups)]), request, rng
    )


def _lengthened(text: str, request: Request, rng: random.Random) -> str:
    """Add sentences that say nothing until the text is as long as the prompt wants."""
    for filler in rng.sample(patterns()["filler"], len(patterns()["filler"])):
        if len(text.split()) >= request.words.least:
            break
        text = f"{_ended(text)} {filler}"
    return text


def _ended(text: str) -> str:
    return text if not text or text[-1] in ".?!" else text + "."


def _as_similar(first: str, text: str, score: float, other: Mapping[str, str], rng: random.Random) -> str:
    """Change as few values as give the text the wanted similarity to the first; what is to differ is true of `other`.

    Among equal ways, one that keeps the aspect and not the things, as the rules write.
    """
    left, right = meaning(first), meaning(text)
    common = [slot for slot in SLOTS if slot in left and slot in right]
    ways: list[tuple[int, bool, bool, int, dict[str, str]]] = []
    for equal in product((True, False), repeat=len(common)):
        same = dict(zip(common, equal, strict=True))
        differing = [slot for slot in common if (left[slot] == right[slot]) is not same[slot]]
        new = {slot: min(left[slot]) if same[slot] else _unlike(slot, left[slot], other, rng) for slot in differing}
        meant = {**right, **{slot: frozenset({concept}) for slot, concept in new.items()}}
        if abs(similarity(left, meant) - score) <= CLOSE:
            kept = same.get("things", True), not same.get("aspect", True)
            ways.append((len(new), *kept, len(ways), new))
    fewest = min(ways)[-1] if ways else {}
    return replace_words(text, {slot: (right[slot], concept) for slot, concept in fewest.items()}, any_word(rng))


def _unlike(slot: str, concepts: Collection[str], other: Mapping[str, str], rng: random.Random) -> str:
    """A value that is none of the concepts: that of another subject, or any if it is one of them."""
    fitting = [concept for concept in lexicon()[slot] if concept not in concepts]
    return other[slot] if other[slot] in fitting else rng.choice(fitting)
