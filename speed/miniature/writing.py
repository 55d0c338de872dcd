"""How the rules write: tasks for a topic, and one example for a task, obeying what the prompt asks for."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from speed.data.records import Kind
from speed.miniature.lexicon import SLOTS, lexicon, patterns
from speed.miniature.phrasing import Choose, any_word, capitalize, fill, phrase, sentences, slots_of
from speed.miniature.prompt_reading import Request, Words
from speed.miniature.subject import Subject
from speed.miniature.world import similarity, world

ASKED: dict[str, tuple[str, ...]] = {
    "people": ("whom it serves", "which people it is for"),
    "place": ("where it stands", "which place it is near"),
    "time": ("when it is open", "at which time it works"),
    "quality": ("what its work is like", "which quality it promises"),
    "kind": ("what kind of house it is", "what it calls itself"),
}
"""Attribute -> wordings in which a classification task asks for it."""

NAMED = 0.2
"""Share of documents with the name of the entity. All tasks have it: if all documents had it too, an embedder would
learn to match names between instruction and document, and nothing else."""

TASKS: dict[Kind, tuple[str, ...]] = {
    Kind.RETRIEVAL: (
        "Given a question about {about}, find notes that answer it.",
        "Given a search about {about}, retrieve the notes that serve it.",
        "Given a wish about {about}, find descriptions that meet it.",
        "Given a short query about {about}, retrieve matching descriptions.",
        "Given a need about {about}, find the texts that help.",
        "Given keywords about {about}, retrieve notes on it.",
    ),
    Kind.CLASSIFICATION: (
        "Tell from a note about {about} {asked}.",
        "Given a text about {about}, decide {asked}.",
    ),
    Kind.SHORT_SHORT: (
        "Given a short wish about {about}, find another wish of the same meaning.",
        "Given a phrase about {about}, find a phrase that says the same.",
        "Given a line about {about}, match it with a line in other words.",
        "Given a search about {about}, find a similar search.",
        "Given a headline about {about}, find a headline with the same news.",
    ),
    Kind.LONG_LONG: (
        "Given a note about {about}, find another note that says the same.",
        "Given a description about {about}, match it with one in other words.",
        "Given a report about {about}, find a second report on the same facts.",
        "Given a letter about {about}, find a letter with the same content.",
        "Given an entry about {about}, match it with an entry of equal meaning.",
    ),
}


def write_tasks(request: Request, about: Subject, rng: random.Random) -> str:
    """Write a JSON list of tasks for a topic."""
    choose = any_word(rng)
    tasks: dict[str, None] = {}
    for _ in range(request.count * 20):
        things, aspect = (choose(slot, about.facts[slot]) for slot in ("things", "aspect"))
        words = rng.choice((f"{aspect} of {things}", f"{things} {aspect}")) if about.known else things
        asked = rng.choice(ASKED[rng.choice(tuple(ASKED))])
        task = rng.choice(TASKS[request.kind]).replace("{about}", f"{words} at {about.name}")
        tasks.setdefault(task.replace("{asked}", asked))
        if len(tasks) == request.count:
            break
    return json.dumps(list(tasks))


def write_example(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    """Write the fields of an example that obeys the request."""
    write: dict[Kind, Callable[[Request, Subject, random.Random], dict[str, str]]] = {
        Kind.RETRIEVAL: _retrieval,
        Kind.CLASSIFICATION: _classification,
        Kind.STS: _triple,
        Kind.SHORT_SHORT: _short_pair,
        Kind.LONG_LONG: _long_pair,
    }
    return write[request.kind](request, about, rng)


def _retrieval(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    query, asked = _query(request, about, rng)
    asked &= set(SLOTS)
    used = query.split()
    positive = document(about.values, asked, request.words, rng, any_word(rng, avoid=used))
    other = neighbour(about, asked, rng)
    common = {slot for slot in asked if other[slot] == about.facts[slot]}
    negative = document(other, common, request.words, rng, any_word(rng, prefer=used))
    return {"user_query": query, "positive_document": positive, "hard_negative_document": negative}


def _query(request: Request, about: Subject, rng: random.Random) -> tuple[str, set[str]]:
    """Write a query of the wanted length and clarity. Also returns the slots that it asks for."""
    if request.clarity == "ambiguous":
        groups = ["vague_query"]
    elif request.query_words.most < 5:
        groups = ["short_query"]
    else:
        groups = ["query"]
    choose = any_word(rng, plain=request.clarity == "clear" and rng.random() < 0.5)
    fitting = [pattern for group in groups for pattern in patterns()[group]]
    for _ in range(40):
        pattern = rng.choice(fitting)
        query = fill(pattern, about.facts, choose)
        if "extremely" in request.query_type and rng.random() < 0.5:
            query += f" at {about.name}"
        if request.query_words.hold(query):
            break
    return query, slots_of(pattern)


def document(values: Mapping[str, str], needed: set[str], words: Words, rng: random.Random, choose: Choose) -> str:
    """Write a description that states the needed slots and is long enough."""
    if rng.random() >= NAMED:
        values = {slot: value for slot, value in values.items() if slot != "name"}
    said = sentences(values, rng, choose, fillers=len(patterns()["filler"]))
    core, rest = said[0], said[1:]
    facts = [group for group in ("people", "place", "time") if group in values]
    rest.sort(key=lambda sentence: _rank(sentence, values, needed, facts))
    text = core
    required = len(needed & set(facts))
    for number, sentence in enumerate(rest):
        if number >= required and len(text.split()) >= words.least:
            break
        text += " " + sentence
    while len(text.split()) < words.least:  # the paper's prompts ask for hundreds of words
        text += " " + phrase(rng.choice(("core" if "name" in values else "nameless", *facts)), values, rng, choose)
    return text


def _rank(sentence: str, values: Mapping[str, str], needed: set[str], facts: Sequence[str]) -> int:
    """Rank of a sentence: 0 if it states a needed slot, 1 if another fact, 2 if nothing."""
    low = sentence.lower()
    for slot in facts:
        forms = lexicon()[slot][values[slot]] if slot in lexicon() else (values[slot],)
        if any(form.lower() in low for form in forms):
            return 0 if slot in needed else 1
    return 2


def neighbour(about: Subject, asked: set[str], rng: random.Random) -> dict[str, str]:
    """Choose a known entity of the same aspect of other things that shares as many of the asked slots as possible."""
    things, aspect = about.facts["things"], about.facts["aspect"]
    near = [
        entity
        for entity in world().half("train")
        if entity.facts["things"] != things and entity.facts["aspect"] == aspect
    ]
    drawn = rng.sample(near, 24)
    shared = {entity.name: sum(entity.facts[slot] == about.facts[slot] for slot in asked) for entity in drawn}
    hard = [entity for entity in drawn if 0 < shared[entity.name] < len(asked)]
    best = max(hard or drawn, key=lambda entity: shared[entity.name])
    return {**best.facts, "name": best.name}


def _classification(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    slot = asked_slot(request.about) or rng.choice(tuple(ASKED))
    label = about.facts[slot]
    misleading = confused_with(slot, label)
    choose = any_word(rng, avoid=(label, misleading))
    if request.words.most < 12:
        for _ in range(20):
            text = phrase(f"short_{slot}", about.values, rng, choose)
            if request.words.hold(text):
                break
    else:
        text = document(about.values, {slot}, request.words, rng, choose)
    return {"input_text": text, "label": label, "misleading_label": misleading}


def confused_with(slot: str, concept: str) -> str:
    """The concept that a misleading label names: the first of its slot in the lexicon, or the second for the first.

    One of many would have to be invented, and a small model repeats the right label instead.
    """
    first, second, *_ = lexicon()[slot]
    return second if concept == first else first


def asked_slot(task: str) -> str | None:
    """Attribute that a classification task asks for."""
    for slot, wordings in ASKED.items():
        if any(wording in task for wording in wordings):
            return slot
    return None


def _triple(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    group = "phrase" if request.unit == "phrase" else "sentence"
    slots = sorted({slot for pattern in patterns()[group] for slot in slots_of(pattern)})
    first = {slot: about.facts[slot] for slot in slots}
    second = _altered(first, request.high_score, rng)
    third = contrasted(first, neighbour(about, {"aspect"}, rng), request.low_score)
    one = phrase(group, first, rng, any_word(rng))
    two = phrase(group, second, rng, any_word(rng, avoid=one.lower().split() if rng.random() < 0.7 else ()))
    three = phrase(group, third, rng, any_word(rng, prefer=one.lower().split()))
    texts = [capitalize(text) + ("" if group == "phrase" else ".") for text in (one, two, three)]
    if request.unit == "passage":
        texts = [text + " " + filler for text, filler in zip(texts, rng.sample(patterns()["filler"], 3), strict=True)]
    return dict(zip(("S1", "S2", "S3"), texts, strict=True))


def _altered(values: Mapping[str, str], score: float, rng: random.Random) -> dict[str, str]:
    """Change the values of slots so that the similarity comes as near to `score` as possible."""
    slots = [slot for slot in values if slot in lexicon()]
    best, distance = dict(values), abs(5.0 - score)
    for _ in range(40):
        changed = dict(values)
        for slot in rng.sample(slots, rng.randint(1, len(slots) - 1)):
            changed[slot] = rng.choice([concept for concept in lexicon()[slot] if concept != values[slot]])
        gap = abs(similarity(values, changed) - score)
        if (changed["things"], changed["aspect"]) in _held_pairs():
            continue  # never write about a pair of the evaluation, not even as a negative
        if gap < distance:
            best, distance = changed, gap
    return best


CONTRASTED = ("things", "quality", "people", "place", "aspect")
"""Slots in the order in which a third text says what is true of another subject."""


def contrasted(values: Mapping[str, str], other: Mapping[str, str], score: float) -> dict[str, str]:
    """Take over the facts of another subject, slot by slot, until the similarity is at most `score`.

    A small model can learn this: other things are one decision, from which the other facts follow. If any slots could
    change, each would be likelier kept than changed.
    """
    changed = dict(values)
    for slot in CONTRASTED:
        if slot in values and similarity(values, changed) > score:
            changed[slot] = other[slot]
    return changed


@cache
def _held_pairs() -> frozenset[tuple[str, str]]:
    every = {(things, aspect) for things in lexicon()["things"] for aspect in lexicon()["aspect"]}
    return frozenset(every - set(world().train_pairs))


def _short_pair(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    group = rng.choice(("phrase", "sentence"))
    facts = {slot: about.facts[slot] for slot in SLOTS}
    one = phrase(group, facts, rng, any_word(rng))
    two = phrase(group, facts, rng, any_word(rng, avoid=one.lower().split()))
    return {"input": capitalize(one), "positive_document": capitalize(two)}


def _long_pair(request: Request, about: Subject, rng: random.Random) -> dict[str, str]:
    needed = {"people", "place", "time"} if request.words.least > 20 else {"people"}
    one = document(about.values, needed, request.words, rng, any_word(rng))
    used = one.lower().replace(".", " ").replace(",", " ").split()
    two = document(about.values, needed, request.words, rng, any_word(rng, avoid=used))
    return {"input": one, "positive_document": two}
