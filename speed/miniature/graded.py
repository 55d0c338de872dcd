"""How the rules write documents of four levels of relevance: about houses of the world of which one is all that a query
asks for, and others are less and less of it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping

from speed.data.records import LEVELS
from speed.miniature.lexicon import domain_of, meaning, patterns
from speed.miniature.phrasing import any_word
from speed.miniature.prompt_reading import Request
from speed.miniature.world import Entity, world
from speed.miniature.writing import document

WORDS_SHARED = (1.0, 0.5, 0.25, 0.0)
"""Share of the words of a query that is of other words than the world's, in the documents of each level."""


def write_graded(request: Request, rng: random.Random) -> str:
    """The answer to a prompt for graded documents, as JSON. What the documents say of houses is true."""
    asked = meaning(request.query)
    texts = _of_houses(request, asked, rng) if asked else _of_words(request, rng)
    return json.dumps(dict(zip(LEVELS, texts, strict=True)))


def _of_houses(request: Request, asked: Mapping[str, frozenset[str]], rng: random.Random) -> list[str]:
    used = request.query.lower().split()
    written = []
    for number, house in enumerate(_houses(asked, rng)):
        told = {slot for slot, concepts in asked.items() if house.facts[slot] in concepts}
        choose = any_word(rng, avoid=used) if number == 0 else any_word(rng, prefer=used)
        written.append(document({**house.facts, "name": house.name}, told, request.words, rng, choose))
    return written


def _houses(asked: Mapping[str, frozenset[str]], rng: random.Random) -> list[Entity]:
    """Four houses, each with fewer of the concepts that are asked for than the one before; the last has none, and is of
    another domain. Where the world has no such row, two neighbours may have equally many."""
    known = world().half("train")
    shared = {house.name: sum(house.facts[slot] in concepts for slot, concepts in asked.items()) for house in known}
    best = max(shared.values())

    def with_most(most: int) -> Entity:
        """A house with as many of the concepts as there are, and not more than `most`."""
        there = max((number for number in shared.values() if number <= most), default=0)
        return rng.choice([house for house in known if shared[house.name] == there] or list(known))

    perfect = with_most(best)
    partial = with_most(best - 1)
    related = with_most(min(1, shared[partial.name] - 1))
    domains = {perfect.domain, *(domain_of(thing) for thing in asked.get("things", ()))}
    others = [house for house in known if not shared[house.name] and house.domain not in domains] or list(known)
    return [perfect, partial, related, rng.choice(others)]


def _of_words(request: Request, rng: random.Random) -> list[str]:
    """Documents of a query of which the world knows no word: more or less of its words among sentences that say
    nothing."""
    words = request.query.split()
    written = []
    for share in WORDS_SHARED:
        said = rng.sample(words, math.ceil(share * len(words)))
        text = " ".join([*said, *rng.sample(patterns()["filler"], 2)])
        while len(text.split()) < request.words.least:
            text += " " + rng.choice(patterns()["filler"])
        written.append(text)
    return written
