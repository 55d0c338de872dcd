"""Labelled records as others write them: JSON lines with a query, its positive, and where they are known its negatives.

The columns are `query` and `positive`, `negative` or `negatives`, or the names of other tools for them: `anchor`
(sentence-transformers), `pos` and `neg` (FlagEmbedding), `negative_1`, `negative_2` ... All but the query may be lists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.records import LEVELS

QUERY = ("query", "anchor")
POSITIVE = ("positive", "pos")
GRADED = "graded"
NEGATIVE = re.compile(r"negative|negatives|neg|negative_?(\d+)")
KNOWN = "query (or anchor), positive (or pos), negative, negatives (or neg), negative_1, negative_2 ..., graded"


class Texts(NamedTuple):
    """The texts of one line."""

    query: str
    positives: tuple[str, ...]
    """At least one; each makes a record of its own."""
    negatives: tuple[str, ...]
    graded: tuple[str, ...] = ()
    """A document of each level of relevance (`speed.data.records.LEVELS`), the most relevant first; mostly none."""


def json_object(text: str, where: str) -> dict[str, Json]:
    """The JSON object of a line.

    Raises:
        UserError: for anything else.
    """
    if text.lstrip().startswith("["):
        raise UserError(f"{where} is no record: it begins a JSON list; give JSON lines, each with one JSON object")
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}; each line holds one record as a JSON object") from error
    if not isinstance(row, dict):
        raise UserError(f"{where} is no record: it must be a JSON object with the columns {KNOWN}")
    return row


def record_of(line: str, where: str) -> dict[str, Json] | None:
    """The record of a line: the line itself, or the example of a pool's row; None for a row that was rejected.

    Raises:
        UserError: for a line that holds none.
    """
    row = json_object(line, where)
    if row.get("rejected") and not row.get("example"):
        return None
    record = row.get("example") or row
    if not isinstance(record, dict):
        raise UserError(f"{where} is no record: its example must be a JSON object")
    return record


def labelled_texts(row: Mapping[str, Json], where: str) -> Texts:
    """The texts of a record; columns that hold none are not looked at.

    Raises:
        UserError: for a column that is missing, there twice, empty, or no text; `where` names file and line.
    """
    query, positives = _texts(row, QUERY, where), _texts(row, POSITIVE, where)
    columns = sorted(filter(NEGATIVE.fullmatch, row), key=_place)
    negatives = [text for name in columns for text in _texts_in(row[name], name, where)]
    graded = _graded(row.get(GRADED), where)
    for text in (*query, *positives, *negatives, *graded):
        if not text.isascii():
            _refuse_half_characters(text, where)
    return Texts(query[0], tuple(positives), tuple(text for text in negatives if text.strip()), graded)


def is_text_column(name: str) -> bool:
    """Whether a column holds texts of a record."""
    return name in (*QUERY, *POSITIVE, GRADED) or NEGATIVE.fullmatch(name) is not None


def _texts(row: Mapping[str, Json], names: tuple[str, ...], where: str) -> list[str]:
    found = [name for name in names if row.get(name) is not None]
    if len(found) > 1:
        raise UserError(f"{where}: {' and '.join(found)} mean the same column: leave one of them out")
    texts = _texts_in(row[found[0]], found[0], where) if found else []
    if not texts:
        raise UserError(
            f"{where} is no record: it has no {names[0]}; known columns are {KNOWN}, and it has "
            f"{', '.join(map(repr, row)) or 'none'}"
        )
    if not all(text.strip() for text in texts):
        raise UserError(f"{where}: {found[0]} is empty; every record needs a query and a positive")
    return texts


def _texts_in(value: Json, name: str, where: str) -> list[str]:
    """The texts of a column: one, or a list; a query is always one, `negatives` always a list."""
    if value is None:
        return []
    if isinstance(value, str) and name != "negatives":
        return [value]
    if name not in QUERY and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    wanted = "a text" if name in QUERY else "a list of texts" if name == "negatives" else "a text or a list of texts"
    raise UserError(f"{where}: {name} must be {wanted}, and it is {json.dumps(value)[:80]}")


def _graded(value: Json, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = value if isinstance(value, list) else []
    if len(texts) != len(LEVELS) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(
            f"{where}: {GRADED} must be a list of {len(LEVELS)} texts, the most relevant first ({', '.join(LEVELS)}), "
            f"and it is {json.dumps(value)[:80]}"
        )
    return tuple(texts)


def _place(name: str) -> tuple[int, int]:
    """Order of the columns of negatives, whatever their order in the line."""
    number = NEGATIVE.fullmatch(name)
    assert number is not None
    return {"negative": 0, "negatives": 1, "neg": 2}.get(name, 3), int(number[1] or 0)


def _refuse_half_characters(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: a text holds half a character ({ascii(text[error.start])[1:-1]}): take it out, or write the "
            "whole character"
        ) from error
