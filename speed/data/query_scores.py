"""Scores of the single queries of a task: what an evaluation keeps beside its scores, to compare two query by query.

They exist where a task's score is the mean over its queries: retrieval by nDCG, recall and the like, reranking by MAP.
Correlations, clusterings, classifications and the few retrieval tasks with another main score have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.data.evaluation_record import EvaluationRecord

Found: TypeAlias = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Scores from 0 to 1 by split, by subset (or part of a task that is a mean over parts), by id of the query."""

SEARCHES = ("Retrieval", "Reranking", "InstructionRetrieval")
"""Types of tasks whose score is the mean over queries, but for a few tasks."""
ROUNDED = 1e-5
"""How far a score of mteb may lie from the mean of its queries: it is rounded to five decimals."""
REMEDY = "remove it: its task is then compared without, or evaluate again with --queries"


class QueryScores(Spec):
    """Of one task."""

    measure: str
    """The task's main score, such as `ndcg_at_10`."""
    queries: dict[str, dict[str, dict[str, float]]]
    """See `Found`."""

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        """Scores from 0 to 1 by group (`split/subset`), by query."""
        return {
            f"{split}/{subset}": scores for split, subsets in self.queries.items() for subset, scores in subsets.items()
        }

    @property
    def points(self) -> dict[str, dict[str, float]]:
        """The same from 0 to 100, as the scores of runs."""
        return {group: {query: 100 * one for query, one in scores.items()} for group, scores in self.groups.items()}

    @property
    def mean(self) -> float:
        """The task's score, from 0 to 1: the mean over its groups of their means."""
        return mean_of(self.queries)


def mean_of(found: Found) -> float:
    """The mean over groups of their means; not a number where there is no query."""
    means = [
        sum(scores.values()) / len(scores) if scores else math.nan
        for subsets in found.values()
        for scores in subsets.values()
    ]
    return sum(means) / len(means) if means else math.nan


def queries_folder(out: Path, model: str, revision: str) -> Path:
    """Where an evaluation keeps them, a file `TASK.json` each; laid out as mteb's results beside them.

    Args:
        out: the folder of the evaluation.
        model: its name.
        revision: its identity, `EvaluationRecord.model`.
    """
    return out / "queries" / model.replace("/", "__") / revision


def query_files(folders: Iterable[Path], record: EvaluationRecord) -> dict[str, Path]:
    """The file of each task of an evaluation that has one, in the first folder that has it."""
    listed = list(folders)
    files = {task: [file for folder in listed if (file := folder / f"{task}.json").is_file()] for task in record.kinds}
    return {task: found[0] for task, found in files.items() if found}


def read_queries(run: Path, record: EvaluationRecord) -> dict[str, QueryScores]:
    """The scores of single queries in the folder of a run, by task; of tasks without such scores there are none.

    Args:
        run: as for `read_evaluation`.
        record: its evaluation.

    Raises:
        UserError: for a file that cannot be read, or whose mean is not the task's score.
    """
    folder = run.parent if run.is_file() else run
    files = query_files(_folders(folder, record), record)
    return {task: _read(file, record.scores.tasks[task]) for task, file in files.items()}


def _folders(run: Path, record: EvaluationRecord) -> Iterator[Path]:
    """Of a run of `speed.evaluate`, and of the stages of an experiment."""
    yield run / "queries"
    for model in sorted(run.glob("stages/*/queries/*")):
        yield model / record.model


def _read(file: Path, score: float | None) -> QueryScores:
    try:
        found = QueryScores.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{file} holds no scores of single queries: {str(error).splitlines()[0]:.200}\n  {REMEDY}"
        ) from error
    if score is None or not abs(found.mean - score / 100) <= ROUNDED:
        told = "undefined" if score is None else f"{score / 100:.5f}"
        raise UserError(
            f"{file} is of another evaluation: the mean of its queries is {found.mean:.5f}, the task's score {told}\n"
            f"  {REMEDY}"
        )
    return found
