"""Values of a task's rows: texts, labels and numbers as mteb takes them, and gold values that give no score."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from speed.core.errors import UserError
from speed.core.spec import Json

Rows = list[dict[str, Json]]

TEXTS = ("text", "sentences", "sentence1", "sentence2", "human_summaries", "machine_summaries")
LISTS = ("human_summaries", "machine_summaries", "relevance")
"""Columns that hold a list in each row."""
EITHER: dict[str, tuple[str, ...]] = {
    "Clustering": ("sentences", "labels"),
    "PairClassification": ("sentence1", "sentence2", "labels"),
}
"""Columns, by type of task, that hold a list in each row or a single value in each row."""
EQUALLY_LONG = (("sentences", "labels"), ("sentence1", "sentence2", "labels"), ("machine_summaries", "relevance"))
"""Columns whose lists belong together, item by item."""


def with_values(file: Path, kind: str, rows: Rows) -> Rows:
    """The rows with texts that are texts, numbers that are finite numbers, and labels of one type.

    A number may be written as text (`"1.0"`), as tables often have it.

    Args:
        kind: the task's type; empty for the texts of a search.

    Raises:
        UserError: naming file, row, column and value.
    """
    seen: dict[str, object] = {}
    for number, row in enumerate(rows, start=1):
        for column, value in row.items():
            try:
                row[column] = _value(kind, column, value, seen)
            except ValueError as wanted:
                raise UserError(
                    f"{file}: column {column!r} of row {number} must be {wanted}; it is {value!r:.80}"
                ) from wanted
        for columns in EQUALLY_LONG:
            lengths = {c: len(row[c]) for c in columns if isinstance(row.get(c), list)}
            if len(set(lengths.values())) > 1:
                told = ", ".join(f"{column} {length}" for column, length in lengths.items())
                raise UserError(f"{file}: the lists of row {number} must have one length: {told}")
    return rows


def _value(kind: str, column: str, value: Json, seen: dict[str, object]) -> Json:
    """The value as mteb takes it; `seen` remembers what all rows must share.

    Raises:
        ValueError: saying what the value must be.
    """
    if column not in (*TEXTS, "label", "labels", "score", "relevance"):
        return value
    listed = isinstance(value, list)
    wanted = seen.setdefault("lists", listed) if column in EITHER.get(kind, ()) else column in LISTS
    if listed != wanted or value == []:
        raise ValueError("a list" if wanted else "a single value, not a list")
    items = _items(value)
    if column in TEXTS:
        if not all(isinstance(item, str) for item in items):
            raise ValueError("text")
        return value
    if column in ("score", "relevance"):
        found: list[Any] = [_number(item) for item in items]
        if kind in ("Retrieval", "Reranking"):
            if any(number != int(number) for number in found):
                raise ValueError("a whole number (scale graded relevance to 0, 1, 2 ...)")
            found = [int(number) for number in found]
    else:
        found = [_label(item) for item in items]
        if kind == "PairClassification" and not set(found) <= {0, 1}:
            raise ValueError("0 or 1")
        first = seen.setdefault("label", type(found[0]))
        if any(type(label) is not first for label in found):
            raise ValueError(f"{'text' if first is str else 'a whole number'} like the labels above it")
    return found if listed else found[0]


class NoScore(UserError):
    """A task would give every model the same score, or none."""


def no_score(file: Path | str, reason: str) -> NoScore:
    """The refusal of a task that would give every model the same score, or none."""
    return NoScore(f"{file}: no score can come of this task: {reason}")


def refuse_undefined(file: Path | str, kind: str, rows: Rows) -> None:
    """Refuse gold values that give every model the same score, or none.

    Args:
        rows: all rows of an evaluated split, or of a classifier's training split, after `with_values`.

    Raises:
        UserError: naming file and reason.
    """
    reason = _undefined(kind, rows)
    if reason is not None:
        raise no_score(file, reason)


def _undefined(kind: str, rows: Rows) -> str | None:
    match kind:
        case "Classification":
            return _alike("label", (row["label"] for row in rows))
        case "PairClassification":
            return _alike("label", (item for row in rows for item in _items(row["labels"])))
        case "STS":
            return _alike("score", (row["score"] for row in rows))
        case "Summarization":
            if all(len(set(row["relevance"])) < 2 for row in rows):
                return "within each row, all values of 'relevance' are the same"
        case "Clustering":
            whole = isinstance(rows[0]["sentences"], list)
            sets = [row["labels"] for row in rows] if whole else [[row["labels"] for row in rows]]
            if all(len(set(labels)) < 2 for labels in sets):
                return _alike("label", sets[0]) if len(sets) == 1 else "every set has one label only"
            if all(len(set(labels)) in (1, len(labels)) for labels in sets):
                return "no two texts of a set share a label"
        case "Retrieval" | "Reranking":
            if all(row["score"] <= 0 for row in rows):
                return f"no document is relevant to any query (all {len(rows)} scores are 0 or less)"
    return None


def _alike(what: str, values: Iterable[Any]) -> str | None:
    every = list(values)
    return f"its only {what} is {every[0]!r:.60} ({len(every)} rows)" if len(set(every)) < 2 else None


def _items(value: Json) -> list[Json]:
    return value if isinstance(value, list) else [value]


def _number(value: Json) -> float:
    try:
        number = float(value) if isinstance(value, (str, int, float)) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("a finite number")
    return number


def _label(value: Json) -> str | int:
    """The label; a whole number may be written as 1.0 or true."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)) and math.isfinite(value) and value == int(value):
        return int(value)
    raise ValueError("text or a whole number")
