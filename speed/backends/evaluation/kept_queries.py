"""Scores of single queries, taken from mteb while it evaluates a search task: it computes them and keeps their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.retrieval import AbsTaskRetrieval

from speed.core.cache import write_aside
from speed.data.query_scores import ROUNDED, QueryScores, mean_of

MEASURES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
"""Names of pytrec_eval, which scores each query, by mteb's names of their means."""

Kept = dict[str, dict[str, dict[str, float]]]
"""Scores by split, by subset, by query."""


def of_queries(task: Any) -> str | None:
    """pytrec_eval's name of the measure whose mean over queries is the task's score; None where there is none."""
    main = str(task.metadata.main_score)
    if not isinstance(task, AbsTaskRetrieval):
        return None
    if main == "accuracy":  # of a choice between documents: mteb takes recall@1
        return "recall_1"
    measure, _, depth = main.rpartition("_at_")
    return f"{MEASURES[measure]}_{depth}" if measure in MEASURES else None


def gives_queries(task: Any) -> bool:
    """Whether a task may have a file of its queries' scores."""
    return isinstance(task, AbsTaskAggregate) or of_queries(task) is not None


@contextmanager
def queries_kept(task: Any) -> Iterator[Kept]:
    """Inside, whatever the task evaluates leaves its queries' scores in what this gives; other tasks leave nothing.

    mteb hands the scores of all queries to `task_specific_scores`, the place for further means of a task's own.
    """
    kept: Kept = {}
    name = of_queries(task)
    if name is None:
        yield kept
        return
    own = task.task_specific_scores

    def keep(scores: dict[str, dict[str, float]], *rest: Any, hf_split: str, hf_subset: str, **more: Any) -> Any:
        known = {query: float(one[name]) for query, one in scores.items() if name in one}
        kept.setdefault(hf_split, {})[hf_subset] = known
        return own(scores, *rest, hf_split=hf_split, hf_subset=hf_subset, **more)

    task.task_specific_scores = keep
    try:
        yield kept
    finally:
        del task.task_specific_scores


def of_parts(task: Any, files: Sequence[Path]) -> Kept:
    """The queries of a task that is the mean of others, by the names of these; empty where one has no file."""
    if not all(file.is_file() for file in files):
        return {}
    read = {file.stem: QueryScores.model_validate_json(file.read_text(encoding="utf-8")) for file in files}
    split = "+".join(task.eval_splits)
    return {split: {f"{part}/{group}": one for part, found in read.items() for group, one in found.groups.items()}}


def write_queries(file: Path, task: Any, kept: Kept, score: float) -> None:
    """Write them where the task's score is their mean; otherwise no file is left, not of an earlier evaluation either.

    Args:
        score: of mteb, from 0 to 1.
    """
    if abs(mean_of(kept) - score) <= ROUNDED:
        found = QueryScores(measure=str(task.metadata.main_score), queries=kept)
        with write_aside(file) as aside:
            aside.write_text(found.model_dump_json() + "\n", encoding="utf-8")
    else:
        file.unlink(missing_ok=True)
