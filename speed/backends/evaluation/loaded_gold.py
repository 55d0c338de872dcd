"""Gold values of tasks as mteb has loaded them: those that give every model the same score are refused, or none.

The rules are those of folders of tasks (`gold`, `search_ids`). What a type of task does not have, or keeps under
another name, is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from speed.backends.evaluation.gold import Rows, no_score, refuse_undefined
from speed.backends.evaluation.search_ids import remarks_on_ids

SEARCH = ("Retrieval", "Reranking")
SEARCHES = (*SEARCH, "InstructionReranking")
"""Types whose data are queries and a corpus; the last one's gold has rules of its own, which are not ours to check."""
COLUMNS = {
    "Classification": ("label_column_name", "label"),
    "PairClassification": ("label_column_name", "labels"),
    "Clustering": ("label_column_name", "labels"),
    "STS": ("", "score"),
    "Summarization": ("relevancy_column_name", "relevance"),
}
"""For each type, mteb's attribute with the column's name, and the name that our rules know it by."""


def refuse_loaded(task: Any) -> list[str]:
    """Refuse a loaded task whose gold gives no score.

    Returns:
        What a reader of the score should know of the data.

    Raises:
        UserError: naming task, data set, split and reason.
    """
    remarks: list[str] = []
    kind = str(task.metadata.type)
    for where, splits, split in evaluated(task):
        data = splits[split]
        if kind in SEARCH:
            relevant = {str(query): dict(found) for query, found in data["relevant_docs"].items()}
            refuse_undefined(where, kind, [{"score": score} for found in relevant.values() for score in found.values()])
            judged = {document for found in relevant.values() for document in found}
            documents = _documents(data["corpus"]["id"], judged)
            remarks += remarks_on_ids(where, relevant, documents, set(data["queries"]["id"]))
        elif kind in COLUMNS:
            _refuse(where, kind, _rows(task, kind, data))
            trained = str(getattr(task, "train_split", "")) if kind == "Classification" else ""
            if trained and trained != split and trained in splits:
                _refuse(where.replace(f", {split}", f", {trained}"), kind, _rows(task, kind, splits[trained]))
    return remarks


def evaluated(task: Any) -> Iterator[tuple[str, Any, str]]:
    """(how messages name it, splits, split) of all that is evaluated, as `AbsTask.evaluate` finds it."""
    loaded = getattr(task, "dataset", None)
    if loaded is None:  # an older task, which mteb converts when it is evaluated
        return
    path = task.metadata.dataset["path"]
    for subset in task.hf_subsets or list(loaded):
        splits = loaded.get(subset, loaded)  # itself where it has one subset, or its columns are the subsets
        for split in task.eval_splits:
            part = "" if subset == "default" else f" {subset}"
            yield f"{task.metadata.name} ({path}{part}, {split})", splits, split


def _rows(task: Any, kind: str, data: Any) -> Rows:
    """The gold of a split as `gold` knows it; none where the column has another name."""
    attribute, ours = COLUMNS[kind]
    name = getattr(task, attribute, ours) if attribute else ours
    if not len(data) or name not in data.column_names:
        return []
    if kind == "PairClassification" and len(data) == 1 and isinstance(data[0][name], list):
        return [{ours: value} for value in data[0][name]]
    if kind != "Clustering":
        return [{ours: value} for value in data[name]]
    texts = getattr(task, "input_column_name", "sentences")
    whole = isinstance(data[0][texts], list) if texts in data.column_names else False
    first = (value[0] if isinstance(value, list) and value and not whole else value for value in data[name])
    return [{"sentences": [] if whole else "", ours: value} for value in first]


def _refuse(where: str, kind: str, rows: Rows) -> None:
    if not rows:
        return
    for number, row in enumerate(rows, start=1):
        for value in row.get("score", 0.0), *row.get("relevance", ()):
            if isinstance(value, float) and not math.isfinite(value):
                raise no_score(where, f"the score of row {number} is {value}")
    refuse_undefined(where, kind, rows)


def _documents(ids: Iterable[str], judged: set[str]) -> set[str]:
    """Those of the judged documents that the corpus holds, and one more if it has any: a corpus may have millions."""
    found, other = set[str](), set[str]()
    for document in ids:
        if document in judged:
            found.add(document)
        elif not other:
            other.add(document)
    return found | other
