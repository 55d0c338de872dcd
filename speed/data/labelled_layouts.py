"""Labelled data sets in the layouts of their public copies, as records of a query, one positive and its negatives.

records      `query`, `positive` (or `pos`, a list), `negative`, `negatives`, `neg` ..., as `speed.data.labelled_lines`
             reads them; other columns are left out
passages     MS MARCO, MIRACL, Mr.TyDi, T2Ranking: `query`, `positive_passages`, `negative_passages`, each a list of
             objects with `title` and `text`
paragraphs   DuReader: `question`, `answer_paragraphs`, a list of objects with `paragraph_text`; no negatives
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from speed.core.errors import UserError
from speed.core.spec import Json
from speed.data.labelled_lines import Texts, is_text_column, json_object, labelled_texts
from speed.data.text_files import text_lines

LAYOUTS = "query and positive, query and positive_passages, or question and answer_paragraphs"


def records_in(file: Path, counts: Counter[str]) -> Iterator[dict[str, Json]]:
    """The records of a file in a layout that each line shows, one for each positive.

    Args:
        counts: of the layout of each line (`records`, `passages`, `paragraphs`), of lines `without a positive`, and of
            the records written, `out`, and those of them `without negatives`.

    Raises:
        UserError: for a line that is no record, with its number.
    """
    for number, _, text in text_lines(file):
        if not text.strip():
            continue
        where = f"{file}, line {number}"
        counts["in"] += 1
        texts = _texts(json_object(text, where), where, counts)
        counts["without a positive"] += not texts.positives
        for positive in texts.positives:
            record: dict[str, Json] = {"query": texts.query, "positive": positive}
            if negatives := [text for text in texts.negatives if text != positive]:
                record["negatives"] = list(negatives)
            counts["out"] += 1
            counts["without negatives"] += not negatives
            yield record


def _texts(row: Mapping[str, Json], where: str, counts: Counter[str]) -> Texts:
    if "positive_passages" in row:
        counts["passages"] += 1
        sides = (_passages(row, f"{side}_passages", where) for side in ("positive", "negative"))
        return Texts(_query(row, "query", where), *sides)
    if "answer_paragraphs" in row:
        counts["paragraphs"] += 1
        return Texts(_query(row, "question", where), _passages(row, "answer_paragraphs", where), ())
    if not any(is_text_column(name) for name in row):
        raise UserError(
            f"{where} is in no known layout: it has {', '.join(map(repr, row)) or 'nothing'}; known: {LAYOUTS}"
        )
    counts["records"] += 1
    return labelled_texts(row, where)


def _query(row: Mapping[str, Json], column: str, where: str) -> str:
    query = row.get(column)
    if not isinstance(query, str) or not query.strip():
        raise UserError(f"{where}: {column} must be a text, and it is {str(query)[:80]!r}")
    return query


def _passages(row: Mapping[str, Json], column: str, where: str) -> tuple[str, ...]:
    """The texts of a list of passages, each behind its title, as E5 reads documents."""
    found = row.get(column)
    if not isinstance(found, list) or not all(isinstance(each, (dict, str)) for each in found):
        raise UserError(f"{where}: {column} must be a list of passages, and it is {str(found)[:80]!r}")
    texts = []
    for each in found:
        parts = [each] if isinstance(each, str) else [each.get("title"), each.get("text", each.get("paragraph_text"))]
        if not isinstance(parts[-1], str):
            raise UserError(f"{where}: a passage of {column} has no text; it needs text or paragraph_text")
        texts.append(" ".join(str(part).strip() for part in parts if part and str(part).strip()))
    return tuple(text for text in texts if text)
