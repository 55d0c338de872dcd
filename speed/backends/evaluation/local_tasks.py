"""Folders of tasks as task objects of mteb: mteb's own class where it knows the task, else one made from the type."""

from __future__ import annotations

from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTaskClassification,
    AbsTaskClusteringLegacy,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.task_metadata import TaskMetadata

from speed.backends.evaluation.gold import Rows
from speed.backends.evaluation.search_ids import candidates, remarks_on_ids
from speed.backends.evaluation.task_folder import EVALUATED, TaskFolder, TaskType
from speed.core.errors import UserError
from speed.data.evaluation_splits import published_splits

CLASSES: dict[TaskType, tuple[Any, str]] = {
    "Classification": (AbsTaskClassification, "accuracy"),
    "Clustering": (AbsTaskClusteringLegacy, "v_measure"),
    "PairClassification": (AbsTaskPairClassification, "max_ap"),
    "Reranking": (AbsTaskRetrieval, "map_at_1000"),
    "Retrieval": (AbsTaskRetrieval, "ndcg_at_10"),
    "STS": (AbsTaskSTS, "cosine_spearman"),
    "Summarization": (AbsTaskSummarization, "cosine_spearman"),
}
"""mteb's class and main score of each type, as in its own English tasks."""


def mteb_task(task: TaskFolder) -> Any:
    """An unloaded `AbsTask` whose results name the local data as their revision."""
    dataset = {"path": task.name, "revision": task.revision}
    if task.mteb is not None:
        try:
            known = mteb.get_task(task.mteb, languages=["eng"])
        except KeyError as error:
            raise UserError(
                f"{task.folder}: this version of mteb has no task {task.mteb!r}; "
                "correct its README.md or tasks.json, or leave the name out to evaluate it as a task of your own"
            ) from error
        known.metadata = known.metadata.model_copy(update={"dataset": dataset})
        known._eval_splits = [task.split([*published_splits(known.eval_splits), *known.eval_splits])]
        return known
    base, main_score = CLASSES[task.type]
    metadata = TaskMetadata(
        name=task.name,
        description=f"Local {task.type} task {task.name}.",
        dataset=dataset,
        type=task.type,
        category="t2c" if task.type == "Classification" else "t2t",
        eval_splits=[task.split(EVALUATED)],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        prompt=task.instruction,
    )
    own: dict[str, Any] = {"metadata": metadata, "__module__": __name__}
    if task.type == "Summarization":
        own |= {"min_score": 0, "max_score": 5}  # a linear scale, which the rank correlation does not see
    return type(task.name, (base,), own)()


def load(target: Any, task: TaskFolder) -> list[str]:
    """Put the folder's rows into an `AbsTask`, as its own loading from the hub would.

    Returns:
        What a reader of the score should know of the data.

    Raises:
        UserError: for rows that do not fit the type (file, row and column are named).
    """
    splits = list(target.eval_splits)
    remarks: list[str] = []
    try:
        if task.type in ("Retrieval", "Reranking"):
            target.dataset = {"default": {split: _search(task, split, remarks) for split in splits}}
        else:
            if task.type == "Classification":
                splits.append(_train_split(target, task))
            tables = DatasetDict({split: Dataset.from_list(_shaped(task, split)) for split in dict.fromkeys(splits)})
            several = target.metadata.is_multilingual
            target.dataset = dict.fromkeys(target.hf_subsets, tables) if several else tables
        if task.mteb is not None:
            target.dataset_transform()
    except (TypeError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{task.folder}: the rows do not fit a {task.type} task: {error}") from error
    target.data_loaded = True
    return remarks


def _train_split(target: Any, task: TaskFolder) -> str:
    train = str(target.train_split)
    if train not in task.files["default"]:
        raise UserError(
            f"{task.folder}: a Classification task needs {train}.jsonl beside {target.eval_splits[0]}.jsonl"
        )
    return train


def _shaped(task: TaskFolder, split: str) -> Rows:
    rows = task.gold(split)
    if task.type == "Clustering" and not isinstance(rows[0]["sentences"], list):
        return [{name: [row[name] for row in rows] for name in ("sentences", "labels")}]  # one set
    if task.type == "PairClassification" and task.mteb is not None:
        return [{"sent1": row["sentence1"], "sent2": row["sentence2"], "labels": row["labels"]} for row in rows]
    return rows


def _search(task: TaskFolder, split: str, remarks: list[str]) -> dict[str, Any]:
    for needed in ("corpus", "queries", *(("top_ranked",) if task.type == "Reranking" else ())):
        if needed not in task.files:
            raise UserError(f"{task.folder}: a {task.type} task needs {needed}.jsonl")
    relevant: dict[str, dict[str, int]] = {}
    for row in task.gold(split):
        relevant.setdefault(str(row["query-id"]), {})[str(row["corpus-id"])] = row["score"]
    corpus = [{"id": str(r["_id"]), "title": r["title"], "text": r["text"]} for r in task.only_rows("corpus")]
    queries = [{"id": str(row["_id"]), "text": row["text"]} for row in task.only_rows("queries")]
    queries = [row for row in queries if row["id"] in relevant]
    if not queries:
        raise UserError(f"{task.files['default'][split]}: no query-id in it is an _id of queries.jsonl")
    documents, asked = {row["id"] for row in corpus}, {row["id"] for row in queries}
    remarks += remarks_on_ids(task.files["default"][split], relevant, documents, asked)
    ranked = None
    if "top_ranked" in task.files:
        [file] = task.files["top_ranked"].values()
        listed = {str(r["query-id"]): [str(i) for i in r["corpus-ids"]] for r in task.only_rows("top_ranked")}
        ranked, said = candidates(file, listed, relevant, documents, asked)
        remarks += said
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": relevant,
        "top_ranked": ranked,
    }
