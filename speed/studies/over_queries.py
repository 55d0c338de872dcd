"""Differences between scores with what other queries of the same tasks would change: a paired bootstrap over queries.

It needs the scores of single queries, which an evaluation keeps where a task's score is their mean
(`speed.data.query_scores`). What other seeds or other tasks would change is no part of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias, TypeVar

import numpy as np

from speed.core.spec import Spec
from speed.studies.statistics import Interval, holm, of_resamples, resampled_means

Queries: TypeAlias = Mapping[str, Mapping[str, float]]
"""Scores of one task's queries, by group (a split, or a language of one), by query. The task's score is the mean over
its groups of their means."""

Name = TypeVar("Name", bound=Hashable)

FEWEST_QUERIES = 20
"""In a group. Where two in five queries differ, intervals of 95 % hold the truth in 92 % of cases for 20 queries, in
87 % for 10 and in 75 % for 5 (simulated): a query on which nothing changes says little of what a change would be."""


class QueryDifference(Spec):
    """One recipe's score minus another's, on one task or in the mean over several."""

    mean: float
    queries: Interval
    level: float = 0.95
    comparisons: int = 1
    """How many comparisons Holm's correction was made for."""

    @property
    def resolved(self) -> bool:
        """Whether zero lies outside of the interval, also after correction for several comparisons."""
        return self.queries.p < 1 - self.level

    def verdict(self) -> str:
        """In words."""
        return f"{'resolved' if self.resolved else 'unresolved'} over {self.queries.count:,} queries"


class OverQueries(Spec):
    """The differences on the tasks whose queries' scores all runs have."""

    tasks: dict[str, QueryDifference]
    mean: QueryDifference | None
    """Over these tasks; None where there is none."""


def over_queries(
    a: Sequence[Mapping[str, Queries]],
    b: Sequence[Mapping[str, Queries]],
    level: float = 0.95,
    resamples: int = 20_000,
    seed: int = 0,
) -> OverQueries:
    """Scores of `a` minus those of `b`, query by query; of several runs (seeds), a query's score is the mean.

    Queries are drawn again within each group of each task. A task counts where all runs have it with the same queries,
    at least twenty in each of its groups.

    Args:
        a: the runs of one recipe, each with the queries of its tasks.
        resamples: how often queries are drawn again.
        seed: of these draws.
    """
    draws = np.random.default_rng(seed)
    changes = {
        task: [_mean_of_runs(a, task, group) - _mean_of_runs(b, task, group) for group in groups]
        for task, groups in a[0].items()
        if _comparable(task, [*a, *b])
    }
    means = {
        task: np.mean([resampled_means(change, resamples, draws) for change in groups], axis=0)
        for task, groups in changes.items()
    }
    tasks = {task: _difference([groups], means[task], level) for task, groups in changes.items()}
    if not tasks:
        return OverQueries(tasks={}, mean=None)
    whole = np.mean(list(means.values()), axis=0)
    return OverQueries(tasks=tasks, mean=_difference(list(changes.values()), whole, level))


def corrected_over_queries(found: Mapping[str, OverQueries]) -> dict[str, OverQueries]:
    """The same with Holm's p-values: for all tasks of all comparisons at once, and for the means of all comparisons.

    The intervals stay those of single comparisons.
    """
    means = _held({title: one.mean for title, one in found.items() if one.mean})
    tasks = _held({(title, task): each for title, one in found.items() for task, each in one.tasks.items()})
    return {
        title: OverQueries(tasks={task: tasks[title, task] for task in one.tasks}, mean=means.get(title))
        for title, one in found.items()
    }


def _held(found: Mapping[Name, QueryDifference]) -> dict[Name, QueryDifference]:
    told = {name: one for name, one in found.items() if not one.queries.is_of_the_same(one.mean)}
    corrected = dict(zip(told, holm([one.queries.p for one in told.values()]), strict=True))
    return {
        name: one.model_copy(
            update={
                "queries": one.queries.model_copy(update={"p": corrected.get(name, one.queries.p)}),
                "comparisons": max(1, len(told)),
            },
        )
        for name, one in found.items()
    }


def _comparable(task: str, runs: Sequence[Mapping[str, Queries]]) -> bool:
    if not all(task in run for run in runs):
        return False
    first, *others = [{group: set(queries) for group, queries in run[task].items()} for run in runs]
    enough = all(len(queries) >= FEWEST_QUERIES for queries in first.values())
    return enough and all(other == first for other in others)


def _mean_of_runs(runs: Sequence[Mapping[str, Queries]], task: str, group: str) -> np.ndarray:
    """Scores by query, in one order for all runs of both sides; shape (n,)."""
    order = sorted(runs[0][task][group])
    scores = np.array([[run[task][group][query] for query in order] for run in runs])
    return np.asarray(scores.mean(0))


def _difference(tasks: Sequence[Sequence[np.ndarray]], means: np.ndarray, level: float) -> QueryDifference:
    """Of the mean over tasks, each with the changes of its groups' queries."""
    weighted = [(1 / len(tasks) / len(groups), change) for groups in tasks for change in groups]
    return QueryDifference(
        mean=float(sum(weight * change.mean() for weight, change in weighted)),
        queries=of_resamples("queries", means, weighted, level),
        level=level,
    )
