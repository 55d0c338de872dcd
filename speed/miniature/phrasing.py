"""Turn meanings into simple English: fill patterns with any of the synonyms of each concept."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Mapping
from functools import cache

from speed.miniature.lexicon import any_form, lexicon, meanings, patterns

Choose = Callable[[str, str], str]
"""(slot, concept) -> word to use."""


def any_word(
    rng: random.Random, avoid: Collection[str] = (), prefer: Collection[str] = (), plain: bool = False
) -> Choose:
    """Choose any synonym of a concept; a word that is no concept stays as it is.

    Args:
        avoid: words that are used only if no other is left.
        prefer: words that are used if the concept has one of them.
        plain: use the first word of each concept.
    """

    def choose(slot: str, concept: str) -> str:
        forms = lexicon()[slot].get(concept)
        if forms is None:
            return concept
        if plain:
            return forms[0]
        preferred = [form for form in forms if form in prefer]
        return rng.choice(preferred or [form for form in forms if form not in avoid] or list(forms))

    return choose


def fill(pattern: str, values: Mapping[str, str], choose: Choose) -> str:
    """Fill the slots of a pattern. `values` holds concepts by slot, and the name `name`."""

    def word(match: re.Match[str]) -> str:
        slot = match.group(1)
        key = slot.removeprefix("a ").lower()
        text = values[key] if key == "name" else choose(key, values[key])
        if slot.startswith("a "):
            text = ("an " if text[0] in "aeio" else "a ") + text
        return text[0].upper() + text[1:] if slot[0].isupper() else text

    return re.sub(r"\{([^}]+)\}", word, pattern)


def slots_of(pattern: str) -> set[str]:
    """Slots that a pattern needs."""
    return {slot.removeprefix("a ").lower() for slot in re.findall(r"\{([^}]+)\}", pattern)}


def phrase(group: str, values: Mapping[str, str], rng: random.Random, choose: Choose) -> str:
    """Write one text with a pattern of a group, among those whose slots all have values."""
    fitting = [pattern for pattern in patterns()[group] if slots_of(pattern) <= set(values)]
    return fill(rng.choice(fitting), values, choose)


def sentences(values: Mapping[str, str], rng: random.Random, choose: Choose, fillers: int = 0) -> list[str]:
    """Write a description: a core sentence, one sentence on each other attribute in any order, then empty sentences.

    The core sentence has no name if `values` has none. `fillers` is the number of empty sentences.
    """
    core = phrase("core" if "name" in values else "nameless", values, rng, choose)
    rest = [group for group in ("people", "place", "time") if group in values]
    rng.shuffle(rest)
    said = [phrase(group, values, rng, choose) for group in rest]
    said += rng.sample(patterns()["filler"], min(fillers, len(patterns()["filler"])))
    return [core, *said]


def capitalize(text: str) -> str:
    """Make the first letter a capital."""
    return text[:1].upper() + text[1:]


def replace_words(text: str, changes: Mapping[str, tuple[Collection[str], str]], choose: Choose) -> str:
    """Replace words of a text. `changes`: slot -> (concepts whose words are replaced, concept of the new word)."""
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
