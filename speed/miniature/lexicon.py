"""Lexicon of the miniature world: concepts with their synonyms, and sentence patterns.

The lists in `words/` were written for this project. Each word belongs to one concept only. So the meaning of a text can
be read back exactly, and relevance and similarity can be measured.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

SLOTS = ("things", "aspect", "quality", "people", "place", "time", "kind")
"""Attributes of an entity, in the order in which facts are listed."""


@cache
def sections(name: str) -> dict[str, list[str]]:
    """Read the lines of a word list in `words/`, by the `[heading]` of their section."""
    by_heading: dict[str, list[str]] = {}
    text = files("speed.miniature").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            heading = by_heading.setdefault(line.strip("[]"), [])
        elif line.strip() and not line.startswith("#"):
            heading.append(line.strip())
    return by_heading


def _concepts(lines: list[str]) -> dict[str, tuple[str, ...]]:
    forms = [tuple(form.strip() for form in line.split("|")) for line in lines]
    return {each[0]: each for each in forms}


@cache
def lexicon() -> dict[str, dict[str, tuple[str, ...]]]:
    """slot -> concept -> its words. A concept has the name of its first word."""
    concepts = {"things": {k: v for lines in sections("things").values() for k, v in _concepts(lines).items()}}
    concepts.update({slot: _concepts(lines) for slot, lines in sections("attributes").items()})
    return {slot: concepts[slot] for slot in SLOTS}


@cache
def domains() -> dict[str, tuple[str, ...]]:
    """Domain (the first level of a topic path) -> its things."""
    return {domain: tuple(_concepts(lines)) for domain, lines in sections("things").items()}


@cache
def domain_of(thing: str) -> str:
    """Domain of a thing."""
    return next(domain for domain, things in domains().items() if thing in things)


@cache
def patterns() -> dict[str, tuple[str, ...]]:
    """Name of a group of patterns -> its patterns."""
    return {name: tuple(lines) for name, lines in sections("patterns").items()}


@cache
def meanings() -> dict[str, tuple[str, str]]:
    """Word or phrase -> (slot, concept)."""
    return {
        form: (slot, concept)
        for slot, concepts in lexicon().items()
        for concept, forms in concepts.items()
        for form in forms
    }


@cache
def any_form() -> re.Pattern[str]:
    """Pattern that matches any word or phrase of the lexicon."""
    longest_first = sorted(meanings(), key=lambda form: (-len(form), form))
    return re.compile(r"\b(" + "|".join(re.escape(form) for form in longest_first) + r")\b")


def mentions(text: str) -> list[tuple[str, str]]:
    """(slot, concept) of each lexicon word in a text, in reading order. Underscores count as spaces."""
    known = meanings()
    return [known[form] for form in any_form().findall(text.replace("_", " ").lower())]


def meaning(text: str) -> dict[str, frozenset[str]]:
    """slot -> concepts that a text mentions."""
    by_slot: dict[str, set[str]] = {}
    for slot, concept in mentions(text):
        by_slot.setdefault(slot, set()).add(concept)
    return {slot: frozenset(concepts) for slot, concepts in by_slot.items()}
