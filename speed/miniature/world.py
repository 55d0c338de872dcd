"""The hidden facts of the miniature world: entities with facts and topics, split into a training and a held-out half.

An entity is about one (thing, aspect) pair and has one value for each slot of the lexicon. Its values follow from few
rules: whom it serves, where it stands and what its work is like from its things, what kind of house it is and when it
is open from its aspect. Some pairs of the training half are exceptions. So a small model that has read about the
training half can know all of it, and can tell the facts of a held-out pair from those of its things and its aspect.

Its topic is a path like those of the Open Directory Project: `Domain/Things/Aspect/Name`. The halves share no pair, so
no held-out entity occurs in a training text.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

from speed.miniature.lexicon import SLOTS, domain_of, domains, lexicon, meanings, sections

Half = Literal["train", "held"]

HELD_SHARE = 0.25
"""Share of (thing, aspect) pairs that are held out for evaluation."""
FOLLOWS: Mapping[str, str] = {
    "quality": "things",
    "people": "things",
    "place": "things",
    "time": "aspect",
    "kind": "aspect",
}
"""Slot -> slot from whose value it follows."""
EXCEPTIONS = 64
"""Pairs of the training half of which one fact is not what the rules say."""

_ONSETS = tuple(sections("syllables")["onsets"][0].split())
_VOWELS = tuple(sections("syllables")["vowels"][0].split())
_MIDDLES = tuple(sections("syllables")["middles"][0].split())
_ENDINGS = tuple(sections("syllables")["endings"][0].split())


def seeded(*parts: object) -> random.Random:
    """Generator that depends on these parts only, the same on all machines."""
    text = "\0".join(str(part) for part in parts)
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def invented_name(rng: random.Random) -> str:
    """Draw a pronounceable name that is no English word, so that a model can copy it and not guess it."""
    stem = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_MIDDLES)
    return (stem + rng.choice(_ENDINGS)).capitalize()


@dataclass(frozen=True)
class Entity:
    """One entity: its name, its facts and its topic."""

    name: str
    half: Half
    facts: Mapping[str, str]
    """slot -> concept, for all slots."""
    topic: str
    """`Vehicles/Boats/Repair/Velmora`; each word of the path may be any synonym of its concept."""

    @property
    def domain(self) -> str:
        """First level of the topic path."""
        return domain_of(self.facts["things"])

    @property
    def pair(self) -> tuple[str, str]:
        """The (thing, aspect) pair of the entity."""
        return self.facts["things"], self.facts["aspect"]


@dataclass(frozen=True)
class World:
    """All entities of one seed."""

    seed: int
    entities: tuple[Entity, ...]
    rules: Mapping[str, Mapping[str, str]]
    """Slot -> value of the slot that it follows from -> its value."""

    def half(self, half: Half) -> tuple[Entity, ...]:
        """The entities of one half."""
        return tuple(entity for entity in self.entities if entity.half == half)

    @cached_property
    def train(self) -> Mapping[str, Entity]:
        """Name in lower case -> entity of the training half. The teacher knows only these."""
        return {entity.name.lower(): entity for entity in self.half("train")}

    @cached_property
    def held(self) -> Mapping[str, Entity]:
        """Name in lower case -> entity of the held-out half. The evaluation asks only about these."""
        return {entity.name.lower(): entity for entity in self.half("held")}

    @cached_property
    def train_pairs(self) -> tuple[tuple[str, str], ...]:
        """(thing, aspect) pairs of the training half, sorted."""
        return tuple(sorted({entity.pair for entity in self.half("train")}))

    @property
    def facts(self) -> int:
        """Number of independent facts: what the rules say, and the exceptions."""
        return sum(len(values) for values in self.rules.values()) + len(self.exceptions)

    @cached_property
    def exceptions(self) -> tuple[tuple[Entity, str], ...]:
        """Entities and their slots whose values are not what the rules say."""
        return tuple(
            (entity, slot)
            for entity in self.entities
            for slot, cause in FOLLOWS.items()
            if entity.facts[slot] != self.rules[slot][entity.facts[cause]]
        )


@cache
def world(seed: int = 0) -> World:
    """World of a seed: one entity for each of 1,536 (thing, aspect) pairs, with 384 independent facts in all."""
    rng = seeded("world", seed)
    pairs = [(thing, aspect) for things in domains().values() for thing in things for aspect in lexicon()["aspect"]]
    held = set(rng.sample(pairs, round(HELD_SHARE * len(pairs))))
    names = _names(len(pairs), rng)
    rules = {slot: _rule(slot, rng) for slot in FOLLOWS}
    exceptions = set(rng.sample([pair for pair in pairs if pair not in held], EXCEPTIONS))
    entities = []
    for pair, name in zip(pairs, names, strict=True):
        half: Half = "held" if pair in held else "train"
        facts = {"things": pair[0], "aspect": pair[1]}
        facts |= {slot: rules[slot][facts[cause]] for slot, cause in FOLLOWS.items()}
        if pair in exceptions:
            slot = rng.choice(tuple(FOLLOWS))
            facts[slot] = rng.choice([concept for concept in lexicon()[slot] if concept != facts[slot]])
        levels = [rng.choice(lexicon()["things"][pair[0]]), rng.choice(lexicon()["aspect"][pair[1]])]
        topic = "/".join([domain_of(pair[0]), *(level.capitalize() for level in levels), name])
        entities.append(Entity(name=name, half=half, facts={slot: facts[slot] for slot in SLOTS}, topic=topic))
    return World(seed=seed, entities=tuple(entities), rules=rules)


def _rule(slot: str, rng: random.Random) -> dict[str, str]:
    """Give each value of the slot that `slot` follows from a value of `slot`; all are used equally often."""
    causes, values = list(lexicon()[FOLLOWS[slot]]), list(lexicon()[slot])
    rng.shuffle(causes)
    rng.shuffle(values)
    return {cause: values[place % len(values)] for place, cause in enumerate(causes)}


def _names(count: int, rng: random.Random) -> list[str]:
    taken = set(meanings()) | {domain.lower() for domain in domains()}
    names: dict[str, None] = {}
    while len(names) < count:
        name = invented_name(rng)
        if name.lower() not in taken:
            names.setdefault(name)
    return list(names)


def similarity(left: Mapping[str, object], right: Mapping[str, object]) -> float:
    """Similarity of two meanings on the scale of 1 to 5: 1 + 4 x the weighted share of slots with equal values.

    `things` and `aspect` count twice, since a text is about them. Slots that neither meaning has do not count.
    """
    weight = {slot: 2.0 if slot in ("things", "aspect") else 1.0 for slot in SLOTS}
    used = [slot for slot in SLOTS if slot in left or slot in right]
    same = sum(weight[slot] for slot in used if left.get(slot) == right.get(slot))
    return 1.0 + 4.0 * same / sum(weight[slot] for slot in used) if used else 1.0


def training_topics(seed: int = 0) -> list[str]:
    """Topic paths of the training half: the contents of `topics.txt`."""
    return [entity.topic for entity in world(seed).half("train")]


if __name__ == "__main__":  # python -m speed.miniature.world > speed/miniature/topics.txt
    print(*training_topics(), sep="\n")
