"""Which tasks to run: those of a folder, of a benchmark of mteb, or any task that mteb knows. No data are loaded."""

from __future__ import annotations

import copy
import functools
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mteb
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from speed.backends.evaluation.hub_data import load_data, take_from_mirror
from speed.backends.evaluation.local_tasks import load, mteb_task
from speed.backends.evaluation.mteb_globals import globals_seeded
from speed.backends.evaluation.task_folder import task_folders
from speed.core.errors import UserError
from speed.data.evaluation_splits import published_splits

BENCHMARKS = {
    "mteb_v1": "MTEB(eng, v1)",
    "mteb_v2": "MTEB(eng, v2)",
    "bright": "BRIGHT(v1.1)",
    "bright_long": "BRIGHT(v1.1)",
    "rteb": "RTEB(beta)",
    "mmteb": "MTEB(Multilingual, v2)",
}
"""mteb's names; v1 is the paper's 56 tasks. Tasks whose data are closed are left out (13 of RTEB)."""
SPLITS = {"bright": "standard", "bright_long": "long"}
"""Benchmarks that take the tasks of one split alone: mteb counts BRIGHT's short documents (by nDCG@10) and its long
ones (by recall@1) as one benchmark, and no mean over both is published."""
DEV: dict[str, str | None] = {
    "NanoMSMARCORetrieval": None,
    "NanoNQRetrieval": None,
    "STSBenchmark": "validation",
    "EmotionClassification": "validation",
    "MTOPDomainClassification": "validation",
    "MassiveIntentClassification": "validation",
    "WikiCitiesClustering": None,
    "BuiltBenchClusteringS2S": None,
    "BuiltBenchReranking": None,
    "LegalBenchPC": None,
}
"""Small tasks for tuning, on validation splits or outside the test benchmarks (the paper tuned on NQ and MSMARCO)."""


class Job(NamedTuple):
    """One task to run."""

    task: Any
    load: Callable[[], list[str]]
    """Loads its data; what a reader of the score should know of them."""
    instruction: str | None
    parts: tuple[Any, ...] = ()
    """Tasks of which this one aggregates the results."""
    characters: int | None = None
    """Approximate number of characters of its texts; None where mteb has not counted them."""
    subsets: int = 1
    """Of which its score is a mean: languages, mostly."""


def folder_jobs(folder: Path, only: Sequence[str]) -> list[Job]:
    """The tasks of a local folder."""
    tasks = task_folders(folder)
    missing = set(only) - {task.name for task in tasks}
    if missing:
        there = ", ".join(task.name for task in tasks)
        raise UserError(f"eval.only names {', '.join(sorted(missing))}, which {folder} does not hold; it has {there}")
    jobs = []
    for task in tasks:
        if only and task.name not in only:
            continue
        task.check()
        with globals_seeded(0):  # mteb seeds the global generators when it makes a task
            target = mteb_task(task)
        jobs.append(Job(target, functools.partial(load, target, task), task.instruction, characters=task.characters))
    return jobs


def benchmark_jobs(benchmark: str, only: Sequence[str] = (), mirror: Path | None = None) -> list[Job]:
    """The tasks of a named benchmark, of the development tier, or any that mteb knows.

    Args:
        only: their names; empty for all of the benchmark.
        mirror: a folder with copies of the data sets.

    Raises:
        UserError: for a name that mteb or the benchmark does not have.
    """
    if benchmark == "dev":
        tasks = [mteb.get_task(name, languages=["eng"], eval_splits=split and [split]) for name, split in DEV.items()]
    elif benchmark == "any":
        tasks = [_task_of_mteb(name) for name in only]
    else:
        named = mteb.get_benchmark(BENCHMARKS[benchmark]).tasks
        split = SPLITS.get(benchmark)
        tasks = [task for task in named if task.metadata.is_public and split in (None, *task.eval_splits)]
    missing = set(only) - {task.metadata.name for task in tasks}
    if missing:
        raise UserError(f"eval.only names {', '.join(sorted(missing))}, which {benchmark} does not have")
    jobs = []
    for task in tasks:
        if only and task.metadata.name not in only:
            continue
        parts = tuple(task.metadata.tasks) if isinstance(task, AbsTaskAggregate) else ()
        jobs += [_hub_job(part, mirror) for part in parts]
        jobs.append(Job(task, list, None, parts, 0) if parts else _hub_job(task, mirror))
    return jobs


def _task_of_mteb(name: str) -> Any:
    try:
        task = mteb.get_task(name, languages=["eng"])
    except KeyError as error:
        raise UserError(f"mteb {importlib.metadata.version('mteb')} has no task {name!r}: check the name") from error
    if not isinstance(task, AbsTaskAggregate):
        task._eval_splits = published_splits(task.eval_splits)
    return task


def _hub_job(task: Any, mirror: Path | None) -> Job:
    task = copy.copy(task)  # mteb hands out one object again and again, and a mirror changes it
    if mirror is not None:
        take_from_mirror(task, mirror)
    return Job(task, functools.partial(load_data, task), None, (), characters_of(task), len(task.hf_subsets or [""]))


def characters_of(task: Any, once: bool = True) -> int | None:
    """Characters of the texts of a task's splits, as mteb has counted them.

    Args:
        once: texts that several of its languages share count once, as they are encoded once.
    """
    counted, several = task.metadata.descriptive_stats or {}, len(task.hf_subsets or ()) > 1

    def below(value: Any) -> int:
        if not isinstance(value, dict):
            return 0
        own = value.get("total_text_length") or 0
        if once and several and own:
            own = value["average_text_length"] * value["unique_texts"]
        return int(own) + sum(below(inner) for key, inner in value.items() if key != "hf_subset_descriptive_stats")

    return sum(below(counted.get(split)) for split in task.eval_splits) or None
