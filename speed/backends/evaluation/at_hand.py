"""Evaluation data that are on this machine already, looked at before anything is paid for: copies of a mirror, caches.

mteb loads them in a process of its own, since it takes ten seconds to import and its data much memory. What it prepares
is kept in the store's cache for the evaluation.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from speed.backends.evaluation.mirror import mirrored
from speed.core.content import sha256_of
from speed.core.errors import UserError
from speed.core.spec import digest
from speed.data.evaluation_datasets import evaluation_datasets, is_cached

READER = 1
"""Raised when something is refused that was not before: data are then read again."""


def read_gold(benchmark: str, only: Sequence[str], mirror: Path | None, home: Path, say: Callable[[str], None]) -> None:
    """Read the gold values of all tasks whose data are at hand, once for the same data.

    Raises:
        UserError: for tasks that no score can come of.
    """
    marks = {}
    for each in evaluation_datasets(benchmark, only):
        if mirror is not None:
            data = sha256_of(mirrored(mirror, each.task, each.path, each.revision))
        elif is_cached(each.path, each.revision, home):
            data = each.revision
        else:
            continue
        mark = home / "cache" / "read" / digest({"task": each.task, "data": data, "reader": READER})
        if not mark.is_file():
            marks[each.task] = mark
    if not marks:
        return
    say(f"reading the labels of {len(marks)} evaluation tasks whose data are at hand, before anything is built")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            wrong = pool.submit(_refusals, benchmark, only, mirror, home, list(marks)).result()
        except BrokenProcessPool:
            say("the process that read them ended before it was done (out of memory?): the evaluation will read them")
            return
    if wrong:
        raise UserError("\n".join(wrong))
    for mark in marks.values():
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def _refusals(benchmark: str, only: Sequence[str], mirror: Path | None, home: Path, names: Sequence[str]) -> list[str]:
    """In a process of its own: why some of the tasks give no score."""
    if mirror is None:
        os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")  # caches alone
    import datasets

    from speed.backends.evaluation.gold import NoScore
    from speed.backends.evaluation.jobs import benchmark_jobs
    from speed.backends.evaluation.mteb_globals import globals_seeded, quiet

    datasets.config.HF_DATASETS_CACHE = home / "cache" / "datasets"
    wrong = []
    for job in benchmark_jobs(benchmark, only, mirror):
        if job.task.metadata.name in names:
            print(f"  {job.task.metadata.name}", file=sys.stderr, flush=True)
            try:
                with quiet(), globals_seeded(job.task.seed):
                    job.load()
            except NoScore as reason:
                wrong.append(str(reason))
            except UserError as reason:  # what is only half in a cache is fetched by the evaluation
                if mirror is not None:
                    wrong.append(str(reason))
            else:
                job.task.unload_data()
    return wrong
