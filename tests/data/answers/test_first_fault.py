"""An answer is cut exactly where its first faulty field begins."""

from __future__ import annotations

import json

import pytest

from speed.data.answers.first_fault import first_fault
from speed.data.records import Kind, Prompt

LONG = " ".join(["word"] * 20)
PHRASES = Prompt(text="p", template="", kind=Kind.STS, task="t", slots={"unit": "phrase"})
QUERY = "how do bees find their way home"
SEARCH = Prompt(text="p", template="", kind=Kind.RETRIEVAL, task="t", slots={"num_words": "2"})


def sts(first: str, second: str, third: str) -> str:
    return json.dumps({"S1": first, "S2": second, "S3": third})


def search(query: str, positive: str, negative: str) -> str:
    return json.dumps({"user_query": query, "positive_document": positive, "hard_negative_document": negative})


@pytest.mark.parametrize(
    ("text", "prompt", "field", "cause"),
    [
        (sts("a red word", LONG, "a word"), PHRASES, "S2", "unit"),
        (sts("a red word", LONG, LONG + " more"), PHRASES, "S2", "unit"),
        (sts(LONG, "a word", "the word"), PHRASES, "S1", "unit"),
        (sts("a red word", "a word", "stone"), PHRASES, "S3", "no_overlap"),
        (search("bees", "one two", "one"), SEARCH, "hard_negative_document", "too_short"),
        (search(QUERY, f"yes: {QUERY}", "one two"), SEARCH, "positive_document", "query_copied"),
        (search("bees", "one two", "one two"), SEARCH, "hard_negative_document", "same_texts"),
        (search("bees", 'say "positive_document": now', "one"), SEARCH, "hard_negative_document", "too_short"),
    ],
)
def test_the_cut_is_behind_the_key_of_the_first_faulty_field(text: str, prompt: Prompt, field: str, cause: str) -> None:
    broken = first_fault(text, "stop", prompt)
    assert broken is not None
    assert broken.begun + broken.rest == text
    assert broken.begun.endswith(f'"{field}":')
    assert broken.cause == cause


def test_a_fault_of_two_texts_shows_in_the_one_that_is_written_later() -> None:
    text = '{"positive_document": "one two", "user_query": "one two", "hard_negative_document": "three four"}'
    broken = first_fault(text, "stop", SEARCH)
    assert broken is not None
    assert broken.begun.endswith('"user_query":')


@pytest.mark.parametrize("text", ["no JSON at all", sts("a red word", "a word", "the word"), "{'S1': 'a', 'S2': 'b"])
def test_where_there_is_no_faulty_field_there_is_no_cut(text: str) -> None:
    assert first_fault(text, "stop", PHRASES) is None
    assert first_fault(sts("a red word", LONG, "a word")[:-4], "length", PHRASES) is None
