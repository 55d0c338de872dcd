"""The shared lexicon of the miniature world: concepts, each with the words that mean the same, and sentence patterns.

The lists lie in `words/` and were written for this project. A word belongs to one concept only, so that the meaning
of a text can be read back exactly: that is what makes relevance and similarity measurable.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

SLOTS = ("things", "aspect", "quality", "people", "place", "time", "kind")
"""The attributes of an entity, in the order in which facts are listed."""


@cache
def sections(name: str) -> dict[str, list[str]]:
    """The `[heading]` sections of a word list in `words/`, each with its lines."""
    found: dict[str, list[str]] = {}
    text = files("speed.miniature").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            heading = found.setdefault(line.strip("[]"), [])
        elif line.strip() and not line.startswith("#"):
            heading.append(line.strip())
    return found


def _concepts(lines: list[str]) -> dict[str, tuple[str, ...]]:
    forms = [tuple(form.strip() for form in line.split("|")) for line in lines]
    return {each[0]: each for each in forms}


@cache
def lexicon() -> dict[str, dict[str, tuple[str, ...]]]:
    """slot -> concept -> its words; a concept is named by its first word."""
    found = {"things": {k: v for lines in sections("things").values() for k, v in _concepts(lines).items()}}
    found.update({slot: _concepts(lines) for slot, lines in sections("attributes").items()})
    return {slot: found[slot] for slot in SLOTS}


@cache
def domains() -> dict[str, tuple[str, ...]]:
    """Domain (the first level of a topic path) -> its things."""
    return {domain: tuple(_concepts(lines)) for domain, lines in sections("things").items()}


@cache
def domain_of(thing: str) -> str:
    """The domain of a thing."""
    return next(domain for domain, things in domains().items() if thing in things)


@cache
def patterns() -> dict[str, tuple[str, ...]]:
    """Name of a group of patterns -> the patterns."""
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
    longest_first = sorted(meanings(), key=lambda form: (-len(form), form))
    return re.compile(r"\b(" + "|".join(re.escape(form) for form in longest_first) + r")\b")


def mentions(text: str) -> list[tuple[str, str]]:
    """(slot, concept) of every lexicon word of a text, in reading order; underscores count as spaces."""
    known = meanings()
    return [known[form] for form in any_form().findall(text.replace("_", " ").lower())]


def meaning(text: str) -> dict[str, frozenset[str]]:
    """slot -> the concepts that a text mentions."""
    found: dict[str, set[str]] = {}
    for slot, concept in mentions(text):
        found.setdefault(slot, set()).add(concept)
    return {slot: frozenset(concepts) for slot, concepts in found.items()}
