"""Check an example against the guidelines of its prompt (E5-mistral, Tables 8-13; SPEED, Appendix C.1).

The checks are cheap and deterministic. Whether faulty examples are dropped is decided by the config. Guidelines that
need a model (clarity, difficulty, similarity scores, languages of one script) are not checked.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import combinations
from typing import Literal

from pydantic import field_validator

from speed.core.spec import Spec
from speed.data.quality.minhash import words_of
from speed.data.records import Example, Kind, Prompt

CAUSES = {
    "query_length": "the query has more or fewer words than asked for",
    "too_short": "a text has fewer words than asked for",
    "too_long": "a text has more words than asked for",
    "label_in_text": "the text to be classified contains a label",
    "query_copied": "a document contains the query word for word",
    "speaks_of_query": "a document says whether or why it fits the query",
    "same_texts": "two texts that should differ are the same",
    "no_overlap": "S1 has no word in common with S2 or S3",
    "unit": "a text is no sentence, phrase or passage as asked for",
    "placeholder": "a value repeats the prompt's placeholder instead of a text",
    "language": "a text is not in the script of the language asked for",
    "control_character": "a text contains control characters, often an unescaped LaTeX command",
}
"""Causes of faults, each with its meaning."""

SHORT_TEXT_WORDS = 40
"""Most words of a text that should be `very short (a sentence or a phrase)`."""
PHRASE_WORDS = 15
"""Most words of a phrase."""
SENTENCES_OF_A_SENTENCE = 2
"""Most sentence ends of a text that should be one sentence; abbreviations look like ends."""
COPIED_WORDS = 5
"""A query with fewer words can occur in a document by chance, so it does not count as copied."""


class Fault(Spec):
    """One guideline that an example breaks."""

    cause: str
    """A key of `CAUSES`."""
    detail: str
    """Which text, what the prompt asked for and what was found."""
    fields: tuple[str, ...] = ()
    """JSON keys of the faulty texts: two if they do not go together."""


class Guidelines(Spec):
    """Faults for which an example is dropped. All faults are recorded in any case."""

    drop: Literal["none", "all"] | tuple[str, ...] = "none"
    """`none` drops nothing, as in the paper; `all` drops every faulty example; or a list of keys of `CAUSES`."""

    @field_validator("drop")
    @classmethod
    def _known(cls, drop: Literal["none", "all"] | tuple[str, ...]) -> Literal["none", "all"] | tuple[str, ...]:
        for cause in () if isinstance(drop, str) else drop:
            if cause not in CAUSES:
                raise ValueError(f"{cause} is no guideline that is checked; those are {', '.join(CAUSES)}")
        return drop

    def drops(self, cause: str) -> bool:
        """Whether an example with a fault of this cause is dropped."""
        return self.drop == "all" or (self.drop != "none" and cause in self.drop)


def faults(example: Example, prompt: Prompt) -> tuple[Fault, ...]:
    """Find all faults of an example; empty if it keeps all guidelines that are checked."""
    plain = {name: " ".join(words_of(text)) for name, text in example.fields().items()}
    broken = [*_characters(example), *_distinct(example, plain), *_language(example, prompt.slots.get("language", ""))]
    match example.kind:
        case Kind.RETRIEVAL:
            broken += _retrieval(example, prompt.slots, plain)
        case Kind.CLASSIFICATION:
            broken += _classification(example, prompt.slots, plain)
        case Kind.STS:
            broken += _sts(example, prompt.slots, plain)
        case Kind.SHORT_SHORT:
            for name, text in example.fields().items():
                broken += _length(name, text, (1, SHORT_TEXT_WORDS))
        case Kind.LONG_LONG:
            for name, text in example.fields().items():
                broken += _length(name, text, word_bounds(prompt.slots.get("num_words", "")))
    return tuple(broken)


@lru_cache(maxsize=256)
def word_bounds(asked: str) -> tuple[int, int | None]:
    """Fewest and most words of `at least 50`, `less than 10`, `5 to 15 words`; `50` alone means at least 50."""
    numbers = [int(number) for number in re.findall(r"\d+", asked)]
    if not numbers:
        return 0, None
    if len(numbers) > 1:
        return numbers[0], numbers[1]
    return (1, numbers[0] - 1) if asked.startswith(("less", "fewer", "under")) else (numbers[0], None)


def _length(name: str, text: str, bounds: tuple[int, int | None], cause: str = "") -> list[Fault]:
    least, most = bounds
    words = len(text.split())
    if words < least:
        return [_fault(cause or "too_short", f"{name}: {words} words, at least {least} were asked for", name)]
    if most is not None and words > most:
        return [_fault(cause or "too_long", f"{name}: {words} words, at most {most} were asked for", name)]
    return []


def _fault(cause: str, detail: str, *fields: str) -> Fault:
    return Fault(cause=cause, detail=detail, fields=fields)


def _retrieval(example: Example, slots: dict[str, str], plain: dict[str, str]) -> list[Fault]:
    query, *documents = example.fields()
    broken = _length(query, example.query, word_bounds(slots.get("query_length", "")), "query_length")
    bounds = word_bounds(slots.get("num_words", ""))
    long_enough = len(plain[query].split()) >= COPIED_WORDS
    if (
        example.document is not None
        and long_enough
        and f" {plain[query]} " in f" {' '.join(words_of(example.positive))} "
    ):
        broken.append(_fault("query_copied", f"the passage contains {example.query[:80]!r}", query))
    for name, text in zip(documents, (example.positive, example.negative or ""), strict=False):
        broken += _length(name, text, bounds)
        if long_enough and f" {plain[query]} " in f" {plain[name]} ":
            broken.append(_fault("query_copied", f"{name} contains {example.query[:80]!r}", query, name))
        if says := _spoken(text):
            broken.append(_fault("speaks_of_query", f"{name} says {says.group()!r}", name))
    return broken


_SPEAKS = re.compile(
    r"\b(?:(?:the|this|your|user(?:'s)?) (?:user )?(?:query|search query)|user_query|"
    r"this (?:document|passage|text|article) is (?:not |only |partially )?(?:relevant|irrelevant|related))\b",
    re.IGNORECASE,
)


def _spoken(text: str) -> re.Match[str] | None:
    """Find where a document speaks of the query. Looking for words of such phrases first is faster."""
    small = text.lower()
    return _SPEAKS.search(text) if any(word in small for word in ("query", "relevant", "related")) else None


def _classification(example: Example, slots: dict[str, str], plain: dict[str, str]) -> list[Fault]:
    text, label, misleading = example.fields()
    broken = _length(text, example.query, word_bounds(slots.get("num_words", "")))
    for name, value in ((label, example.positive), (misleading, example.negative or "")):
        if plain[name] and f" {plain[name]} " in f" {plain[text]} ":
            broken.append(_fault("label_in_text", f"{text} contains the {name} {value[:80]!r}", text, name))
    return broken


_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


def _sts(example: Example, slots: dict[str, str], plain: dict[str, str]) -> list[Fault]:
    broken: list[Fault] = []
    first, *others = plain
    for name in others:
        if set(plain[first].split()).isdisjoint(plain[name].split()):
            broken.append(_fault("no_overlap", f"{first} and {name} have no word in common", first, name))
    for name, text in example.fields().items():
        words, ends = len(text.split()), len(_SENTENCE_END.findall(text))
        match slots.get("unit"):
            case "phrase" if words > PHRASE_WORDS:
                broken.append(_fault("unit", f"{name}: {words} words are no phrase", name))
            case "sentence" if ends > SENTENCES_OF_A_SENTENCE:
                broken.append(_fault("unit", f"{name}: {ends} sentences instead of one", name))
            case "passage" if ends < 2 and words <= PHRASE_WORDS:
                broken.append(_fault("unit", f"{name}: {words} words are no passage", name))
    return broken


def _distinct(example: Example, plain: dict[str, str]) -> list[Fault]:
    compared = {name: plain[name] or text for name, text in example.fields().items()}
    return [
        _fault("same_texts", f"{left} and {right} are the same", left, right)
        for left, right in combinations(compared, 2)
        if compared[left] == compared[right]
    ]


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_PLACEHOLDER = re.compile(r"\s*(?:\.{3}|…|[<\[{]?(?:a )?(?:string|text)[>\]}]?|<[\w -]{1,40}>)\s*", re.IGNORECASE)


def _characters(example: Example) -> list[Fault]:
    broken: list[Fault] = []
    for name, text in example.fields().items():
        if bad := _CONTROL.search(text):
            broken.append(_fault("control_character", f"{name} contains {bad.group()!a}", name))
        if text == name or _PLACEHOLDER.fullmatch(text):
            broken.append(_fault("placeholder", f"{name} is {text[:80]!r}", name))
    return broken


_LATIN = "A-Za-zÀ-ÖØ-öø-ɏḀ-ỿ"
_SCRIPTS = {
    **dict.fromkeys(("English", "French", "German", "Spanish", "Italian", "Portuguese", "Dutch", "Polish"), _LATIN),
    "Russian": "Ѐ-ӿ", "Greek": "Ͱ-Ͽἀ-῿", "Arabic": "؀-ۿ", "Hindi": "ऀ-ॿ", "Korean": "가-힣",
    "Chinese": "㐀-䶿一-鿿", "Japanese": "぀-ヿ㐀-䶿一-鿿",
}  # fmt: skip
"""Letters of each language's script. Other languages are not checked."""


def _language(example: Example, language: str) -> list[Fault]:
    """Find texts in which less than a fifth of the letters are of the script. A few foreign words are allowed."""
    script = _SCRIPTS.get(language)
    if script is None:
        return []
    broken: list[Fault] = []
    for name, text in example.fields().items():
        if text.isascii() and script is _LATIN:
            continue
        letters = sum(map(str.isalpha, text))
        fitting = len(re.findall(f"[{script}]", text))
        if 5 * fitting < letters:
            detail = f"{name}: {letters - fitting} of {letters} letters are not of the script of {language}"
            broken.append(_fault("language", detail, name))
    return broken
