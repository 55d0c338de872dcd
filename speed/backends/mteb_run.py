"""Running mteb's tasks one by one, each result on disk before the next begins."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import json
import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import mteb
import numpy as np
import torch
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.results import TaskResult
from tqdm.std import tqdm  # type: ignore[import-untyped]

from speed.backends.device import device_of
from speed.backends.encoder import Encoder
from speed.backends.instructions import instruction_table
from speed.backends.local_tasks import load, mteb_task
from speed.backends.mteb_encoder import MtebEncoder
from speed.backends.mteb_evaluator import BENCHMARKS, DEV, ProtocolEvaluator
from speed.backends.task_folder import task_folders
from speed.core.context import Context
from speed.core.errors import UserError
from speed.data.records import Scores

MTEB_BATCH = 1024
"""Texts that mteb hands over at once; our encoder makes its own batches."""


class Job(NamedTuple):
    """One task to run."""

    task: Any
    load: Callable[[], None]
    instruction: str | None
    parts: tuple[Any, ...] = ()
    """Tasks whose results this one aggregates."""


def folder_jobs(folder: Path, only: Sequence[str]) -> list[Job]:
    """The tasks of a local folder."""
    found = task_folders(folder)
    missing = set(only) - {task.name for task in found}
    if missing:
        there = ", ".join(task.name for task in found)
        raise UserError(f"eval.only names {', '.join(sorted(missing))}, which {folder} does not hold; it has {there}")
    jobs = []
    for task in found:
        if only and task.name not in only:
            continue
        task.check()
        with _globals_seeded(0):  # a task seeds the global generators when it is made
            target = mteb_task(task)
        jobs.append(Job(target, functools.partial(load, target, task), task.instruction))
    return jobs


def benchmark_jobs(benchmark: str) -> list[Job]:
    """The tasks of a named benchmark, or of the development tier."""
    if benchmark == "dev":
        tasks = [mteb.get_task(name, languages=["eng"], eval_splits=split and [split]) for name, split in DEV.items()]
    else:
        tasks = list(mteb.get_benchmark(BENCHMARKS[benchmark]).tasks)
    jobs = []
    for task in tasks:
        parts = tuple(task.metadata.tasks) if isinstance(task, AbsTaskAggregate) else ()
        jobs += [Job(part, functools.partial(_load_from_hub, part), None) for part in parts]
        jobs.append(Job(task, functools.partial(_load_from_hub, task), None, parts))
    return jobs


def _load_from_hub(task: Any) -> None:
    try:
        task.load_data()
    except (OSError, datasets.exceptions.DatasetsError) as error:  # ConnectionError is an OSError
        raise UserError(
            f"the data of {task.metadata.name} ({task.metadata.dataset['path']}) cannot be loaded: {error}\n"
            "  check the connection to the hub, bring a filled cache (HF_HOME), or evaluate a folder of tasks with "
            "eval=local; finished tasks are kept"
        ) from error


def run(config: ProtocolEvaluator, jobs: list[Job], embedder: Path, out: Path, ctx: Context) -> Scores:
    """Run what has no result yet; the scores of all, as they stand in the result files.

    Args:
        embedder: a model folder, or the payload of a training with the model in `model/`.
    """
    if (embedder / "model" / "config.json").is_file():
        embedder = embedder / "model"
    torch.set_num_threads(ctx.runtime.threads)
    revision = config.identity(embedder)
    results = out / "results" / "speed__embedder" / revision
    results.mkdir(parents=True, exist_ok=True)
    encoder: MtebEncoder | None = None
    texts = 0
    done: dict[str, TaskResult] = {}
    pins = {"mteb": importlib.metadata.version("mteb"), "protocol": config.protocol, "precision": config.precision}

    def seen(more: int) -> None:
        nonlocal texts
        texts += more
        ctx.progress(len(done), len(jobs), "tasks", texts=float(texts))

    for job in jobs:
        name = job.task.metadata.name
        file = results / f"{name}.json"
        if not _finished(file, job.task):
            if encoder is None:
                encoder = _encoder(config, embedder, jobs, revision, seen, ctx)
                _write(results / "model_meta.json", encoder.mteb_model_meta.to_dict())
            result = _aggregated(job, done) if job.parts else _result(job, encoder)
            partial = file.with_suffix(".partial")
            result.to_disk(partial)
            partial.replace(file)
        done[name] = TaskResult.from_disk(file)
        ctx.progress(len(done), len(jobs), "tasks", texts=float(texts))
    parts = {part.metadata.name for job in jobs for part in job.parts}
    wanted = [job for job in jobs if job.task.metadata.name not in parts]
    ctx.tally.counts["tasks"] += len(wanted)
    ctx.tally.metrics |= {**pins, "model": revision, "datasets": {n: r.dataset_revision for n, r in done.items()}}
    kinds = {job.task.metadata.name: job.task.metadata.type for job in wanted}
    main = {name: 100 * float(done[name].get_score()) for name in kinds}
    for name in (name for name, score in main.items() if math.isnan(score)):
        main[name] = 0.0
        ctx.say(f"{name}: the embedder gives all texts the same vector, so its score is undefined and counts as 0")
    return scores_of(main, kinds)


def scores_of(tasks: dict[str, float], kinds: dict[str, str]) -> Scores:
    """Scores by task, mean by type, mean over tasks and over types.

    Args:
        tasks: main score of each task, 0..100.
        kinds: type of each task.
    """
    types = {
        kind: _mean([tasks[name] for name in tasks if kinds[name] == kind]) for kind in sorted(set(kinds.values()))
    }
    return Scores(tasks=tasks, types=types, mean=_mean(list(tasks.values())), mean_of_types=_mean(list(types.values())))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _encoder(
    config: ProtocolEvaluator, embedder: Path, jobs: list[Job], revision: str, seen: Callable[[int], None], ctx: Context
) -> MtebEncoder:
    encoder = Encoder.load(embedder, device_of(ctx), config.max_length)
    encoder.model.to({"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision])
    own = {job.task.metadata.name: job.instruction for job in jobs if job.instruction}
    return MtebEncoder(encoder, config.protocol, instruction_table(), own, revision, seen)


def _finished(file: Path, task: Any) -> bool:
    """Whether a result of this very task (its data, this mteb) lies there."""
    if not file.is_file():
        return False
    try:
        found = TaskResult.from_disk(file)
    except (OSError, ValueError, KeyError):
        return False
    same_data = found.dataset_revision == task.metadata.revision
    return bool(same_data and found.mteb_version == importlib.metadata.version("mteb"))


def _result(job: Job, encoder: MtebEncoder) -> TaskResult:
    began = time.monotonic()
    task = job.task
    with _quiet(), _globals_seeded(task.seed):
        job.load()
        options = {"batch_size": MTEB_BATCH, "show_progress_bar": False}
        scores = {split: task.evaluate(encoder, split, encode_kwargs=options) for split in task.eval_splits}
    now = datetime.datetime.now(tz=datetime.UTC)
    result = TaskResult.from_task_results(task, scores, evaluation_time=time.monotonic() - began, date=now)
    task.unload_data()  # which also puts the published revision back, so not before the result has the local one
    return result


def _aggregated(job: Job, done: dict[str, TaskResult]) -> TaskResult:
    return job.task.combine_task_results([done[part.metadata.name] for part in job.parts])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bars and warnings of mteb's helpers: labels that no classifier predicts are no news here."""
    datasets.disable_progress_bars()
    bar = tqdm.__init__
    tqdm.__init__ = functools.partialmethod(bar, disable=True)  # mteb's evaluators draw some bars unasked
    level = logging.getLogger("mteb").level
    logging.getLogger("mteb").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("mteb").setLevel(level)
        tqdm.__init__ = bar
        datasets.enable_progress_bars()


@contextmanager
def _globals_seeded(seed: int) -> Iterator[None]:
    """mteb's k-means draws from numpy's global generator: seeded per task, so that a resumed run scores the same."""
    python, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_state)
        torch.random.set_rng_state(torch_state)


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=2, default=str) + "\n", encoding="utf-8")
