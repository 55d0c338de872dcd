"""Find the subject of a task or topic: an entity that the teacher knows, or a new one made of the topic's words."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from speed.miniature.lexicon import SLOTS, lexicon, mentions, sections
from speed.miniature.world import Entity, world


@cache
def _plain_words() -> frozenset[str]:
    """Words that say nothing about a topic."""
    return frozenset(" ".join(sections("plain")["words"]).split())


@dataclass(frozen=True)
class Subject:
    """What to write about. `facts` has all slots; those that the teacher does not know are invented for the answer."""

    name: str
    facts: Mapping[str, str]
    """slot -> concept of the lexicon, or a word of the topic that the lexicon does not have."""
    known: bool
    sure: frozenset[str] = frozenset(SLOTS)
    """Slots whose values are known or named by the topic; the others are invented."""
    entity: Entity | None = None

    @property
    def values(self) -> dict[str, str]:
        """Values that patterns are filled with."""
        return {**self.facts, "name": self.name}


def known_entity(about: str) -> Entity | None:
    """Training entity that a text names, if any. Held-out entities are never found."""
    names = world().train
    for word in re.findall(r"[A-Z][a-z]+", about):
        if word.lower() in names:
            return names[word.lower()]
    return None


def subject_of(about: str, rng: random.Random) -> Subject:
    """Subject of a task or topic. If it names no known entity, a subject is made of its words and invented facts."""
    entity = known_entity(about)
    if entity is not None:
        return Subject(entity.name, entity.facts, known=True, entity=entity)
    facts = {slot: rng.choice(tuple(lexicon()[slot])) for slot in SLOTS}
    stated = dict(reversed(mentions(_without_first_level(about))))
    name, things = _own_words(about)
    if things:
        stated.setdefault("things", things)
    return Subject(name, facts | stated, known=False, sure=frozenset(stated))


def _without_first_level(about: str) -> str:
    return about.split("/", 1)[1] if re.match(r"^\S+/\S", about) else about


def _own_words(about: str) -> tuple[str, str]:
    """(name, things) of a text: the last two levels of a path, or the last two words that are not plain."""
    if re.match(r"^\S+(/\S+)*$", about) and "/" in about:
        levels = [level.replace("_", " ").strip() for level in about.split("/")]
        levels = [level for level in levels if len(level) > 1] or levels
        return levels[-1], (levels[-2].lower() if len(levels) > 1 else "")
    quoted = re.search(r"about (.+?) at (.+?)(?:,|\.| that|$)", about)
    if quoted:
        return quoted[2], quoted[1].split(" of ")[-1].lower()
    words = [word for word in re.findall(r"[\w'-]+", about) if word.lower() not in _plain_words()] or ["something"]
    return words[-1].capitalize(), (words[-2].lower() if len(words) > 1 else "")
