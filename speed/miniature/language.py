"""From meanings to simple English: patterns filled with any of the words that mean the same."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache

from speed.miniature.lexicon import any_form, lexicon, meanings, patterns

Choose = Callable[[str, str], str]
"""(slot, concept) -> the word to use."""


def any_word(rng: random.Random, avoid: Collection[str] = ()) -> Choose:
    """Chooses among a concept's words, never one of `avoid` where another is left."""

    def choose(slot: str, concept: str) -> str:
        forms = lexicon()[slot][concept]
        return rng.choice([form for form in forms if form not in avoid] or list(forms))

    return choose


def filled(pattern: str, values: Mapping[str, str], choose: Choose) -> str:
    """The pattern with its slots filled; `values` holds concepts, and names under `name` and `partner`."""

    def word(match: re.Match[str]) -> str:
        slot = match.group(1)
        key = slot.removeprefix("a ").lower()
        text = values[key] if key in ("name", "partner") else choose(key, values[key])
        if slot.startswith("a "):
            text = ("an " if text[0] in "aeio" else "a ") + text
        return text[0].upper() + text[1:] if slot[0].isupper() else text

    return re.sub(r"\{([^}]+)\}", word, pattern)


def slots_of(pattern: str) -> set[str]:
    """The slots that a pattern needs."""
    return {slot.removeprefix("a ").lower() for slot in re.findall(r"\{([^}]+)\}", pattern)}


def phrase(group: str, values: Mapping[str, str], rng: random.Random, choose: Choose) -> str:
    """One text of a group of patterns, among those whose slots have values."""
    fitting = [pattern for pattern in patterns()[group] if slots_of(pattern) <= set(values)]
    return filled(rng.choice(fitting), values, choose)


def sentences(values: Mapping[str, str], rng: random.Random, choose: Choose, fillers: int = 0) -> list[str]:
    """A description: a core sentence (nameless where no name is given), one on each other attribute in any order, then
    `fillers` empty sentences."""
    core = phrase("core" if "name" in values else "nameless", values, rng, choose)
    rest = [group for group in ("people", "place", "time", "partner") if group in values]
    rng.shuffle(rest)
    said = [phrase(group, values, rng, choose) for group in rest]
    said += rng.sample(patterns()["filler"], min(fillers, len(patterns()["filler"])))
    return [core, *said]


def capitalized(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def changed(text: str, changes: Mapping[str, tuple[Collection[str], str]], choose: Choose) -> str:
    """The text with some words replaced; `changes`: slot -> the concepts whose words go, and the one that comes."""
    words = {slot: choose(slot, new) for slot, (old, new) in changes.items() if old and new in lexicon()[slot]}
    if not words:
        return text

    def replaced(match: re.Match[str]) -> str:
        slot, concept = meanings()[match[2].lower()]
        if slot not in words or concept not in changes[slot][0]:
            return match[0]
        word = words[slot]
        article = match[1][0] + ("n " if word[0] in "aeio" else " ") if match[1] else ""
        return article + (word[0].upper() + word[1:] if match[2][0].isupper() else word)

    return _word_with_article().sub(replaced, text)


@cache
def _word_with_article() -> re.Pattern[str]:
    return re.compile(rf"\b((?:[Aa]n?) )?{any_form().pattern}", re.IGNORECASE)
