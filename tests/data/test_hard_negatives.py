"""Which texts of a corpus are one document, and which may not be negatives of a query."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speed.data.hard_negatives import Record, TextNumbers, read_records
from speed.data.records import Example, Kind


def corpus(folder: Path, *rows: dict[str, Any]) -> Path:
    """A file of these records; kind and task as they are left out."""
    file = folder / "examples.jsonl"
    whole = [{"kind": "retrieval", "task": "t"} | row for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in whole), encoding="utf-8")
    return file


def excluded(numbers: TextNumbers, query: int) -> set[str]:
    """The texts that are no negatives of a query."""
    texts = list(numbers.documents())
    return {texts[number] for number in numbers.excluded(query)}


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    example = Example(kind=Kind.RETRIEVAL, task="t", query="q", positive="p\u2028\u00e9", negative="n")
    several = Record(Kind.STS, "t", "q", "p", ("n", "m"))
    none = Record(Kind.SHORT_SHORT, "t", "q", "p", ())
    file = tmp_path / "examples.jsonl"
    file.write_text(example.model_dump_json() + "\n" + several.line() + none.line(), encoding="utf-8")
    assert list(read_records(file)) == [Record(Kind.RETRIEVAL, "t", "q", "p\u2028\u00e9", ("n",)), several, none]


def test_kinds_follow_one_another_and_equal_texts_are_one_document(tmp_path: Path) -> None:
    numbers = TextNumbers(
        corpus(
            tmp_path,
            {"kind": "sts", "query": "s1", "positive": "A cat."},
            {"query": "r1", "positive": "Two  Words"},
            {"kind": "sts", "query": "s2", "positive": "a CAT."},
            {"query": "r2", "positive": "two words", "negatives": ["Other", "TWO WORDS", "more"]},
            {"query": "r3", "positive": "third", "negative": "other"},
        )
    )
    assert [query for _, query in numbers.queries()] == ["r1", "r2", "r3", "s1", "s2"]
    assert list(numbers.documents()) == ["Two  Words", "third", "A cat.", "Other", "more"]
    assert list(numbers.positive) == [0, 0, 1, 2, 2]
    assert list(numbers.query_of) == [3, 0, 4, 1, 2]
    assert [list(numbers.negative)[slice(r.start, r.stop)] for r in map(numbers.negatives_of, range(5))] == [
        [], [3, 0, 4], [3], [], [],
    ]  # fmt: skip
    assert [(span.queries, span.documents) for span in numbers.groups] == [
        (range(3), range(2)),
        (range(3, 5), range(2, 3)),
    ]
    with numbers.positives() as texts:
        assert [texts.text(number) for number in (2, 0, 1)] == ["A cat.", "Two  Words", "third"]


def test_no_answer_of_an_equal_query_and_no_copy_of_the_query_is_a_negative(tmp_path: Path) -> None:
    numbers = TextNumbers(
        corpus(
            tmp_path,
            {"query": "Who?", "positive": "me"},
            {"query": " who? ", "positive": "you"},
            {"query": "other", "positive": "WHO?"},
            {"kind": "sts", "query": "who?", "positive": "nobody"},
        )
    )
    assert excluded(numbers, 0) == excluded(numbers, 1) == {"me", "you", "WHO?"}
    assert excluded(numbers, 2) == {"WHO?"}
    assert excluded(numbers, 3) == {"nobody"}


def test_equal_labels_are_one_document(tmp_path: Path) -> None:
    rows = [
        {"kind": "classification", "query": f"q{n}", "positive": text} for n, text in enumerate(["Sad", "sad", "x"])
    ]
    numbers = TextNumbers(corpus(tmp_path, *rows))
    assert list(numbers.documents()) == ["Sad", "x"]
    assert excluded(numbers, 1) == {"Sad"}
