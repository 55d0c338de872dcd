"""What the scores of runs differ by, with each kind of uncertainty: as a mapping, and as a pandas table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speed.core.errors import UserError
from speed.data.evaluation_record import EvaluationRecord, read_evaluation, refuse_other_pins
from speed.data.query_scores import QueryScores, read_queries
from speed.studies.over_queries import OverQueries, Queries, QueryDifference, corrected_over_queries, over_queries
from speed.studies.statistics import Difference, Interval, corrected, difference

if TYPE_CHECKING:
    from pandas import DataFrame  # type: ignore[import-untyped]

TaskScores = Mapping[str, float | None]
Columns = dict[str, TaskScores]
"""Scores by task, by the title of a column."""


def shared_tasks(runs: Sequence[EvaluationRecord]) -> list[str]:
    """The tasks that all runs have."""
    refuse_other_pins(runs)
    tasks = [task for task in runs[0].kinds if all(task in run.kinds for run in runs)]
    if not tasks:
        raise UserError("these runs have no task in common, so there is nothing to compare")
    return tasks


def titled(runs: Sequence[EvaluationRecord]) -> Columns:
    """Their scores by title: the name of each, with something of its model where several have one name."""
    out: Columns = {}
    for run in runs:
        title = run.name if run.name not in out else f"{run.name} {run.model[:8]}"
        while title in out:
            title += "'"
        out[title] = run.scores.tasks
    return out


def sides_of(own: Columns, first: int) -> list[list[str]]:
    """Titles of what is compared: each run with the first, or the `first` ones with all others."""
    return [list(own)[:first], list(own)[first:]] if first else [[title] for title in own]


def known_in(own: Columns, tasks: Sequence[str]) -> list[str]:
    """Tasks with a score in every run."""
    return [task for task in tasks if all(own[title].get(task) is not None for title in own)]


def differences_of(own: Columns, known: Sequence[str], sides: Sequence[Sequence[str]]) -> dict[str, Difference]:
    """The first side minus each other one, on these tasks; none where there is no task."""

    def scores(side: Sequence[str]) -> dict[int, dict[str, float]]:
        return {seed: {task: own[title][task] or 0.0 for task in known} for seed, title in enumerate(side)}

    if not known:
        return {}
    return corrected({
        f"{_group(sides[0])} - {_group(side)}": difference(scores(sides[0]), scores(side)) for side in sides[1:]
    })  # fmt: skip


def differences_over_queries(
    by_run: Mapping[str, Mapping[str, QueryScores]], searches: Sequence[str], sides: Sequence[Sequence[str]]
) -> dict[str, OverQueries]:
    """The same over the queries of these tasks."""

    def of(side: Sequence[str]) -> list[Mapping[str, Queries]]:
        return [{task: by_run[title][task].points for task in searches if task in by_run[title]} for title in side]

    return corrected_over_queries({
        f"{_group(sides[0])} - {_group(side)}": over_queries(of(sides[0]), of(side)) for side in sides[1:]
    })  # fmt: skip


def _group(titles: Sequence[str]) -> str:
    return titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more"


def frame(*runs: str | Path, against: Sequence[str | Path] = ()) -> DataFrame:
    """Differences of runs as a pandas table: a row for each kind of uncertainty (`over`) of each difference.

    The first run minus each other one, or the mean of all minus that of `against`. `on` says of what (the mean of so
    many tasks, or one task), `count` how many seeds, tasks or queries there are, `low` and `high` are the ends of the
    95 % interval, `p` is corrected for several comparisons (Holm). With one seed and fewer than
    five tasks a mean has none.

    Args:
        runs: their folders.
        against: folders of the runs of a second recipe, their seeds in the order of the first's.

    Raises:
        UserError: for runs that were not measured alike, or have no task in common.
    """
    import pandas as pd

    folders = [Path(run) for run in (*runs, *against)]
    records = [read_evaluation(folder) for folder in folders]
    tasks, own = shared_tasks(records), titled(records)
    sides = sides_of(own, len(runs) if against else 0)
    queries = [read_queries(*one) for one in zip(folders, records, strict=True)]
    searches = [task for task in tasks if any(task in found for found in queries)]
    by_query = differences_over_queries(dict(zip(own, queries, strict=True)), searches, sides)
    columns = ["difference", "on", "mean", "over", "count", "low", "high", "p", "resolved"]
    lines: list[tuple[object, ...]] = []

    def add(title: str, on: str, one: Difference | QueryDifference, interval: Interval | None) -> None:
        if interval is None:
            lines.append((title, on, one.mean, None, None, None, None, None, False))
        else:
            ends = interval.low, interval.high, interval.p
            lines.append((title, on, one.mean, interval.over, interval.count, *ends, interval.p < 1 - one.level))

    known = known_in(own, tasks)
    for title, one in differences_of(own, known, sides).items():
        for interval in (one.seeds, one.tasks) if one.seeds and one.tasks else (one.interval,):
            add(title, f"mean of {len(known)} tasks", one, interval)
    for title, several in by_query.items():
        named = {f"mean of {len(several.tasks)} tasks": several.mean, **dict(sorted(several.tasks.items()))}
        for name, each in named.items():
            if each is not None:
                add(title, name, each, each.queries)
    return pd.DataFrame(lines, columns=columns)
