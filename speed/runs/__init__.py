"""One run from plan to report; for notebooks, `frame`, `scores`, `queries` and `rows` are pandas tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]


def frame(home: str | Path | None = None) -> DataFrame:
    """The finished runs of a root, oldest first, a row each: name, seed, what was set, scores, calls, dollars.

    Settings that all runs share are left out.

    Args:
        home: the root; by default that of the environment variable SPEED_HOME, else `speed_home`.

    Raises:
        UserError: if it holds no finished run.
    """
    from speed.runs.frames import runs_frame

    return runs_frame(home)


def scores(*runs: str | Path) -> DataFrame:
    """Scores of runs by task, a column for each run, beside the type of the task.

    Args:
        runs: their folders.

    Raises:
        UserError: for runs that were not measured alike.
    """
    from speed.runs.frames import scores_frame

    return scores_frame([Path(run) for run in runs])


def queries(*runs: str | Path) -> DataFrame:
    """Scores of single queries (0 to 100) by task, split, subset and id of the query, a column for each run.

    They are of tasks whose score is the mean over queries, which retrieval and reranking mostly are.

    Args:
        runs: their folders.

    Raises:
        UserError: for runs that were not measured alike, and where none has such scores.
    """
    from speed.runs.frames import queries_frame

    return queries_frame([Path(run) for run in runs])


def rows(run: str | Path, stage: str) -> DataFrame:
    """The rows of a stage of a run, in their order, with the fields of `speed.data.records` as columns.

    Args:
        run: its folder.
        stage: the stage's folder in `stages/` of the run: `synthesis`, `seed-data`, `dedup`.

    Raises:
        UserError: if the run has no such stage, or this stage has no rows.
    """
    from speed.runs.frames import rows_frame

    return rows_frame(Path(run), stage)
