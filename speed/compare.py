"""Evaluations side by side, by task and by type, with their differences, next to published scores of the same tasks.

    python -m speed.compare RUN RUN ...        folders of runs: of speed.evaluate or of whole experiments
    python -m speed.compare RUN RUN --against RUN RUN       one recipe against another, each with several seeds

Runs that differ in a pin (version of mteb, revision and split of data, precision, batch) are refused with the reason.
A published score is compared on tasks of the same name only, and every mean states its tasks. `frame` has the
differences as a pandas table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

from speed.data.evaluation_record import EvaluationRecord, mean, read_evaluation, refuse_other_pins, shown
from speed.data.evaluation_splits import of_published_scores
from speed.data.published_scores import published
from speed.data.query_scores import SEARCHES, QueryScores, read_queries
from speed.runs.entry import one_message
from speed.runs.score_tables import ceilings_told, near_ceiling
from speed.runs.table_one import OwnRow, table_one
from speed.runs.tables import Table, escaped
from speed.studies.differences import (
    Columns,
    TaskScores,
    differences_of,
    differences_over_queries,
    frame,
    known_in,
    shared_tasks,
    sides_of,
    titled,
)
from speed.studies.over_queries import FEWEST_QUERIES
from speed.studies.statistics import Interval

__all__ = ["comparison", "drift", "frame", "main", "markdown", "parser", "printed"]

HOW = (
    "Intervals hold 95 %: over seeds by Student's t, over tasks and over queries by a paired bootstrap. "
    "Unresolved: zero is inside."
)


def comparison(
    runs: Sequence[EvaluationRecord],
    with_published: bool = True,
    against: Sequence[EvaluationRecord] = (),
    queries: Sequence[Mapping[str, QueryScores]] = (),
) -> list[Table | str]:
    """Tables and remarks, in the order of reading.

    Args:
        against: runs of a second recipe; `runs` are then all of the first one, and both differ in seeds alone.
        queries: scores of the single queries of `runs` and then of `against`, by task; empty where none were read.

    Raises:
        UserError: for runs that differ in a pin, or have no task in common.
    """
    first, runs = len(runs), [*runs, *against]
    tasks, own = shared_tasks(runs), titled(runs)
    columns, sources = dict(own), dict[str, str]()
    splits = {task: next((run.pins.splits[task] for run in runs if task in run.pins.splits), "") for task in tasks}
    several = [task for task in tasks if any(run.pins.subsets.get(task, 1) > 1 for run in runs)]
    elsewhere = [task for task in tasks if splits[task] not in ("", of_published_scores(task)) or task in several]
    for row in published().rows if with_published else ():
        if any(task in row.tasks and task not in elsewhere for task in tasks):
            title = f"{row.name.split(',')[0]} [{len(sources) + 1}]"
            columns[title] = {task: score for task, score in row.tasks.items() if task not in elsewhere}
            sources[title] = f"{row.name}; {row.source}"
    kinds = {task: runs[0].kinds[task] for task in tasks}
    out: list[Table | str] = [_by_task(columns, kinds, splits), _by_type(columns, kinds)]
    sides = sides_of(own, first if against else 0)
    by_run = dict(zip(own, queries or [{} for _ in runs], strict=True))
    by_query, remarks = _over_queries(by_run, kinds, sides) if len(runs) > 1 else ([], [])
    out += [*_differences(own, tasks, sides, by_query), *remarks]
    out += [f"{title}: {source}" for title, source in sources.items()]
    out += _remarks(runs, tasks, columns)
    without = sorted(set(elsewhere) & {task for row in published().rows for task in row.tasks})
    for cause, named in (
        ("Not measured on the split of the published scores", [task for task in without if task not in several]),
        ("Means over several languages, while published scores are of English", sorted({*several} & {*without})),
    ):
        if with_published and named:
            out.append(f"{cause}, so without them: {', '.join(named)}.")
    if with_published and not elsewhere and set(tasks) == published().benchmark:
        out += [_table_1(own, kinds), published().table_1.source]
    return out


def drift(served: EvaluationRecord, checkpoint: EvaluationRecord) -> list[Table | str]:
    """What a served model loses or wins against its checkpoint, by task and in the mean.

    Raises:
        UserError: for evaluations that differ in a pin.
    """
    refuse_other_pins([served, checkpoint])
    table = Table("task", "type", "checkpoint", "served", "drift")

    def add(title: str, kind: str, own: float | None, found: float | None) -> None:
        between = "-" if own is None or found is None else f"{found - own:+.2f}"
        table.add(title, kind, shown(own), shown(found), between)

    own, found = checkpoint.scores, served.scores
    for task, kind in sorted(served.kinds.items(), key=lambda item: (item[1], item[0])):
        add(task, kind, own.tasks[task], found.tasks[task])
    add("mean over tasks", f"{len(served.kinds)} tasks", own.mean, found.mean)
    add("mean over types", f"{len(found.types)} types", own.mean_of_types, found.mean_of_types)
    return [table, f"Drift: {served.name} minus {checkpoint.name}."]


def _by_task(columns: Columns, kinds: dict[str, str], splits: dict[str, str]) -> Table:
    table = Table("task", "type", "split", *columns)
    for task, kind in sorted(kinds.items(), key=lambda item: (item[1], item[0])):
        table.add(task, kind, splits[task] or "-", *(shown(scores.get(task)) for scores in columns.values()))
    return table


def _by_type(columns: Columns, kinds: dict[str, str]) -> Table:
    """Means; a column has none where it lacks a task of it."""
    table = Table("mean over", "tasks", *columns)

    def add(title: str, tasks: Sequence[str], figure: Callable[[TaskScores], float | None]) -> None:
        cells = (shown(figure(scores) if all(t in scores for t in tasks) else None) for scores in columns.values())
        table.add(title, len(tasks), *cells)

    types = sorted(set(kinds.values()))
    by_type = {kind: [task for task in kinds if kinds[task] == kind] for kind in types}
    for kind, members in by_type.items():
        add(kind, members, lambda scores, members=members: mean([scores[t] for t in members]))  # type: ignore[misc]
    every = list(kinds)
    add("all tasks", every, lambda scores: mean([scores[task] for task in every]))
    add(
        f"the {len(types)} types",
        every,
        lambda scores: mean([mean([scores[t] for t in members]) for members in by_type.values()]),
    )
    shared = [task for task in every if all(task in scores for scores in columns.values())]
    if shared and len(shared) < len(every):
        add("tasks that all columns have", shared, lambda scores: mean([scores[task] for task in shared]))
    return table


def _differences(
    own: Columns, tasks: Sequence[str], sides: Sequence[Sequence[str]], by_query: Sequence[Table]
) -> list[Table | str]:
    """The first side, runs of one recipe whose seeds come in the same order as the others', minus each other one.

    Args:
        by_query: tables of the same differences over queries.
    """
    known = known_in(own, tasks)
    if len(own) < 2 or not known:
        return []
    found = differences_of(own, known, sides)
    table = Table("difference", "tasks", "mean", "over seeds", "over tasks", "verdict")
    for title, one in found.items():
        table.add(title, len(known), f"{one.mean:+.2f}", _ends(one.seeds), _ends(one.tasks), one.verdict())
    out: list[Table | str] = [table, *by_query, HOW]
    if (count := max(one.comparisons for one in found.values())) > 1:
        out.append(f"The verdicts are corrected for {count} comparisons at once (Holm), the intervals are not.")
    if len(known) < len(tasks):
        out.append(f"Undefined in a run, so in no difference: {', '.join(sorted(set(tasks) - set(known)))}.")
    return out


def _over_queries(
    by_run: Mapping[str, Mapping[str, QueryScores]], kinds: Mapping[str, str], sides: Sequence[Sequence[str]]
) -> tuple[list[Table], list[str]]:
    """The same differences on the tasks whose queries have scores of their own, in the mean and task by task; and what
    a reader should know of them."""
    searches = [task for task, kind in kinds.items() if kind in SEARCHES or any(task in one for one in by_run.values())]
    if not searches:
        return [], ["Over queries nothing is known: no task is a mean over queries, as retrieval and reranking are."]
    found = differences_over_queries(by_run, searches, sides)
    table = Table("difference", "on", "queries", "mean", "over queries", "verdict")
    for title, one in found.items():
        rows = {f"mean of {len(one.tasks)} of {len(kinds)} tasks": one.mean, **dict(sorted(one.tasks.items()))}
        for name, each in rows.items():
            if each is not None:
                ends, count = _ends(each.queries), each.queries.count
                table.add(title, name, f"{count:,}", f"{each.mean:+.2f}", ends, each.verdict())
    count = max((each.comparisons for one in found.values() for each in one.tasks.values()), default=0)
    told = [f"Verdicts on single tasks are corrected for all {count} at once (Holm)."] if count > 1 else []
    told += _not_over_queries(by_run, searches, set.intersection(*(set(one.tasks) for one in found.values())))
    return [table] if table.rows else [], told


def _not_over_queries(
    by_run: Mapping[str, Mapping[str, QueryScores]], searches: Sequence[str], covered: Set[str]
) -> list[str]:
    out = []
    lacking = [task for task in searches if not all(task in found for found in by_run.values())]
    if lacking:
        runs = [title for title, found in by_run.items() if any(task not in found for task in lacking)]
        out.append(
            f"Not over queries, since scores of single queries are missing in {', '.join(runs)}: {', '.join(lacking)}. "
            "python -m speed.evaluate with --queries gives them, where a task's score is the mean of its queries'."
        )
    if unlike := sorted(set(searches) - set(lacking) - covered):
        out.append(
            f"Not over queries, since runs have other queries or there are fewer than {FEWEST_QUERIES}: "
            f"{', '.join(unlike)}."
        )
    return out


def _ends(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.low:+.2f} to {interval.high:+.2f}"


def _remarks(runs: Sequence[EvaluationRecord], tasks: Sequence[str], columns: Columns) -> list[str]:
    out = []
    left_out = sorted({task for run in runs for task in run.kinds} - set(tasks))
    if left_out:
        out.append(f"Not in every run, so left out: {', '.join(left_out)}.")
    shared = [task for task in tasks if all(task in scores for scores in columns.values())]
    if len(columns) > len(runs) and shared and len(shared) < len(tasks):
        out.append(f"Tasks that all columns have: {', '.join(shared)}.")
    local = [task for task in tasks if runs[0].pins.datasets.get(task, "").startswith("local-")]
    if local and len(columns) > len(runs):
        out.append(
            f"Read from local copies, which may differ from the data of the published scores: {len(local)} tasks."
        )
    full = [set(near_ceiling(run.scores.tasks)) for run in runs]
    out += ceilings_told([task for task in tasks if all(task in each for each in full)])
    pins = runs[0].pins
    how = "; ".join(f"{run.name}: {run.protocol}, {run.max_length or 'its own'} tokens" for run in runs)
    out.append(f"mteb {pins.mteb}, {pins.precision}, batches of {pins.batch}. Protocol: {how}.")
    return out


def _table_1(own: Columns, kinds: dict[str, str]) -> Table:
    def means(name: str, scores: TaskScores) -> OwnRow:
        types = {type: mean([scores[task] for task in kinds if kinds[task] == type]) for type in set(kinds.values())}
        return OwnRow(name, "this run", types, mean([scores[task] for task in kinds]))

    return table_one(means(name, scores) for name, scores in own.items())


def printed(parts: Sequence[Table | str]) -> str:
    """The parts as text for a terminal."""
    return "\n".join(f"{part.text()}\n" if isinstance(part, Table) else part for part in parts)


def markdown(parts: Sequence[Table | str]) -> str:
    """The parts as markdown."""
    return "\n\n".join(part.markdown() if isinstance(part, Table) else escaped(part) for part in parts) + "\n"


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    out = argparse.ArgumentParser(prog="python -m speed.compare", description=(__doc__ or "").split("\n")[0])
    out.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    out.add_argument(
        "--against", nargs="+", type=Path, default=(), metavar="RUN",
        help="runs of a second recipe: the means of the two are compared, seed by seed where both name as many runs",
    )  # fmt: skip
    out.add_argument("--no-published", action="store_true", help="leave the published scores out")
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry."""
    given = parser().parse_args(arguments)
    with one_message("comparing"):
        runs, against = ([read_evaluation(run) for run in side] for side in (given.runs, given.against))
        folders = [*given.runs, *given.against]
        queries = [read_queries(*one) for one in zip(folders, [*runs, *against], strict=True)]
        print(printed(comparison(runs, not given.no_published, against, queries)))


if __name__ == "__main__":
    main()
