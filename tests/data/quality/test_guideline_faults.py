"""Every broken guideline is found, and an example that keeps all of them has no fault."""

from __future__ import annotations

from random import Random

import pytest
from pydantic import ValidationError

from speed.data.answers.accept_or_reject import accept_or_reject
from speed.data.answers.parse import example_json
from speed.data.prompts.rendering import PromptsConfig, data_prompt
from speed.data.quality.guidelines import CAUSES, Guidelines, faults, word_bounds
from speed.data.records import Example, Kind, Prompt


def words(count: int, word: str = "leaf") -> str:
    return " ".join(f"{word}{number}" for number in range(count))


def prompt(kind: Kind, **slots: str) -> Prompt:
    return Prompt(text="", template="", kind=kind, slots=slots)


RETRIEVAL = prompt(Kind.RETRIEVAL, query_length="5 to 15 words", num_words="50")
CLASSIFICATION = prompt(Kind.CLASSIFICATION, num_words="at least 10")
SENTENCE, PHRASE, PASSAGE = (prompt(Kind.STS, unit=unit) for unit in ("sentence", "phrase", "passage"))
SHORT, LONG = prompt(Kind.SHORT_SHORT), prompt(Kind.LONG_LONG, num_words="300")
ENGLISH, RUSSIAN = (prompt(Kind.SHORT_SHORT, language=language) for language in ("English", "Russian"))
QUERY = "how do I prune old roses"
CUT = "Cut the roses back in spring."

CASES: list[tuple[str, Prompt, tuple[str, str, str | None], set[str]]] = [
    ("keeps", RETRIEVAL, (QUERY, words(50), words(60, "stone")), set()),
    ("query too short", RETRIEVAL, ("prune old roses", words(50), words(50, "stone")), {"query_length"}),
    ("query too long", RETRIEVAL, (words(16, "q"), words(50), words(50, "stone")), {"query_length"}),
    ("document too short", RETRIEVAL, (QUERY, words(49), words(50, "stone")), {"too_short"}),
    ("negative too short", RETRIEVAL, (QUERY, words(50), words(9, "stone")), {"too_short"}),
    ("query copied", RETRIEVAL, (QUERY, words(50) + " How do I prune old Roses? " + words(3), words(50, "stone")),
     {"query_copied"}),
    ("short query may occur", prompt(Kind.RETRIEVAL), ("old roses", "On old roses.", "No roses here."), set()),
    ("part of a word is no copy", prompt(Kind.RETRIEVAL), ("a b c d e", "aa b c d ee", "n"), set()),
    ("speaks of the query", RETRIEVAL, (QUERY, words(50), words(50, "stone") + " This document is not relevant."),
     {"speaks_of_query"}),
    ("documents the same", RETRIEVAL, (QUERY, words(50), words(50).upper() + "."), {"same_texts"}),
    ("keeps", CLASSIFICATION, (words(10), "gardening", "cooking"), set()),
    ("too short", CLASSIFICATION, (words(9), "gardening", "cooking"), {"too_short"}),
    ("too long", prompt(Kind.CLASSIFICATION, num_words="less than 10"), (words(10), "a b", "c d"), {"too_long"}),
    ("label in the text", CLASSIFICATION, (words(10) + " Gardening!", "gardening", "cooking"), {"label_in_text"}),
    ("wrong label in the text", CLASSIFICATION, (words(10) + " home pie", "g", "Home Pie"), {"label_in_text"}),
    ("part of a word is no label", CLASSIFICATION, (words(10) + " gardenings", "gardening", "cooking"), set()),
    ("labels the same", CLASSIFICATION, (words(10), "Gardening", "gardening "), {"same_texts"}),
    ("keeps", SENTENCE, (CUT, "In spring, cut roses back.", "Roses bloom in June."), set()),
    ("two the same", SENTENCE, (CUT, "cut the roses back in spring", "Roses bloom."), {"same_texts"}),
    ("S3 like S1", SENTENCE, (CUT, "Roses bloom in spring.", CUT), {"same_texts"}),
    ("no overlap", SENTENCE, (CUT, "Prune them early.", "Roses bloom."), {"no_overlap"}),
    ("many sentences", SENTENCE, (CUT, "Cut. The. Roses.", "Roses bloom."), {"unit"}),
    ("long phrase", PHRASE, ("red roses", "red " + words(15), "red tulips"), {"unit"}),
    ("short passage", PASSAGE, (CUT + " Then wait.", "Cut roses.", CUT + " And then?"), {"unit"}),
    ("keeps", SHORT, ("a proverb", "its lesson", None), set()),
    ("long", SHORT, ("a proverb", words(41), None), {"too_long"}),
    ("the same", SHORT, ("A proverb", "a proverb.", None), {"same_texts"}),
    ("keeps", LONG, (words(300), words(300, "stone"), None), set()),
    ("short", LONG, (words(299), words(300, "stone"), None), {"too_short"}),
    ("nothing asked", prompt(Kind.LONG_LONG), ("a", "b", None), set()),
    ("control character", SHORT, ("$\x0crac{a}{b}$", "a fraction", None), {"control_character"}),
    ("newlines and tabs are none", SHORT, ("a\tb\nc\r\nd", "e", None), set()),
    ("placeholder", SHORT, ("...", "positive_document", None), {"placeholder"}),
    ("placeholders", SHORT, ("<a short text>", "string", None), {"placeholder"}),
    ("another script", ENGLISH, ("Пословица о времени", "its lesson", None), {"language"}),
    ("a foreign name", ENGLISH, ("Who wrote Преступление и наказание?", "Dostoevsky, in Ελλάδα too", None), set()),
    ("accents and formulas", ENGLISH, ("El Niño: α + β = γ²", "Œuvre, Łódź, naïve", None), set()),
    ("no letters", ENGLISH, ("1 + 1", "2", None), set()),
    ("the script asked for", RUSSIAN, ("Пословица о времени", "ее урок", None), set()),
    ("English where Russian was asked for", RUSSIAN, ("a proverb", "ее урок", None), {"language"}),
    ("a language of unknown script", prompt(Kind.SHORT_SHORT, language="Klingon"), ("a", "б", None), set()),
    ("punctuation only", SHORT, ("?", "!", None), set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("of", "texts", "causes"), [case[1:] for case in CASES], ids=[f"{c[1].kind} {c[0]}" for c in CASES]
)
def test_faults(of: Prompt, texts: tuple[str, str, str | None], causes: set[str]) -> None:
    assert of.kind is not None
    record = Example(kind=of.kind, task="t", query=texts[0], positive=texts[1], negative=texts[2])
    found = faults(record, of)
    assert {fault.cause for fault in found} == causes
    assert all(fault.detail for fault in found)


def test_dropping_is_a_choice() -> None:
    documents = Example(kind=Kind.RETRIEVAL, task="", query=QUERY, positive=words(50), negative=words(50))
    text, verdicts = example_json(documents), {}
    for drop in ("none", "all", ("same_texts",), ("too_short", "unit")):
        row = accept_or_reject(0, RETRIEVAL, text, "stop", 0, Guidelines(drop=drop))
        assert (row.faults, row.example) == (("same_texts",), documents)
        verdicts[drop] = row.rejected
    assert verdicts == {"none": None, "all": "same_texts", ("same_texts",): "same_texts", ("too_short", "unit"): None}
    with pytest.raises(ValidationError, match="ugly is no guideline that is checked"):
        Guidelines(drop=("ugly",))
    assert Guidelines.model_validate({"drop": ["unit"]}).drops("unit")


def test_table_names_every_cause() -> None:
    assert set().union(*(case[3] for case in CASES)) == set(CAUSES)


@pytest.mark.parametrize(
    ("asked", "bounds"),
    [
        ("less than 5 words", (1, 4)), ("5 to 15 words", (5, 15)), ("at least 10 words", (10, None)),
        ("300", (300, None)),
        ("less than 10", (1, 9)), ("at least 200", (200, None)), ("", (0, None)), ("a few", (0, None)),
    ],
)  # fmt: skip
def test_word_bounds(asked: str, bounds: tuple[int, int | None]) -> None:
    assert word_bounds(asked) == bounds


def test_every_length_that_the_default_prompts_draw_is_understood() -> None:
    for kind in (Kind.RETRIEVAL, Kind.CLASSIFICATION, Kind.LONG_LONG):
        for seed in range(100):
            slots = data_prompt(kind, "t", "x", PromptsConfig(), Random(seed)).slots
            for slot in {"num_words", "query_length"} & slots.keys():
                assert word_bounds(slots[slot]) != (0, None)
